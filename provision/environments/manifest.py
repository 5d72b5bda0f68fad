"""What an environment consists of: every file with its size, mode and sha256, written down when it is stamped.

RECORD, which each wheel brings, lies among the files that it describes, so whoever changes one can change the other.
The manifest lies apart, and the stamp holds its hash.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec
from packaging.utils import canonicalize_name

from provision import trust
from provision.documents import decode_json
from provision.host.files import failed

FILE = ".sgprov/manifest.json"
# What sgprov itself keeps in an environment is no part of it.
OWN_FOLDER = ".sgprov"
_MOST_BYTES = 1 << 28


class File(msgspec.Struct, array_like=True, frozen=True):
    """One file: its path below the environment, and what it must be. `mode` holds the permission bits."""

    path: str
    size: int
    mode: int
    sha256: str


class Package(msgspec.Struct, array_like=True, frozen=True):
    """The files that came with one wheel."""

    name: str
    files: tuple[File, ...]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """`own` are the files that `uv venv` made, `links` all symbolic links and where they lead."""

    packages: tuple[Package, ...]
    own: tuple[File, ...]
    links: dict[str, str]
    schema: int = 1

    def owners(self) -> Iterator[tuple[str | None, File]]:
        """Every file, with its package."""
        yield from ((None, file) for file in self.own)
        for package in self.packages:
            yield from ((package.name, file) for file in package.files)


class Claim(NamedTuple):
    """What a RECORD says of a file, in hex; a hash or size that it leaves out is None."""

    path: str
    sha256: str | None
    size: int | None


@dataclass
class Tree:
    """What lies in a directory, links not followed: all that is no directory, and the directories."""

    files: dict[str, os.stat_result] = field(default_factory=dict)
    directories: dict[str, os.stat_result] = field(default_factory=dict)


def walk(root: str) -> Tree:
    """Everything below `root` but what sgprov keeps there itself. Raises `StepFailed` where it cannot be looked at."""
    tree = Tree()
    rest = [""]
    try:
        tree.directories[""] = os.lstat(root)
        while rest:
            inside = rest.pop()
            with os.scandir(f"{root}/{inside}") as entries:
                for entry in entries:
                    name = f"{inside}{entry.name}"
                    status = entry.stat(follow_symlinks=False)
                    if not stat.S_ISDIR(status.st_mode):
                        tree.files[name] = status
                    elif name != OWN_FOLDER:
                        tree.directories[name] = status
                        rest.append(f"{name}/")
    except OSError as error:
        raise failed("looked at", root, error) from error
    return tree


def encode(manifest: Manifest) -> tuple[bytes, str]:
    """The text of a manifest, and its sha256."""
    text = msgspec.json.encode(manifest)
    return text, hashlib.sha256(text).hexdigest()


def read(path: str, sha256: str) -> Manifest | None:
    """The manifest of the environment at `path`; None where it is not there, or not the one with that hash."""
    try:
        descriptor = trust.open_state(f"{path}/{FILE}")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise failed("read", f"{path}/{FILE}", error) from error
    with os.fdopen(descriptor, "rb") as stream:
        text = stream.read(_MOST_BYTES)
    if hashlib.sha256(text).hexdigest() != sha256:
        return None
    try:
        return decode_json(text, Manifest)
    except msgspec.DecodeError:
        return None


def claims(root: str, folder: str) -> list[Claim]:
    """What the RECORD in `folder` (a `.dist-info` below `root`) says; its own line, which has no hash, included.

    Lines such as `torch/version.py,sha256=eB5…,262`. Raises `ValueError` for one that is no RECORD.
    """
    text = Path(root, folder, "RECORD").read_text(encoding="utf-8")
    site = os.path.dirname(folder)  # noqa: PTH120  # text, tens of thousands of times below
    rows = csv.reader(text.splitlines()) if '"' in text else (line.rsplit(",", 2) for line in text.splitlines() if line)
    found = []
    for row in rows:
        name, digest, size = row
        path = os.path.normpath(f"{site}/{name}") if ".." in name or "./" in name else f"{site}/{name}"
        if path.startswith(("../", "/")):
            raise ValueError(path)
        sha256 = _hexadecimal(digest.removeprefix("sha256=")) if digest.startswith("sha256=") else None
        found.append(Claim(path, sha256, int(size) if size else None))
    return found


def package_of(folder: str) -> str:
    """`typing-extensions`, of `lib/python3.12/site-packages/typing_extensions-4.15.0.dist-info`."""
    name = folder.rsplit("/", 1)[-1].removesuffix(".dist-info").rpartition("-")[0]
    return str(canonicalize_name(name))


def sha256_of(path: str) -> str | None:
    """The hash of a file; None where it is none, or cannot be read. It never waits for the other end of a pipe."""
    digest = hashlib.sha256()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb", buffering=0) as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError:
        return None
    return digest.hexdigest()


def _hexadecimal(digest: str) -> str:
    """RECORD writes hashes in URL-safe base64 without its padding."""
    return base64.urlsafe_b64decode(digest + "=" * (-len(digest) % 4)).hex()
