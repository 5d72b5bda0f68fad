"""The file: a plain tar whose last member seals all that stands before it, whole or in parts of a given size.

Wheels are compressed already, so the tar is not. Its order is manifest, script, the rest, seal. The seal holds the
sha256 of every byte before it, and what follows it can only be zeros: a file in which one byte differs is refused
before anything of it is written.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from provision.bundle import model
from provision.bundle.model import Manifest
from provision.bundle.reading import (
    BLOCK_BYTES,
    Joined,
    Tell,
    check,
    header,
    is_one,
    nobody,
    numbered,
    open_plain,
    part_name,
    seal,
)
from provision.errors import StepFailed, UsageError

ROOM = "free space there, or name a file on another disk with `-o`; what has arrived is kept"


@dataclass
class Writer:
    """A file that is hashed while it is written, and goes on in a next part when one is full."""

    path: Path
    part_bytes: int | None = None
    parts: list[Path] = field(default_factory=list)
    digits: int = 2

    def __post_init__(self) -> None:
        self._digest = hashlib.sha256()
        self._position = 0
        self._room = 0
        self._stream: BinaryIO | None = None

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        self._digest.update(view)
        self._position += len(view)
        while view:
            stream = self._with_room()
            stream.write(view[: self._room] if self.part_bytes else view)
            written = min(len(view), self._room) if self.part_bytes else len(view)
            self._room -= written
            view = view[written:]
        return len(data)

    def tell(self) -> int:
        return self._position

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream:
            with stream:
                stream.flush()
                os.fsync(stream.fileno())

    def _with_room(self) -> BinaryIO:
        if self._stream is None or (self.part_bytes and not self._room):
            self.close()
            path = part_name(self.path, len(self.parts) + 1, self.digits) if self.part_bytes else self.path
            path = path.with_name(f".{path.name}.new")
            self._stream = new_file(path)
            self.parts.append(path)
            self._room = self.part_bytes or 0
        return self._stream


def write(
    path: Path, manifest: Manifest, folder: Path, *, part_bytes: int | None = None, tell: Tell = nobody
) -> tuple[Path, ...]:
    """Write the bundle of what lies in `folder`: the file, or its parts. They get their names when all is in."""
    # Every file has a header or two, and is rounded up.
    most = manifest.size + len(manifest.files) * 4 * tarfile.BLOCKSIZE + 4 * tarfile.RECORDSIZE
    digits = max(2, len(str(most // part_bytes + 1))) if part_bytes else 2
    writer = Writer(path, part_bytes, digits=digits)
    head = model.render(manifest)
    done = 0
    try:
        _discard_older(path)
        with tarfile.open(mode="w", fileobj=cast("BinaryIO", writer), format=tarfile.GNU_FORMAT) as archive:
            archive.addfile(header(model.MANIFEST, len(head)), io.BytesIO(head))
            for entry in manifest.files:
                with (folder / entry.path).open("rb") as stream:
                    archive.addfile(header(entry.path, entry.size), stream)
                done += entry.size
                tell(done, manifest.size)
            end = seal(writer.digest, hashlib.sha256(head).hexdigest())
            archive.addfile(header(model.SEAL, len(end)), io.BytesIO(end))
        writer.close()
    except OSError as error:
        _discard(writer)
        raise StepFailed(f"`{path}` cannot be written: {error.strerror or error}", hint=ROOM) from error
    except BaseException:
        _discard(writer)
        raise
    paths = tuple(made.replace(made.with_name(made.name[1:].removesuffix(".new"))) for made in writer.parts)
    # What an earlier call left under these names would be joined with the new, or read in its place.
    for old in (path, *(part for _, part in numbered(path))):
        if old not in paths:
            old.unlink(missing_ok=True)
    return paths


def _discard_older(path: Path) -> None:
    """Remove what a run that was killed had written so far: it may have been of other parts."""
    form = re.compile(rf"\.{re.escape(path.name)}(\.part[0-9]+)?\.new")
    for old in path.parent.iterdir():
        if form.fullmatch(old.name):
            old.unlink()


def _discard(writer: Writer) -> None:
    with suppress(OSError):
        writer.close()
    for part in writer.parts:
        part.unlink(missing_ok=True)


def join(parts: Sequence[Path], path: Path, tell: Tell = nobody) -> Manifest:
    """One file of all parts, with every byte of it compared; it appears when it is whole."""
    check_output(path)
    temporary = path.with_name(f".{path.name}.new")
    try:
        with new_file(temporary) as joined:
            for part in parts:
                with open_plain(part) as stream:
                    shutil.copyfileobj(stream, joined, BLOCK_BYTES)
            joined.flush()
            os.fsync(joined.fileno())
        with Joined((temporary,)) as whole:
            manifest, _ = check(whole, path, tell=tell)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StepFailed(f"`{path}` cannot be written: {error.strerror or error}", hint=ROOM) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return manifest


def check_output(path: Path) -> None:
    """Raises `UsageError` where no bundle can be written to `path`, before anything is fetched for it."""
    folder = path.parent
    if not folder.is_dir():
        raise UsageError(f"there is no directory `{folder}`", hint=f"`mkdir -p {folder}`, or name another with `-o`")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"`{folder}` is not writable for this user", hint="name another directory with `-o`")
    # Of parts, the first says what they are.
    for old in (path, *(part for number, part in numbered(path) if number == 1)):
        if old.is_dir():
            raise UsageError(f"`{old}` is a directory", hint="name a file in it with `-o`")
        if os.path.lexists(old) and (old.is_symlink() or not is_one(old)):
            raise UsageError(f"`{old}` exists and is not a bundle", hint="name another file with `-o`")


def new_file(path: Path) -> BinaryIO:
    """A file of our own to write to: what lies there from before is removed, and no link is followed."""
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644), "wb")
