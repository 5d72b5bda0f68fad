"""Whether the files on disk are those of the wheels that were locked: RECORD's sha256 against every file.

A hash lock protects the download only. uv hard-links files from its cache, so an edited installed file is edited in
the cache too, and in every environment that is made from it afterwards: this is what tells.
"""

from __future__ import annotations

import base64
import csv
import glob
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from provision.environments.layout import LOCK, absent
from provision.host import HostView
from provision.locks.lockfile import parse
from provision.report import Finding, Severity

CHECK = "environment-files"
_BLOCK_BYTES = 1 << 20
_SHOWN_FILES = 3
# Hashing leaves the interpreter's lock, so threads help; beyond a few the disk is what is waited for.
_MOST_THREADS = 8


@dataclass(frozen=True, kw_only=True)
class Scan:
    """How far a verification is, in bytes."""

    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was looked at, and one finding for each package whose files differ."""

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


@dataclass(frozen=True, kw_only=True)
class _File:
    package: str
    name: str
    path: str
    sha256: str
    size: int


def verify(view: HostView, path: str, *, tell: Callable[[Scan], None] = lambda _: None) -> Verification:
    """Hash every file that a RECORD of the environment at `path` lists. `tell` hears of it after each file."""
    start = time.monotonic()
    folders = view.glob(f"{glob.escape(path)}/lib/python3.*/site-packages/*.dist-info")
    claims, without_record = _claims(view, folders)
    missing = {package: ["RECORD"] for package in without_record}
    # A package that was removed with its RECORD is known from the lock alone.
    pins = parse(view.read_state(f"{path}/{LOCK}") or "")
    missing |= {pin.partition("==")[0]: [f"all of {pin}"] for pin in absent(pins, folders)}
    edited: dict[str, list[str]] = {}
    total, done = sum(claimed[0].size for claimed in claims.values()), 0
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        for claimed, found in zip(claims.values(), pool.map(_sha256, claims), strict=True):
            wrong = missing if found is None else edited
            if found not in {file.sha256 for file in claimed}:
                for file in claimed:
                    wrong.setdefault(file.package, []).append(file.name)
            done += claimed[0].size
            tell(Scan(done=done, total=total))
    packages = sorted({*edited, *missing})
    return Verification(
        packages=len(folders),
        files=len(claims),
        bytes=total,
        seconds=time.monotonic() - start,
        findings=(
            *(() if folders else (_nothing(path),)),
            *(_finding(path, name, edited.get(name, []), missing.get(name, [])) for name in packages),
        ),
    )


def _claims(view: HostView, folders: Sequence[str]) -> tuple[dict[str, list[_File]], list[str]]:
    """Path to what RECORDs say of it, and the packages that have no RECORD.

    Two packages may claim one path (a stray `build_backend.py` at the top of two wheels): what either of them says
    is right, for uv installs them in no order.
    """
    claims: dict[str, list[_File]] = {}
    without: list[str] = []
    for folder in folders:
        record = view.read(f"{folder}/RECORD")
        if record is None:
            without.append(_package(folder))
            continue
        for file in _listed(folder, record):
            claims.setdefault(file.path, []).append(file)
    return claims, without


def _listed(folder: str, text: str) -> Iterator[_File]:
    """The files of a RECORD with lines such as `torch/version.py,sha256=eB5…,262`; bytecode has no hash."""
    site_packages = folder.rsplit("/", 1)[0]
    for row in csv.reader(text.splitlines()):
        if len(row) < 2 or not row[1].startswith("sha256="):  # noqa: PLR2004  # path and hash
            continue
        yield _File(
            package=_package(folder),
            name=row[0],
            path=os.path.normpath(f"{site_packages}/{row[0]}"),
            sha256=_hexadecimal(row[1].removeprefix("sha256=")),
            size=int(row[2]) if len(row) > 2 and row[2].isdigit() else 0,  # noqa: PLR2004
        )


def _package(folder: str) -> str:
    """`typing-extensions`, of `/…/site-packages/typing_extensions-4.15.0.dist-info`."""
    name = folder.rsplit("/", 1)[-1].removesuffix(".dist-info").rpartition("-")[0]
    return str(canonicalize_name(name))


def _hexadecimal(digest: str) -> str:
    """RECORD writes hashes in URL-safe base64 without its padding."""
    return base64.urlsafe_b64decode(digest + "=" * (-len(digest) % 4)).hex()


def _sha256(path: str) -> str | None:
    # Read here and not through the view, which gives text of at most a few MiB: these are gigabytes of machine code.
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb", buffering=0) as stream:
            while block := stream.read(_BLOCK_BYTES):
                digest.update(block)
    except OSError:
        return None
    return digest.hexdigest()


def _finding(path: str, package: str, edited: list[str], missing: list[str]) -> Finding:
    parts = [
        f"{len(names)} {what} ({_some(names)})" for what, names in (("edited", edited), ("missing", missing)) if names
    ]
    return Finding(
        check=CHECK,
        severity=Severity.ERROR,
        text=f"`{package}` is not what was installed: {', '.join(parts)}",
        fix=(f"`{repair(path)}` fetches it anew",),
        data={"package": package, "edited": edited, "missing": missing},
    )


def repair(path: str) -> str:
    """The command that makes an environment whole again."""
    prefix, _, name = path.partition("/environments/")
    return f"sgprov environments repair {name} --prefix {prefix}"


def _nothing(path: str) -> Finding:
    return Finding(check=CHECK, severity=Severity.ERROR, text=f"`{path}` holds no packages", fix=(f"`{repair(path)}`",))


def _some(names: list[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:_SHOWN_FILES])
    return shown if len(names) <= _SHOWN_FILES else f"{shown}, and {len(names) - _SHOWN_FILES} more"
