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
    """One package: what its RECORD says, and what came with its wheel besides. `record` is that file."""

    pin: Requirement
    record: str
    claims: list[Claim]
    known: Known | None
    # Its RECORD is the one that is known.
    familiar: bool = False
    # Then: those of its files that do not look as they did.
    changed: list[File] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


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
        self.claimed: dict[str, str | None] = {}
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
        packages = [Package(one.pin.name, self._judged(one)) for one in self.packages]
        return Comparison(
            manifest=Manifest(
                packages=tuple(packages),
                own=tuple(self._file(path, self.hashes[path]) for path in own),
                links={path: str(Path(self.root, path).readlink()) for path in self.made.names if self._is_link(path)},
            ),
            directories=self.tree.directories,
            wrong={**self.wrong, **{one.pin.name: one.problems for one in self.packages if one.problems}},
            strays=self.strays,
        )

    def _protect(self) -> None:
        """Files are those of uv's cache, which may have been filled under another umask."""
        for kind in (self.tree.files, self.tree.directories):
            for path in [path for path, status in kind.items() if status.st_mode & _OTHERS_WRITE]:
                place, mode = Path(self.root, path), kind[path].st_mode
                try:
                    if not stat.S_ISLNK(mode):
                        place.chmod(stat.S_IMODE(mode) & ~_OTHERS_WRITE)
                        kind[path] = place.lstat()
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
            package = self._package(pins[name], folder)
            if package is None:
                self.wrong[name] = ["RECORD"]
                continue
            self.packages.append(package)
            paths = {claim.path: claim.sha256 for claim in package.claims}
            for path in self.claimed.keys() & paths.keys():
                self.shared.setdefault(path, {self.claimed[path]}).add(paths[path])
            self.claimed.update(paths)

    def _package(self, pin: Requirement, folder: str) -> _Installed | None:
        record, known = f"{folder}/RECORD", self.known.get(pin, _site(folder))
        if known and manifest.sha256_of(f"{self.root}/{record}") == known.record:
            claims = [Claim(file.path, file.sha256, file.size) for file in known.files]
            return _Installed(pin, record, claims, known, familiar=True)
        with suppress(OSError, ValueError):
            return _Installed(pin, record, manifest.claims(self.root, folder), known)
        return None

    def _attribute_the_rest(self) -> None:
        """Some wheels hold files that their RECORD leaves out: the cache tells whose they are."""
        by_name = {package.pin.name: package for package in self.packages}
        for path in sorted(self.tree.files.keys() - self.claimed.keys() - self.made.names):
            status = self.tree.files[path]
            package = by_name.get(self._source_of(path, status) or "") if stat.S_ISREG(status.st_mode) else None
            if package:
                package.unlisted.append(path)
                package.familiar = False
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
        if package.familiar and package.known:
            package.changed = package.known.changed(self.tree.files)
            there = [file for file in package.changed if self._is_there(package, file.path)]
            self.to_read.update(file.path for file in there if not self._came_now(file.path, file.size))
            return
        fresh, linked = True, []
        for claim in (*package.claims, *(Claim(path, None, None) for path in package.unlisted)):
            path, status = claim.path, self.tree.files.get(claim.path)
            if not self._is_there(package, path) or status is None:
                continue
            if claim.size not in {None, status.st_size} and path not in self.shared:
                package.problems.append(path)
            if status.st_nlink == 1 or claim.sha256 is None or path in self.shared:
                self.to_read.add(path)
            # What another package brings, too, is read, and may have been linked from that one's older entry.
            if status.st_nlink > 1 and path not in self.shared:
                linked.append(path)
                fresh = fresh and self._came_now(path, status.st_size)
        if not fresh:
            self._weigh(package)
            self.to_read.update(linked)

    def _came_now(self, path: str, size: int) -> bool:
        """Whether uv unpacked the file in this run, from a wheel that it compared with the lock."""
        status = self.tree.files[path]
        is_new = self.made.since_ns <= status.st_mtime_ns <= self.now_ns
        return is_new and status.st_nlink > 1 and status.st_size == size and path not in self.shared

    def _is_there(self, package: _Installed, path: str) -> bool:
        status = self.tree.files.get(path)
        if status and stat.S_ISREG(status.st_mode) and status.st_uid in _OWNERS:
            return True
        package.problems.append(path)
        return False

    def _weigh(self, package: _Installed) -> None:
        """Whether an older entry of the cache can be believed to be its wheel's, if all is as its RECORD says."""
        if package.known is None:
            # Whether they came with the wheel is not to be told.
            package.problems.extend(package.unlisted)
        elif package.known.origin != known_wheels.origin_of(package.claims, package.unlisted):
            package.problems.append(package.record)

    def _judged(self, package: _Installed) -> tuple[File, ...]:
        """Its files, as they are; what is wrong with them is in `problems` then."""
        known = package.known
        for claim in package.claims:
            if claim.path in self.hashes and claim.sha256 is not None:
                right = self.shared.get(claim.path, {claim.sha256})
                if self.hashes[claim.path] not in right and claim.path not in package.problems:
                    package.problems.append(claim.path)
        # As before: nothing is to be made or remembered anew.
        if known and package.familiar and not package.problems and all(map(self._is_as_before, package.changed)):
            return known.files
        paths = [claim.path for claim in package.claims if claim.path in self.tree.files] + package.unlisted
        files = tuple(self._file(path, self.hashes.get(path) or self.claimed.get(path)) for path in paths)
        if not package.problems:
            self._remember(package, files)
        return files

    def _is_as_before(self, file: File) -> bool:
        """Of a file that is made for each environment; one from the cache that looks otherwise is remembered so."""
        if file.path in self.shared or self.tree.files[file.path].st_nlink > 1:
            return False
        return file == self._file(file.path, self.hashes[file.path])

    def _remember(self, package: _Installed, files: tuple[File, ...]) -> None:
        there = [self.tree.files[file.path] for file in files]
        said = {claim.path: claim for claim in package.claims if claim.path in self.shared}
        known = package.known if package.familiar else None
        learned = Known(
            record=manifest.sha256_of(f"{self.root}/{package.record}") or "",
            origin=known.origin if known else known_wheels.origin_of(package.claims, package.unlisted),
            # Of one that two packages bring: what this one says.
            files=tuple(_as_said(file, said[file.path]) if file.path in said else file for file in files),
            times=tuple(status.st_mtime_ns for status in there),
            inodes=tuple(status.st_ino for status in there),
        )
        self.known.put(package.pin, _site(package.record.rpartition("/")[0]), learned)

    def _file(self, path: str, sha256: str | None) -> File:
        status = self.tree.files[path]
        return File(path, status.st_size, stat.S_IMODE(status.st_mode), sha256 or "")

    def _is_link(self, path: str) -> bool:
        return path in self.tree.files and stat.S_ISLNK(self.tree.files[path].st_mode)


def _site(folder: str) -> str:
    """The directory that a `.dist-info` is in, such as `lib/python3.13/site-packages`."""
    return folder.rpartition("/")[0]


def _as_said(file: File, claim: Claim) -> File:
    return File(file.path, file.size if claim.size is None else claim.size, file.mode, claim.sha256 or file.sha256)
