"""Reading a bundle: its manifest says what every byte must be, and each is compared before anything is made of it."""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from provision.bundle import model
from provision.bundle.model import Entry, Manifest
from provision.errors import CheckFailed, ProvisionError, StepFailed, UsageError

BLOCK_BYTES = 1 << 20
_SEAL_WORD = b"sgprov-bundle-seal/1"
_SEAL_WORDS = 3
_HEX = 64
_SEAL_BYTES = len(_SEAL_WORD) + 2 * (_HEX + 1) + 1
# What tar rounds a file up to; the seal is looked for in the last two of these.
_RECORD = tarfile.RECORDSIZE
# Where a tar header has the size of its file, and how much of it is the name.
_SIZE = slice(124, 136)
_NAME_BYTES = 100
_AGAIN = "copy it again; nothing of it was used"
Tell = Callable[[int, int], None]


def nobody(_done: int, _total: int) -> None:
    """Told how far it is, and does nothing with it."""


def header(name: str, size: int) -> tarfile.TarInfo:
    """What stands before a file of a bundle: nothing of the machine that made it."""
    found = tarfile.TarInfo(f"{model.TOP}/{name}")
    found.size = size
    found.mode = 0o755 if name == model.SCRIPT else 0o644
    return found


def seal(digest: str, manifest: str) -> bytes:
    """The last member: the sha256 of every byte before it, and that of the manifest."""
    return b"%s %s %s\n" % (_SEAL_WORD, digest.encode(), manifest.encode())


def part_name(path: Path, number: int, digits: int = 2) -> Path:
    """`FILE.part01`, `FILE.part02`, …: in the order in which `cat` joins them, so all with as many digits."""
    return path.with_name(f"{path.name}.part{number:0{digits}d}")


def parts_of(path: Path) -> tuple[Path, ...]:
    """The files that make a bundle: the file itself, or all its parts, whichever of them was named.

    Raises `UsageError` where there is none, or where a part is missing in the row.
    """
    matched = re.fullmatch(r"(.+)\.part[0-9]+", path.name)
    base = path.with_name(matched[1]) if matched else path
    found = sorted(numbered(base))
    if os.path.lexists(base) and not (matched and found):
        return (base,)
    if not found:
        raise UsageError(f"there is no bundle at `{path}`", hint="`sgprov bundle create` makes one")
    digits = len(found[-1][1].name.rpartition(".part")[2])
    for place, (_, part) in enumerate(found, start=1):
        if part != part_name(base, place, digits):
            raise UsageError(f"the part `{part_name(base, place, digits).name}` of the bundle is missing")
    return tuple(part for _, part in found)


def numbered(base: Path) -> Iterator[tuple[int, Path]]:
    """What lies beside a bundle as its parts, with their numbers."""
    form = re.compile(re.escape(base.name) + r"\.part([0-9]{1,9})")
    with suppress(NotADirectoryError, FileNotFoundError):
        for path in base.parent.iterdir():
            if matched := form.fullmatch(path.name):
                yield int(matched[1]), path


def is_one(path: Path) -> bool:
    """Whether the file at `path` begins as a bundle does, whatever became of the rest of it."""
    with suppress(OSError, ProvisionError), open_plain(path) as stream:
        return stream.read(_NAME_BYTES) == header(model.MANIFEST, 0).tobuf(tarfile.GNU_FORMAT)[:_NAME_BYTES]
    return False


def open_plain(path: Path, flags: int = 0) -> BinaryIO:
    """A file to read from. Raises `CheckFailed` for a FIFO, a device or a directory, on which reading may never end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise CheckFailed(f"`{path}` is not a regular file")
    return os.fdopen(descriptor, "rb")


class Joined(io.RawIOBase):
    """Several files read as one; one of them is open at a time."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._sizes = []
        self._current: tuple[Path, BinaryIO] | None = None
        self._position = 0
        for path in paths:
            with open_plain(path) as stream:
                self._sizes.append(stream.seek(0, io.SEEK_END))

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
        for path, size in zip(self._paths, self._sizes, strict=True):
            if offset < size:
                stream = self._opened(path)
                stream.seek(offset)
                block = stream.read(min(len(view), size - offset))
                view[: len(block)] = block
                self._position += len(block)
                return len(block)
            offset -= size
        return 0

    def close(self) -> None:
        if self._current:
            self._current[1].close()
            self._current = None
        super().close()

    def _opened(self, path: Path) -> BinaryIO:
        if self._current is None or self._current[0] != path:
            if self._current:
                self._current[1].close()
            self._current = (path, open_plain(path))
        return self._current[1]


@contextmanager
def opened(path: Path) -> Iterator[Joined]:
    """The bundle at `path`, its parts read as one file."""
    try:
        joined = Joined(parts_of(path))
    except OSError as error:
        raise StepFailed(f"`{path}` cannot be read: {error.strerror or error}") from error
    with joined:
        yield joined


@dataclass(frozen=True, kw_only=True)
class Seal:
    """Where the end of a bundle says that its contents end, and the sha256 of its manifest. Not yet compared."""

    start: int
    manifest: str
    tail: bytes = field(repr=False)


