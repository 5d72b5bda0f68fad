"""Where the wheels of a lock come from: uv names them, with whatever indexes and mirrors the user has set up for it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

from provision.environments import installer, uv
from provision.errors import CommandFailed, StepFailed
from provision.host import Host
from provision.locks.lockfile import Requirement
from provision.secrets import mask

tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

# What glibc the wheels of sgprov itself may ask for: RHEL 8, Debian 11 and Ubuntu 20.04 have it.
TOOL_GLIBC = "2.28"
_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}


@dataclass(frozen=True, kw_only=True)
class Source:
    """One wheel: its file name, where it is (`https:`, or a path of this machine), and what it must hash to."""

    name: str
    url: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Machine:
    """For whom wheels are chosen: `python` "3.11", `arch` "x86_64", `glibc` "2.34"."""

    python: str
    arch: str
    glibc: str

    @property
    def platform(self) -> str:
        """As uv calls it."""
        return f"{self.arch}-manylinux_{self.glibc.replace('.', '_')}"


def of_pins(host: Host, pins: Sequence[Requirement], machine: Machine, scratch: Path) -> tuple[Source, ...]:
    """The wheel of each hashed pin. Raises `StepFailed` naming those that no index has."""
    found = [
        Source(name=_file_name(pin.url), url=pin.url.split("#", maxsplit=1)[0], sha256=pin.sha256[0])
        for pin in pins
        if pin.url
    ]
    indexed = [pin for pin in pins if not pin.url]
    lines = "".join(f"{pin.name}=={pin.version}\n" for pin in indexed)
    offered: dict[str, Source] = {source.sha256: source for source in _compile(host, lines, machine, scratch)}
    missing = [pin for pin in indexed if not any(digest in offered for digest in pin.sha256)]
    _require_all(missing)
    found += [next(offered[digest] for digest in pin.sha256 if digest in offered) for pin in indexed]
    return tuple(found)


def of_hashes(host: Host, pins: Sequence[Requirement], machine: Machine, scratch: Path) -> tuple[Source, ...]:
    """The best wheel for that machine among those of each pin. Raises `StepFailed` naming the pins without one."""
    ranks = {tag: rank for rank, tag in enumerate(tags(machine))}
    known = {digest: pin for pin in pins for digest in pin.sha256}
    best: dict[Requirement, tuple[int, Source]] = {}
    for source in _compile(host, "".join(f"{pin.name}=={pin.version}\n" for pin in pins), machine, scratch):
        pin = known.get(source.sha256)
        offered = parse_wheel_filename(source.name)[3]
        rank = min((ranks[tag] for tag in offered if tag in ranks), default=None)
        if pin and rank is not None and (pin not in best or rank < best[pin][0]):
            best[pin] = (rank, source)
    _require_all([pin for pin in pins if pin not in best])
    return tuple(source for _, source in best.values())


def tags(machine: Machine) -> tuple[Tag, ...]:
    """The wheel tags that run there, best first."""
    version = (int(machine.python.split(".")[0]), int(machine.python.split(".")[1]))
    newest = int(machine.glibc.split(".")[1])
    platforms = []
    for minor in range(newest, 4, -1):
        platforms.append(f"manylinux_2_{minor}_{machine.arch}")
        if minor in _LEGACY:
            platforms.append(f"{_LEGACY[minor]}_{machine.arch}")
    platforms.append(f"linux_{machine.arch}")
    interpreter = f"cp{version[0]}{version[1]}"
    return (
        *cpython_tags(version, abis=[interpreter], platforms=platforms),
        *compatible_tags(version, interpreter=interpreter, platforms=platforms),
    )


def _require_all(missing: Sequence[Requirement]) -> None:
    if missing:
        names = ", ".join(f"{pin.name}=={pin.version}" for pin in missing[:5])
        raise StepFailed(
            f"no index has the wheel that was locked of {names}",
            hint="a mirror may lag behind or hold another file: set another with `UV_DEFAULT_INDEX`",
        )


def _compile(host: Host, lines: str, machine: Machine, scratch: Path) -> Iterable[Source]:
    """Let uv resolve, and read which files it found. It asks for names and hashes only; nothing is installed."""
    if not lines:
        return ()
    asked, answer = scratch.absolute() / "requirements.in", scratch.absolute() / "pylock.sources.toml"
    host.write_output(str(asked), lines)
    command = [
        *("pip", "compile", str(asked), "-o", str(answer), "--format", "pylock.toml", "--quiet"),
        *("--python-version", machine.python, "--python-platform", machine.platform, "--only-binary", ":all:"),
        *("--no-header", "--no-annotate", "--no-deps"),
    ]
    variables = {**installer.VARIABLES, "UV_PREVIEW_FEATURES": "pylock"}
    try:
        uv.fetch(host, *command, variables=variables, timeout_s=1800)
    except CommandFailed as error:
        said = "\n".join(f"  {line}" for line in mask(str(error)).splitlines()[1:])
        raise StepFailed(
            f"uv could not find the wheels for Python {machine.python}, {machine.arch}:\n{said}"
        ) from error
    read = tomllib.loads(host.read(str(answer)) or "")
    return [source for package in read.get("packages", ()) for source in _offered(package, answer.parent)]


def _offered(package: dict[str, Any], folder: Path) -> Iterable[Source]:
    for wheel in package.get("wheels", ()):
        digest = wheel.get("hashes", {}).get("sha256")
        # An index of the user's may be a folder: uv then gives paths, or `file:` addresses.
        place = wheel.get("url") or str(folder / wheel["path"])
        if place.startswith("file:"):
            place = unquote(urlsplit(place).path)
        if digest:
            yield Source(name=wheel.get("name") or _file_name(place), url=place, sha256=digest)


def _file_name(url: str) -> str:
    """`torch-2.4.0+cu121-cp310-cp310-linux_x86_64.whl`, of an address in which the plus is `%2B`."""
    return unquote(urlsplit(url).path.rsplit("/", 1)[-1])
