"""Making an environment whole beside its place: from the cache, else from the index, and compared before it is used.

Each attempt begins in an empty directory: what a failed uv leaves looks installed to the next one, as soon as the
`.dist-info` folders are there. What is wrong in uv's cache is dropped by name, once for each package, and fetched anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from packaging.utils import canonicalize_name

from provision.environments import failures, installer, leftovers, manifest, sealing, uv
from provision.environments.known_wheels import KnownWheels
from provision.environments.sealing import Comparison, Made
from provision.errors import CommandFailed, StepFailed
from provision.host import Host
from provision.locks.lockfile import Lock

_SHOWN = 3
# What uv says of an entry of its cache that it cannot use, such as
# `Failed to install: torch-2.9.1-cp310-….whl (torch==2.9.1)`, followed by its cause.
_UNUSABLE = (
    re.compile(r"Failed to install: \S+\.whl \((?P<name>[\w.-]+)==[^)]*\)(?P<cause>[\s\S]*)"),
    re.compile(r"Failed to \w+ `(?P<name>[\w.-]+)==[^`]*`(?P<cause>[\s\S]*(?:deserialize|cache entry|reading marker))"),
)
# What is no fault of the cache.
_THE_DISK = re.compile(
    r"No space left|Disk quota exceeded|Read-only file system|"
    r"Permission denied|Operation not permitted|Input/output error"
)


@dataclass
class Building:
    """One environment that is to be at `path`. `held` is the descriptor of the prefix's lock."""

    host: Host
    path: str
    lock: Lock
    interpreter: str
    held: int
    staging: str
    wheels: str | None = None
    tell: Callable[[str], None] = lambda _: None
    cache: str = ""
    dropped: set[str] = field(default_factory=set)
    stalled: bool = False

    def carried_out(self, reinstall: Iterable[str] = ()) -> Comparison:
        """Make it in `staging`, and return what it consists of. `reinstall` names packages whose cached files are not
        trusted. Raises `StepFailed` that names the wheel at fault.
        """
        self.cache = installer.cache_directory(self.host)
        # What is linked from there is changed with it.
        self.host.require_trusted(self.cache)
        leftovers.sweep(self.cache)
        self._drop(reinstall, "")
        made = self._made()
        if self._installed(offline=True):
            found = self._compared(made)
            if found is not None:
                return found
        while True:
            # Only what uv has put there makes it worth a new start.
            if manifest.walk(self.staging).files.keys() != made.names:
                made = replace(self._made(), since_ns=made.since_ns)
            if self._installed() and (found := self._compared(made)) is not None:
                return found

    def _made(self) -> Made:
        name = self.path.rsplit("/", 1)[-1]
        return installer.make(self.host, self.staging, self.interpreter, name=name, lock=self.held)

    def _installed(self, *, offline: bool = False) -> bool:
        """Whether uv succeeded; where it did not, and a new attempt may, what stood in the way is gone."""
        try:
            installer.sync(
                self.host,
                self.staging,
                self.lock,
                held=self.held,
                wheels=self.wheels,
                offline=offline,
                on_line=(lambda _: None) if offline else self.tell,
            )
        except uv.Stalled as error:
            if self.stalled:
                raise StepFailed(
                    f"{error}, twice; `{self.lock.name}` is not installed, nothing was switched", hint=error.hint
                ) from error
            self.stalled = True
            self.tell(f"{error}; trying again")
            return False
        except CommandFailed as error:
            poisoned = {name for name in _poisoned(str(error)) if name not in self.dropped}
            if poisoned:
                # A power cut leaves more than the first one that uv meets.
                self._drop({*poisoned, *self._damaged()}, "uv's cache holds damaged files")
            elif not offline:
                raise failures.explain(str(error), self.lock, self.host) from error
            return False
        return True

    def _compared(self, made: Made) -> Comparison | None:
        """What it consists of; None where packages are wrong that can be fetched anew."""
        found = sealing.compare(self.staging, self.lock, made, KnownWheels(self.host), cache=self.cache)
        if not found.wrong and not found.strays:
            return found
        if new := found.wrong.keys() - self.dropped:
            self._drop(new, "files from uv's cache are not those of their wheels")
            return None
        if found.wrong:
            what = "; ".join(f"`{name}` ({_some(files)})" for name, files in sorted(found.wrong.items())[:_SHOWN])
            raise StepFailed(
                f"{len(found.wrong)} packages are not what their wheels hold, fetched anew, too: {what}",
                hint="the index, or a proxy before it, serves damaged files; or the disk damages what is written to it",
            )
        raise StepFailed(
            f"`{self.lock.name}` was installed with files that are in none of its wheels: {_some(found.strays)}",
            hint=f"they are in uv's cache (`{self.cache}`), where something was added: `uv cache clean`, and again",
        )

    def _drop(self, packages: Iterable[str], why: str) -> None:
        packages = set(packages)
        if packages:
            if why:
                self.tell(f"{why}: {_some(sorted(packages))} fetched anew")
            installer.drop(self.host, packages, lock=self.held)
            self.dropped |= packages

    def _damaged(self) -> set[str]:
        """Packages of the lock of which an unpacked wheel in the cache lacks files, or has some of another size."""
        pinned = {pin.name for pin in self.lock.requirements}
        found = set()
        for place in Path(self.cache).glob("archive-v*/*/*.dist-info"):
            name = manifest.package_of(str(place))
            if name in pinned and not _is_whole(place):
                found.add(name)
        return found


def _is_whole(folder: Path) -> bool:
    root = folder.parent
    with suppress(OSError, ValueError):
        claims = manifest.claims(str(root), f"./{folder.name}")
        # What goes elsewhere than into site-packages is under another name here.
        inside = [one for one in claims if not (root / one.path).is_symlink()]
        return bool(claims) and all(one.size is None or (root / one.path).stat().st_size == one.size for one in inside)
    return False


def _poisoned(said: str) -> set[str]:
    """The package that uv could not install from its own cache, in `said`."""
    matches = (pattern.search(said) for pattern in _UNUSABLE)
    return {
        str(canonicalize_name(found["name"])) for found in matches if found and not _THE_DISK.search(found["cause"])
    }


def _some(names: Iterable[str]) -> str:
    names = list(names)
    shown = ", ".join(f"`{name}`" for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
