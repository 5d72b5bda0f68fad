"""Whether what uv has just installed is what the lock pins: file by file, before an environment is stamped.

A wheel that uv fetched and unpacked in this run was compared with the lock by its hash; then each file must be there
with its size. What it linked from an older entry of its cache, or copied, is read and compared with its RECORD, unless
it is known to be unchanged (`known_wheels`). What no wheel brought is a difference, too.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from provision.environments import known_wheels, manifest
from provision.environments.known_wheels import Known, KnownWheels
from provision.environments.layout import absent
from provision.environments.manifest import Claim, File, Manifest, Package
from provision.host.files import failed
from provision.locks.lockfile import Lock, Requirement

_OTHERS_WRITE = 0o022
_SITE_DEPTH = 3
_OWNERS = {0, os.geteuid()}
# Hashing leaves the interpreter's lock, so threads help; beyond a few the disk is what is waited for.
_MOST_THREADS = 8


@dataclass(frozen=True, kw_only=True)
class Made:
    """What an environment was before the first wheel: the files that `uv venv` made, and when the run began, by the
    disk's own clock."""

    names: frozenset[str]
    since_ns: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """`wrong` has, for each package whose files are not its wheel's, which; `strays` are files that came with none."""

    manifest: Manifest
    directories: dict[str, os.stat_result]
    wrong: dict[str, list[str]]
    strays: list[str]


@dataclass
class _Installed:
    """One package: what its RECORD says, and what came with its wheel besides."""

    pin: Requirement
    claims: list[Claim]
    unlisted: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    # What is known of the wheel from now on, if it proves right.
    learned: Known | None = None


def compare(root: str, lock: Lock, made: Made, known: KnownWheels, *, cache: str) -> Comparison:
    """Compare the environment at `root` with the wheels of the lock; `cache` is where uv links them from.

    Files that others could write are closed to them on the way. Raises `StepFailed` where the disk does not answer.
    """
    return _Comparing(root, lock, made, known, cache).carried_out()


def digests(root: str, paths: Iterable[str]) -> Iterator[tuple[str, str | None]]:
    """The sha256 of files below `root`, as they are read; None for what is no file or cannot be read."""
    paths = list(paths)
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        yield from zip(paths, pool.map(lambda path: manifest.sha256_of(f"{root}/{path}"), paths), strict=True)


