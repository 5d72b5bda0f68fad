"""Where environments lie under the prefix, and how one is known to be whole without starting anything.

environments/<stack>-cp310-x86_64-<12 of the lock's digest>/    one installed stack
    .sgprov/lock.txt          what it was made from, so that it can be verified wherever the lockfile is
    .sgprov/manifest.json     every file, as its wheel has it
    .sgprov/directories.json  the times of its directories: whether anything was added or taken away since
    .sgprov/drift.json        what was found not to be so any more: the next run makes it anew
    .sgprov/stamp.json        every file was compared with its wheel; without it the next run makes it anew
    .sgprov/claim             locked by a run that is about to put it in use
environments/.<the same>.new/ one that is being made; moved into its place when it is stamped
    .sgprov/made              `uv venv` ended well: what was downloaded since is in uv's cache
environments/.<the same>.old/ what was in its place, while it is removed
current, previous        links to two of them
.lock                    held by whoever changes any of this
python/                  interpreters that uv fetched
bytecode/                what the Pythons of servers compiled, and beside it what those in containers did
receipt.json, receipts/  what was installed last, and before
"""

from __future__ import annotations

import glob
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

import msgspec
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from provision.documents import decode_json
from provision.environments import presence
from provision.host import HostView
from provision.locks.lockfile import Lock, Requirement

STAMP = ".sgprov/stamp.json"
MADE = ".sgprov/made"
LOCK = ".sgprov/lock.txt"
DRIFT = ".sgprov/drift.json"
CLAIM = ".sgprov/claim"
# What Python compiled, by the path of its source: of servers, and of those in containers, which nobody else may run.
BYTECODE, BYTECODE_INSIDE = "bytecode", "bytecode-of-containers"
CURRENT = "current"
PREVIOUS = "previous"
_DIGEST_LENGTH = 12
_KINDS = ("new", "old")


class Stamp(msgspec.Struct, frozen=True, kw_only=True):
    """What an environment holds. `time` is UTC (ISO 8601); `python` the full version, `interpreter` its path."""

    name: str
    lock: str
    lock_digest: str
    python: str
    interpreter: str
    sgprov: str
    time: str
    # The sha256 of its manifest; none in one that was made before there were any.
    manifest: str = ""
    schema: int = 2

    @property
    def stack(self) -> str:
        """The stack's name, from the lock's, such as `sglang-0.5.23.cp313.x86_64.txt`."""
        return self.lock.rsplit(".cp", 1)[0]


@dataclass(frozen=True, kw_only=True)
class Environment:
    """One folder under `environments/`. Without a stamp it was interrupted, or is being installed now."""

    path: str
    stamp: Stamp | None
    current: bool = False
    previous: bool = False

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]


def path_for(prefix: str, lock: Lock) -> str:
    """The directory of the environment that `lock` makes: another lock is another directory."""
    python = lock.python.replace(".", "")
    return f"{prefix}/environments/{lock.stack}-cp{python}-{lock.arch}-{lock.digest[:_DIGEST_LENGTH]}"


def staging_of(path: str) -> str:
    """Where the environment that is to be at `path` is made."""
    return _beside(path, "new")


def discarded_of(path: str) -> str:
    """Where the environment that was at `path` is, while it is removed."""
    return _beside(path, "old")


def python_of(path: str) -> str:
    """The interpreter inside an environment."""
    return f"{path}/bin/python"


def interpreter_of(view: HostView, path: str) -> str | None:
    """The interpreter that an environment was made from, where it stays: one that is stamped is not made anew."""
    stamp = read_stamp(view, path)
    return stamp.interpreter if stamp and view.stat(python_of(path)) else None


def read_stamp(view: HostView, path: str) -> Stamp | None:
    """The stamp of an environment (or of a link to one). One that cannot be parsed counts as absent.

    Raises `UntrustedPath` where another user could have made the environment, or can write into it.
    """
    text = view.read_state(f"{path}/{STAMP}")
    if text is None:
        return None
    try:
        return decode_json(text, Stamp)
    except msgspec.DecodeError:
        return None