def read_seal(stream: Joined, path: Path) -> Seal:
    """What the end of a bundle says. Raises `CheckFailed` for a file that does not end so."""
    tail_start = max(0, stream.size - 2 * _RECORD)
    stream.seek(tail_start)
    tail = _read(stream, stream.size - tail_start)
    found = tail.rfind(_SEAL_WORD)
    words = tail[found : found + len(_SEAL_WORD) + 2 * (_HEX + 1) + 1].split()
    if found < tarfile.BLOCKSIZE or len(words) != _SEAL_WORDS:
        raise CheckFailed(
            f"`{path}` does not end as a bundle does: it is none, or it was cut short",
            hint="copy it again, or make it again with `sgprov bundle create`",
        )
    start = tail_start + found - tarfile.BLOCKSIZE
    return Seal(start=start, manifest=words[2].decode("ascii", "replace"), tail=tail[found - tarfile.BLOCKSIZE :])


def read_manifest(stream: Joined, digest: str, path: Path) -> tuple[Manifest, int]:
    """The manifest whose sha256 the seal names, and where it ends. Raises `CheckFailed` for another."""
    stream.seek(0)
    first = _read(stream, tarfile.BLOCKSIZE)
    try:
        size = int(first[_SIZE].rstrip(b"\0 ") or b"0", 8)
    except ValueError:
        size = -1
    if not 0 <= size <= model.MOST_MANIFEST_BYTES or first != header(model.MANIFEST, size).tobuf(tarfile.GNU_FORMAT):
        raise CheckFailed(f"`{path}` does not begin as a bundle does", hint=_AGAIN)
    head = _read(stream, size)
    if hashlib.sha256(head).hexdigest() != digest:
        raise CheckFailed(f"the manifest of `{path}` is not the one that was sealed", hint=_AGAIN)
    return model.parse(head), tarfile.BLOCKSIZE + size + -size % tarfile.BLOCKSIZE


def contents(stream: Joined, manifest: Manifest, start: int) -> Iterator[tuple[Entry, Iterator[bytes]]]:
    """Each file of the bundle, with its blocks, in order.

    The manifest and its length `start` say what every byte of a bundle must be: a header that is not the one that was
    written for this name and size (another file, a link, a device, a second manifest, a file with holes) is refused
    unread. Whoever reads the blocks to their end gets `CheckFailed` where they are not what was listed.
    """
    for entry in manifest.files:
        expected = header(entry.path, entry.size).tobuf(tarfile.GNU_FORMAT)
        stream.seek(start)
        if _read(stream, len(expected)) != expected:
            raise CheckFailed(f"the bundle holds what its manifest does not list, where `{entry.path}` should be")
        start += len(expected)
        yield entry, _blocks(stream, entry, start)
        start += entry.size + -entry.size % tarfile.BLOCKSIZE


def check(stream: Joined, path: Path, *, arch: str | None = None, tell: Tell = nobody) -> tuple[Manifest, str]:
    """The manifest of a bundle in which every byte is as it was sealed, and the sha256 of that manifest.

    Raises `CheckFailed` where one differs; `UnsupportedHost`, at once, for another architecture than `arch`.
    """
    sealed = read_seal(stream, path)
    manifest, position = read_manifest(stream, sealed.manifest, path)
    if arch:
        model.check_arch(manifest, arch)
    digest = hashlib.sha256()
    stream.seek(0)
    digest.update(_read(stream, position))
    for entry, blocks in contents(stream, manifest, position):
        digest.update(header(entry.path, entry.size).tobuf(tarfile.GNU_FORMAT))
        for block in blocks:
            digest.update(block)
            tell(stream.tell(), stream.size)
        padding = _read(stream, -entry.size % tarfile.BLOCKSIZE)
        digest.update(padding)
        position = stream.tell()
        if any(padding):
            raise CheckFailed(f"`{path}` was changed or damaged behind `{entry.path}`", hint=_AGAIN)
    if position < sealed.start:
        raise CheckFailed("the bundle holds what its manifest does not list, behind the last file of it")
    expected = header(model.SEAL, _SEAL_BYTES).tobuf(tarfile.GNU_FORMAT)
    expected += seal(digest.hexdigest(), sealed.manifest)
    expected += bytes(-(position + len(expected)) % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE)
    expected += bytes(-(position + len(expected)) % _RECORD)
    if position != sealed.start or sealed.tail != expected:
        raise CheckFailed(
            f"`{path}` was changed or damaged since it was made: its seal does not fit",
            hint=_AGAIN,
        )
    return manifest, sealed.manifest


def _blocks(stream: Joined, entry: Entry, start: int) -> Iterator[bytes]:
    stream.seek(start)
    digest, left = hashlib.sha256(), entry.size
    while left and (block := stream.read(min(left, BLOCK_BYTES))):
        left -= len(block)
        digest.update(block)
        yield block
    if left or digest.hexdigest() != entry.sha256:
        raise CheckFailed(f"`{entry.path}` of the bundle was changed or damaged", hint=_AGAIN)


def _read(stream: Joined, count: int) -> bytes:
    blocks = []
    while count > 0 and (block := stream.read(count)):
        blocks.append(block)
        count -= len(block)
    return b"".join(blocks)
