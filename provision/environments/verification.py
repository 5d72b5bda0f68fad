"""Whether the files on disk are those of the wheels that were locked: the manifest against every file.

A hash lock protects the download only. uv hard-links files from its cache, so an edited installed file is edited in
the cache too, and in every environment that is made from it afterwards: this is what tells. What the environment itself
says of its files (RECORD) is one of them, and is not asked.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from provision.environments import bytecode, manifest
from provision.environments.layout import read_stamp
from provision.environments.manifest import File, Manifest, Tree
from provision.environments.sealing import digests
from provision.host import HostView
from provision.report import Finding, Severity
from provision.trust import kind_of

CHECK = "environment-files"
_SHOWN_FILES = 3


@dataclass(frozen=True, kw_only=True)
class Scan:
    """How far a verification is, in bytes."""

    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was looked at, and one finding for each package whose files differ, or for what belongs to none."""

    packages: int
    files: int
    bytes: int
    seconds: float
    findings: tuple[Finding, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.findings

    @property
    def mb_per_s(self) -> float:
        return self.bytes / 1e6 / self.seconds if self.seconds else 0.0


@dataclass
class _Drift:
    """What is wrong with the files of a package, or with those of none."""

    edited: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)


def verify(view: HostView, path: str, *, tell: Callable[[Scan], None] = lambda _: None) -> Verification:
    """Compare every file of the environment at `path` with its manifest. `tell` hears of it after each file.

    Nothing is followed, run or waited for that is no plain file: a link or a pipe in place of one is a difference.
    """
    start = time.monotonic()
    stamp = read_stamp(view, path)
    held = manifest.read(path, stamp.manifest) if stamp and stamp.manifest else None
    if stamp is None or held is None:
        return Verification(
            packages=0, files=0, bytes=0, seconds=0.0, findings=(_unknown(path, has=stamp is not None),)
        )
    tree = manifest.walk(path)
    files = {file.path: (owner, file) for owner, file in held.owners()}
    found: dict[str | None, _Drift] = {}
    to_read = []
    for owner, file in files.values():
        status = tree.files.get(file.path)
        if status is None:
            found.setdefault(owner, _Drift()).missing.append(file.path)
        elif _looks_otherwise(file, status):
            found.setdefault(owner, _Drift()).edited.append(file.path)
        else:
            to_read.append(file.path)
    _read(path, files, to_read, found, tell)
    _links(path, held, tree, found.setdefault(None, _Drift()))
    found[None].added += _added(view, path, held, tree, stamp.interpreter)
    return Verification(
        packages=len(held.packages),
        files=len(files),
        bytes=sum(file.size for _, file in files.values()),
        seconds=time.monotonic() - start,
        findings=tuple(
            _finding(path, owner, drift, tree)
            for owner, drift in sorted(found.items(), key=lambda item: item[0] or "")
            if drift != _Drift()
        ),
    )


def repair(path: str) -> str:
    """The command that makes an environment whole again."""
    prefix, _, name = path.partition("/environments/")
    return f"sgprov environments repair {name} --prefix {prefix}"


def _looks_otherwise(file: File, status: os.stat_result) -> bool:
    return not stat.S_ISREG(status.st_mode) or status.st_size != file.size or stat.S_IMODE(status.st_mode) != file.mode


def _read(
    path: str,
    files: dict[str, tuple[str | None, File]],
    to_read: list[str],
    found: dict[str | None, _Drift],
    tell: Callable[[Scan], None],
) -> None:
    done, total = 0, sum(files[each][1].size for each in to_read)
    for each, sha256 in digests(path, to_read):
        owner, file = files[each]
        if sha256 != file.sha256:
            found.setdefault(owner, _Drift()).edited.append(each)
        done += file.size
        tell(Scan(done=done, total=total))


def _links(path: str, held: Manifest, tree: Tree, drift: _Drift) -> None:
    for link, target in held.links.items():
        status = tree.files.get(link)
        if status is None:
            drift.missing.append(link)
        elif not stat.S_ISLNK(status.st_mode) or str(Path(path, link).readlink()) != target:
            drift.edited.append(link)


def _added(view: HostView, path: str, held: Manifest, tree: Tree, interpreter: str) -> Iterable[str]:
    """Files that were not there when it was stamped; bytecode only where it is not what its source comes to."""
    known = {file.path for _, file in held.owners()} | held.links.keys()
    added = [each for each in tree.files if each not in known]
    compiled = [each for each in added if bytecode.source_of(each) in known and stat.S_ISREG(tree.files[each].st_mode)]
    right = bytecode.genuine(view, path, compiled, interpreter)
    return sorted(each for each in added if each not in right)


def _finding(path: str, package: str | None, drift: _Drift, tree: Tree) -> Finding:
    kinds = (("edited", drift.edited), ("missing", drift.missing), ("added", drift.added))
    parts = [f"{len(names)} {what} ({_some(names, tree)})" for what, names in kinds if names]
    what = f"`{package}`" if package else f"`{path}`"
    return Finding(
        check=CHECK,
        severity=Severity.ERROR,
        text=f"{what} is not what was installed: {', '.join(parts)}",
        fix=(f"`{repair(path)}` makes it anew",),
        data={"package": package, "edited": drift.edited, "missing": drift.missing, "added": drift.added},
    )


def _unknown(path: str, *, has: bool) -> Finding:
    why = "the list of its files is gone, damaged, or was changed" if has else "it is not complete, or was interrupted"
    return Finding(
        check=CHECK,
        severity=Severity.ERROR,
        text=f"what `{path}` should hold is not known: {why}",
        fix=(f"`{repair(path)}`" if has else "`sgprov bootstrap` makes it anew",),
        data={"package": None, "edited": [], "missing": [], "added": []},
    )


def _some(names: list[str], tree: Tree) -> str:
    shown = ", ".join(f"`{name}`{_kind(tree.files.get(name))}" for name in names[:_SHOWN_FILES])
    return shown if len(names) <= _SHOWN_FILES else f"{shown}, and {len(names) - _SHOWN_FILES} more"


def _kind(status: os.stat_result | None) -> str:
    return f" ({kind_of(status)})" if status and not stat.S_ISREG(status.st_mode) else ""