def is_complete(view: HostView, path: str, lock: Lock) -> bool:
    """Whether the environment holds what `lock` pins, and nothing was added to it or taken from it since its stamp.

    It does not read files (`verify` does), so it costs milliseconds. Raises as `read_stamp` does.
    """
    stamp = read_stamp(view, path)
    return stamp is not None and is_stamped(view, path, lock) and presence.is_untouched(path, stamp.manifest)


def is_changed(view: HostView, path: str) -> bool:
    """Whether an environment differs from its stamp as far as that is seen without reading it, or `verify` found so."""
    stamp = read_stamp(view, path)
    # Of a recorded machine, and of one that has no manifest yet, that is not known.
    if stamp is None or not stamp.manifest or view.recorded:
        return False
    return view.stat(f"{path}/{DRIFT}") is not None or not presence.is_untouched(path, stamp.manifest)


def is_stamped(view: HostView, path: str, lock: Lock) -> bool:
    """Whether the environment was stamped for `lock`, has its Python and a folder for each package: for those who only
    want to know whether anything is to be fetched, of a recorded machine, too."""
    stamp = read_stamp(view, path)
    if stamp is None or stamp.lock_digest != lock.digest:
        return False
    view.require_trusted(str(PurePosixPath(python_of(path)).parent))
    # The link to the interpreter dangles when the interpreter was removed or upgraded away.
    if view.stat(python_of(path)) is None:
        return False
    return not missing(view, path, lock) and view.stat(f"{path}/{DRIFT}") is None


def missing(view: HostView, path: str, lock: Lock) -> tuple[str, ...]:
    """Pins (`torch==2.9.1`) whose dist-info folder is not there, or is there with another version."""
    pattern = f"{glob.escape(path)}/lib/python{lock.python}/site-packages/*.dist-info"
    return absent(lock.requirements, view.glob(pattern))


def absent(requirements: Iterable[Requirement], folders: Iterable[str]) -> tuple[str, ...]:
    """Pins that none of the dist-info `folders` is of."""
    there: dict[str, set[str]] = {}
    for folder in folders:
        # Such as `/…/site-packages/typing_extensions-4.15.0.dist-info`; a version holds no hyphen.
        name, _, version = folder.rsplit("/", 1)[-1].removesuffix(".dist-info").rpartition("-")
        there.setdefault(canonicalize_name(name), set()).add(version)
    return tuple(
        f"{pin.name}=={pin.version}"
        for pin in requirements
        if not any(_same(pin.version, version) for version in there.get(pin.name, ()))
    )


def current(view: HostView, prefix: str) -> str | None:
    """The path of the environment in use, or None."""
    return _behind(view, prefix, CURRENT)


def previous(view: HostView, prefix: str) -> str | None:
    """The path of the environment that a rollback goes to, or None."""
    return _behind(view, prefix, PREVIOUS)


def list_environments(view: HostView, prefix: str) -> tuple[Environment, ...]:
    """All environments, the newest first, those without a stamp and what is being made or removed last."""
    now, before = current(view, prefix), previous(view, prefix)
    folder = f"{glob.escape(prefix)}/environments"
    found = [
        Environment(path=path, stamp=read_stamp(view, path), current=path == now, previous=path == before)
        for path in view.glob(f"{folder}/*")
    ]
    found += [Environment(path=path, stamp=None) for kind in _KINDS for path in view.glob(f"{folder}/.*.{kind}")]
    return tuple(sorted(found, key=lambda each: each.stamp.time if each.stamp else "", reverse=True))


def _behind(view: HostView, prefix: str, link: str) -> str | None:
    # The stamp names its own directory, so that a link can be followed by reading a file.
    stamp = read_stamp(view, f"{prefix}/{link}")
    return f"{prefix}/environments/{stamp.name}" if stamp and "/" not in stamp.name else None


def _beside(path: str, kind: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder}/.{name}.{kind}"


def _same(pinned: str, installed: str) -> bool:
    if pinned == installed:
        return True
    try:
        return Version(pinned) == Version(installed)
    except InvalidVersion:
        return False