class _Comparing:
    def __init__(self, root: str, lock: Lock, made: Made, known: KnownWheels, cache: str) -> None:
        self.root, self.lock, self.made, self.known, self.cache = root, lock, made, known, cache
        self.now_ns = time.time_ns()
        self.tree = manifest.walk(root)
        self.wrong: dict[str, list[str]] = {}
        self.strays: list[str] = []
        self.packages: list[_Installed] = []
        self.claimed: dict[str, Claim] = {}
        # Two packages may bring one file (a stray `build_backend.py` at the top of both): either's is right.
        self.shared: dict[str, set[str | None]] = {}
        self.to_read: set[str] = set()
        self.hashes: dict[str, str | None] = {}

    def carried_out(self) -> Comparison:
        self._protect()
        self._read_records()
        self._attribute_the_rest()
        for package in self.packages:
            self._look(package)
        own = [path for path in self.made.names if path in self.tree.files and not self._is_link(path)]
        self.hashes.update(digests(self.root, sorted({*self.to_read, *own})))
        for package in self.packages:
            self._judge(package)
        self.known.save()
        return Comparison(
            manifest=Manifest(
                packages=tuple(Package(one.pin.name, tuple(self._files(one))) for one in self.packages),
                own=tuple(self._file(path, self.hashes[path]) for path in own),
                links={path: str(Path(self.root, path).readlink()) for path in self.made.names if self._is_link(path)},
            ),
            directories=self.tree.directories,
            wrong={**self.wrong, **{one.pin.name: one.problems for one in self.packages if one.problems}},
            strays=self.strays,
        )

    def _protect(self) -> None:
        """Files are those of uv's cache, which may have been filled under another umask."""
        for path, status in (*self.tree.files.items(), *self.tree.directories.items()):
            if status.st_mode & _OTHERS_WRITE and not stat.S_ISLNK(status.st_mode):
                place = Path(self.root, path)
                try:
                    place.chmod(stat.S_IMODE(status.st_mode) & ~_OTHERS_WRITE)
                    kept = self.tree.files if path in self.tree.files else self.tree.directories
                    kept[path] = place.lstat()
                except OSError as error:
                    raise failed("closed to others", str(place), error) from error

    def _read_records(self) -> None:
        pins = {pin.name: pin for pin in self.lock.requirements}
        folders = [
            path for path in self.tree.directories if path.endswith(".dist-info") and path.count("/") == _SITE_DEPTH
        ]
        self.wrong |= {pin.partition("==")[0]: [f"all of {pin}"] for pin in absent(self.lock.requirements, folders)}
        for folder in folders:
            name = manifest.package_of(folder)
            if name not in pins:
                self.strays.append(folder)
                continue
            try:
                package = _Installed(pins[name], manifest.claims(self.root, folder))
            except (OSError, ValueError):
                self.wrong[name] = ["RECORD"]
                continue
            self.packages.append(package)
            for claim in package.claims:
                if (first := self.claimed.setdefault(claim.path, claim)) is not claim:
                    self.shared.setdefault(claim.path, {first.sha256}).add(claim.sha256)

    def _attribute_the_rest(self) -> None:
        """Some wheels hold files that their RECORD leaves out: the cache tells whose they are."""
        by_name = {package.pin.name: package for package in self.packages}
        for path, status in self.tree.files.items():
            if path in self.claimed or path in self.made.names:
                continue
            package = by_name.get(self._source_of(path, status) or "") if stat.S_ISREG(status.st_mode) else None
            if package:
                package.unlisted.append(path)
            elif not any(path.startswith(f"{folder}/") for folder in self.strays):
                self.strays.append(path)

    def _source_of(self, path: str, status: os.stat_result) -> str | None:
        """The package in whose unpacked wheel the file lies in uv's cache."""
        inside = path.split("/", _SITE_DEPTH)[-1]
        for place in Path(self.cache).glob("archive-v*/*"):
            with suppress(OSError):
                if os.path.samestat((place / inside).lstat(), status):
                    for folder in place.glob("*.dist-info"):
                        return manifest.package_of(str(folder))
        return None

    def _look(self, package: _Installed) -> None:
        """Decide which of its files must be read."""
        linked, mine, fresh = [], [], True
        files, since, now = self.tree.files, self.made.since_ns, self.now_ns
        for claim in (*package.claims, *(Claim(path, None, None) for path in package.unlisted)):
            status = files.get(claim.path)
            if status is None or not stat.S_ISREG(status.st_mode) or status.st_uid not in _OWNERS:
                package.problems.append(claim.path)
                continue
            if claim.size is not None and claim.size != status.st_size and claim.path not in self.shared:
                package.problems.append(claim.path)
            if status.st_nlink == 1 or claim.sha256 is None or claim.path in self.shared:
                mine.append(claim.path)
            if status.st_nlink > 1:
                linked.append((claim.path, status))
                fresh = fresh and since <= status.st_mtime_ns <= now
        self.to_read.update(mine)
        self._weigh(package, linked, fresh=fresh)

    def _weigh(self, package: _Installed, linked: list[tuple[str, os.stat_result]], *, fresh: bool) -> None:
        before = self.known.get(package.pin)
        now = Known(known_wheels.record_digest(package.claims, package.unlisted), known_wheels.files_digest(linked))
        if before == now:
            return
        package.learned = now
        if fresh:
            return
        if before and before.record != now.record:
            package.problems.append("RECORD")
        elif before is None and package.unlisted:
            # Whether they came with the wheel is not to be told.
            package.problems.extend(package.unlisted)
        self.to_read.update(path for path, _ in linked)

    def _judge(self, package: _Installed) -> None:
        for claim in package.claims:
            if claim.path in self.hashes and claim.sha256 is not None:
                right = self.shared.get(claim.path, {claim.sha256})
                if self.hashes[claim.path] not in right and claim.path not in package.problems:
                    package.problems.append(claim.path)
        if package.learned and not package.problems:
            self.known.add(package.pin, package.learned)

    def _files(self, package: _Installed) -> Iterator[File]:
        for claim in package.claims:
            if claim.path in self.tree.files:
                yield self._file(claim.path, self.hashes.get(claim.path) or claim.sha256)
        yield from (self._file(path, self.hashes.get(path)) for path in package.unlisted)

    def _file(self, path: str, sha256: str | None) -> File:
        status = self.tree.files[path]
        return File(path, status.st_size, stat.S_IMODE(status.st_mode), sha256 or "")

    def _is_link(self, path: str) -> bool:
        return path in self.tree.files and stat.S_ISLNK(self.tree.files[path].st_mode)
