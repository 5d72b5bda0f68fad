"""Reading lockfiles: hashed requirements, one file for a stack, a Python and a CPU architecture."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from packaging.utils import canonicalize_name, parse_wheel_filename

from provision import documents
from provision.errors import UsageError

# `torch==2.9.1 \` or `torch @ https://host/torch-2.4.0%2Bcu121-cp310-cp310-linux_x86_64.whl \`
_PINNED = re.compile(
    r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*(?:==\s*(?P<version>[^\s;\\]+)|@\s*(?P<url>\S+))"
    r"(?:\s*;\s*(?P<marker>[^\\\n]+?))?\s*(?:\\|$|\n|--hash)"
)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_FILE_NAME = re.compile(r"^(?P<stack>.+)\.cp(?P<major>3)(?P<minor>\d+)\.(?P<arch>x86_64|aarch64)\.txt$")


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """One pinned wheel. `url` is set where it is not on the index, `marker` where it is not for every Python."""

    name: str
    version: str
    sha256: tuple[str, ...]
    url: str | None = None
    marker: str | None = None


@dataclass(frozen=True)
class Lock:
    """One lockfile. `python` is a minor version ("3.10"); `digest` the sha256 of the file, in hex."""

    path: Path
    stack: str
    python: str
    arch: str

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def text(self) -> str:
        try:
            return documents.read_input(self.path).decode()
        except UnicodeDecodeError as error:
            raise UsageError(f"the lockfile `{self.path}` is not text: {error}") from error

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @cached_property
    def requirements(self) -> tuple[Requirement, ...]:
        return parse(self.text)

    def version(self, package: str) -> str | None:
        """The version a package is pinned to, or None where it is not in the lock."""
        wanted = canonicalize_name(package)
        return next((pinned.version for pinned in self.requirements if pinned.name == wanted), None)


def parse(text: str) -> tuple[Requirement, ...]:
    """Parse lines such as `torch==2.9.1 \\` followed by `    --hash=sha256:28bf…`.

    Raises `UsageError` for a requirement without a hash, or one that is neither a version nor a wheel's URL.
    """
    found = []
    for entry in _entries(text):
        matched = _PINNED.match(entry)
        hashes = tuple(_HASH.findall(entry))
        if not matched or not hashes:
            raise UsageError(
                f"the lockfile has a line that is not a hashed pin: `{entry.splitlines()[0].strip()}`",
                hint="make it again with `tools/lock`",
            )
        url = matched["url"]
        version = matched["version"] or _version_of(url)
        name = str(canonicalize_name(matched["name"]))
        found.append(Requirement(name=name, version=version, sha256=hashes, url=url, marker=matched["marker"]))
    return tuple(found)


def pins_of(lock: Lock) -> dict[str, str]:
    """Package to version, as a diagnosis compares them with those that a log names."""
    return {pin.name: pin.version for pin in lock.requirements}


def available(directory: Path, stack: str) -> tuple[Lock, ...]:
    """The locks of a stack, oldest Python first."""
    locks = []
    for path in directory.glob(f"{stack}.cp3*.txt"):
        matched = _FILE_NAME.match(path.name)
        if matched and matched["stack"] == stack:
            locks.append(Lock(path, stack, f"{matched['major']}.{matched['minor']}", matched["arch"]))
    return tuple(sorted(locks, key=lambda lock: (int(lock.python.split(".")[1]), lock.arch)))


def _entries(text: str) -> list[str]:
    """Requirements with their continuation lines; comments and blank lines dropped."""
    entries: list[str] = []
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0].isspace() and entries:
            entries[-1] += "\n" + line
        else:
            entries.append(line)
    return entries


def _version_of(url: str) -> str:
    name = url.split("#", maxsplit=1)[0].rsplit("/", 1)[-1].replace("%2B", "+").replace("%2b", "+")
    try:
        return str(parse_wheel_filename(name)[1])
    except ValueError as error:
        raise UsageError(f"the lockfile names a file that is not a wheel: `{url}`") from error
