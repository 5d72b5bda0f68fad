"""The file: a plain tar whose last member seals all that stands before it, whole or in parts of a given size.

Wheels are compressed already, so the tar is not. Its order is manifest, script, the rest, seal. The seal holds the
sha256 of every byte before it, and what follows it can only be zeros: a file in which one byte differs is refused
before anything of it is written.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from provision.bundle import model
from provision.bundle.model import Entry, Manifest
from provision.errors import CheckFailed, StepFailed, UsageError

_BLOCK_BYTES = 1 << 20
_SEAL_WORD = b"sgprov-bundle-seal/1"
_HEX = 64
# What tar rounds a file up to; the seal is looked for in the last two of these.
_RECORD = tarfile.RECORDSIZE
Tell = Callable[[int, int], None]


def nobody(_done: int, _total: int) -> None:
    """Told how far it is, and does nothing with it."""


@dataclass
class Writer:
    """A file that is hashed while it is written, and goes on in a next part when one is full."""

    path: Path
    part_bytes: int | None = None
    parts: list[Path] = field(default_factory=list)

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
        if self._stream:
            self._stream.close()
            self._stream = None

    def _with_room(self) -> BinaryIO:
        if self._stream is None or (self.part_bytes and not self._room):
            self.close()
            path = part_name(self.path, len(self.parts) + 1) if self.part_bytes else self.path
            path = path.with_name(f".{path.name}.new")
            self._stream = path.open("wb")
            self.parts.append(path)
            self._room = self.part_bytes or 0
        return self._stream


def part_name(path: Path, number: int) -> Path:
    """`FILE.part01`, `FILE.part02`, …: in the order in which `cat` joins them."""
    return path.with_name(f"{path.name}.part{number:02d}")


def write(
    path: Path, manifest: Manifest, folder: Path, *, part_bytes: int | None = None, tell: Tell = nobody
) -> tuple[Path, ...]:
    """Write the bundle of what lies in `folder`: the file, or its parts. They get their names when all is in."""
    writer = Writer(path, part_bytes)
    head = model.render(manifest)
    done = 0
    try:
        with tarfile.open(mode="w", fileobj=cast("BinaryIO", writer), format=tarfile.GNU_FORMAT) as archive:
            archive.addfile(_header(model.MANIFEST, len(head)), io.BytesIO(head))
            for entry in manifest.files:
                with (folder / entry.path).open("rb") as stream:
                    archive.addfile(_header(entry.path, entry.size), stream)
                done += entry.size
                tell(done, manifest.size)
            seal = _seal(writer.digest, head)
            archive.addfile(_header(model.SEAL, len(seal)), io.BytesIO(seal))
        writer.close()
    except OSError as error:
        _discard(writer)
        raise StepFailed(f"`{path}` cannot be written: {error.strerror or error}") from error
    except BaseException:
        _discard(writer)
        raise
    # What an earlier call left under these names would be joined with the new.
    for old in (path, *path.parent.glob(f"{path.name}.part[0-9]*")):
        old.unlink(missing_ok=True)
    return tuple(made.replace(made.with_name(made.name[1:].removesuffix(".new"))) for made in writer.parts)


def _discard(writer: Writer) -> None:
    writer.close()
    for part in writer.parts:
        part.unlink(missing_ok=True)


def parts_of(path: Path) -> tuple[Path, ...]:
    """The files that make a bundle: the file itself, or all its parts, whichever of them was named.

    Raises `UsageError` where there is none, or where a part is missing in the row.
    """
    stem, _, number = path.name.rpartition(".part")
    base = path.with_name(stem) if stem and number.isdigit() else path
    if base.is_file():
        return (base,)
    found = sorted(base.parent.glob(f"{base.name}.part[0-9]*"), key=lambda part: int(part.name.rpartition(".part")[2]))
    if not found:
        raise UsageError(f"there is no bundle at `{path}`", hint="`sgprov bundle create` makes one")
    for place, part in enumerate(found, start=1):
        if part != part_name(base, place):
            raise UsageError(f"the part `{part_name(base, place).name}` of the bundle is missing")
    return tuple(found)


class Joined(io.RawIOBase):
    """Several files read as one."""

    def __init__(self, streams: Sequence[BinaryIO]) -> None:
        self._streams = streams
        self._sizes = [stream.seek(0, io.SEEK_END) for stream in streams]
        self._position = 0

    @property
    def size(self) -> int:
        return sum(self._sizes)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast("bytearray", buffer)).cast("B")
        offset = self._position
        for stream, size in zip(self._streams, self._sizes, strict=True):
            if offset < size:
                stream.seek(offset)
                block = stream.read(min(len(view), size - offset))
                view[: len(block)] = block
                self._position += len(block)
                return len(block)
            offset -= size
        return 0


@contextmanager
def opened(path: Path) -> Iterator[Joined]:
    """The bundle at `path`, its parts read as one file."""
    with ExitStack() as stack:
        try:
            yield Joined([stack.enter_context(part.open("rb")) for part in parts_of(path)])
        except OSError as error:
            raise StepFailed(f"`{path}` cannot be read: {error.strerror or error}") from error


def check_seal(stream: Joined, path: Path, tell: Tell = nobody) -> str:
    """The sha256 of the manifest, after every byte of the bundle was hashed. Raises `CheckFailed` if one differs."""
    tail_start = max(0, stream.size - 2 * _RECORD)
    stream.seek(tail_start)
    tail = _read(stream, stream.size - tail_start)
    found = tail.rfind(_SEAL_WORD)
    if found < tarfile.BLOCKSIZE:
        raise CheckFailed(
            f"`{path}` does not end as a bundle does: it is none, or it was cut short",
            hint="copy it again, or make it again with `sgprov bundle create`",
        )
    sealed = tail_start + found - tarfile.BLOCKSIZE
    seal = tail[found : found + len(_SEAL_WORD) + 2 * (_HEX + 1) + 1]
    digest = hashlib.sha256()
    stream.seek(0)
    while (left := sealed - stream.tell()) > 0:
        digest.update(_read(stream, min(left, _BLOCK_BYTES)))
        tell(stream.tell(), stream.size)
    manifest = seal.split()[-1].decode("ascii", errors="replace")
    expected = _header(model.SEAL, len(seal)).tobuf(tarfile.GNU_FORMAT) + _seal_text(digest.hexdigest(), manifest)
    expected += bytes(-(sealed + len(expected)) % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE)
    expected += bytes(-(sealed + len(expected)) % _RECORD)
    if tail[found - tarfile.BLOCKSIZE :] != expected:
        raise CheckFailed(
            f"`{path}` was changed or damaged since it was made: its seal does not fit",
            hint="copy it again; nothing of it was used",
        )
    return manifest


def read_manifest(stream: Joined, digest: str, path: Path) -> tuple[Manifest, tarfile.TarFile]:
    """The manifest of a bundle whose seal holds, and the tar behind it. Raises `CheckFailed` where they disagree."""
    stream.seek(0)
    archive = tarfile.open(fileobj=stream, mode="r:")  # noqa: SIM115  # the caller reads on, and owns the stream
    first = archive.next()
    raw = archive.extractfile(first) if first and first.name == f"{model.TOP}/{model.MANIFEST}" else None
    head = raw.read() if raw else b""
    if hashlib.sha256(head).hexdigest() != digest:
        raise CheckFailed(f"the manifest of `{path}` is not the one that was sealed")
    return model.parse(head), archive


def members(archive: tarfile.TarFile, manifest: Manifest) -> Iterator[tuple[Entry, BinaryIO]]:
    """Each file of the bundle with its content, in order. Raises `CheckFailed` at what the manifest does not list."""
    left = {entry.path: entry for entry in manifest.files}
    for member in archive:
        model.check_name(member.name)
        name = member.name.removeprefix(f"{model.TOP}/")
        if name in {model.MANIFEST, model.SEAL} and member.isreg():
            continue
        entry = left.pop(name, None)
        if entry is None or not member.isreg() or member.size != entry.size or name == member.name:
            raise CheckFailed(f"the bundle holds what its manifest does not list: {member.name!r}")
        yield entry, cast("BinaryIO", archive.extractfile(member))
    if left:
        raise CheckFailed(f"the bundle lacks {len(left)} files of its manifest: {', '.join(sorted(left)[:3])}")


def join(parts: Sequence[Path], path: Path) -> None:
    """One file of all parts; it appears when it is whole."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        with temporary.open("wb") as joined:
            for part in parts:
                with part.open("rb") as stream:
                    shutil.copyfileobj(stream, joined, _BLOCK_BYTES)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StepFailed(f"`{path}` cannot be written: {error.strerror or error}") from error


def _header(name: str, size: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(f"{model.TOP}/{name}")
    header.size = size
    header.mode = 0o755 if name == model.SCRIPT else 0o644
    return header


def _seal(digest: str, manifest: bytes) -> bytes:
    return _seal_text(digest, hashlib.sha256(manifest).hexdigest())


def _seal_text(digest: str, manifest: str) -> bytes:
    return b"%s %s %s\n" % (_SEAL_WORD, digest.encode(), manifest.encode())


def _read(stream: Joined, count: int) -> bytes:
    blocks = []
    while count > 0 and (block := stream.read(count)):
        blocks.append(block)
        count -= len(block)
    return b"".join(blocks)
