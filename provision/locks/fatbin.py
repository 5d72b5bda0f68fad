"""Reads which GPUs a shared object holds code for, from its fat binaries: no GPU, no CUDA toolkit."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from provision.errors import UsageError

# A host object's sections: the second holds what is still to be linked on the device, and stays after linking.
SECTIONS = frozenset({b".nv_fatbin", b"__nv_relfatbin"})

# The layout is not published; it was read from files that nvcc made and compared with cuobjdump (docs/kernels.md).
# A section holds fat binaries one after another, padded with zeros. A fat binary is
#   u32 magic, u16 version, u16 header size, u64 size of what follows the header
# and then entries, each followed by its payload:
#   u16 kind, u16 version, u32 header size, u64 payload size, u32 compressed size, u32 -,
#   u16 minor, u16 major (of the PTX version), u32 sm, u32 -, u32 -, u64 flags, ...
_MAGIC = 0xBA55ED50
_VERSION = 1
_HEADER = struct.Struct("<IHHQ")
_ENTRY = struct.Struct("<HHIQIIHHIIIQ")
_KINDS: dict[int, Literal["elf", "ptx"]] = {0x01: "ptx", 0x02: "elf", 0x10: "elf"}
_ARCHITECTURE_SPECIFIC = 1 << 20
_FAMILY_SPECIFIC = 1 << 21

_ELF_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
_NOBITS = 8
_MOST_SECTIONS = 100_000
_MOST_NAME_BYTES = 16 << 20
_CHUNK = 16 << 10

# PTX ISA -> the first CUDA toolkit with it, where the rule "8.x is 12.x, 9.x is 13.x" does not hold.
# Release history: https://docs.nvidia.com/cuda/parallel-thread-execution/#release-notes
_TOOLKITS = {(8, 6): "12.7", (8, 7): "12.8", (8, 8): "12.9"}


@dataclass(frozen=True, order=True)
class Code:
    """Code for one target: machine code (`elf`) or `ptx`. `sm` is 90 and `suffix` "a" for sm_90a."""

    kind: Literal["elf", "ptx"]
    sm: int
    suffix: Literal["", "a", "f"] = ""
    isa: tuple[int, int] | None = None

    @property
    def capability(self) -> str:
        """Such as "9.0a"."""
        return f"{self.sm // 10}.{self.sm % 10}{self.suffix}"

    @property
    def toolkit(self) -> str | None:
        """For PTX, the CUDA version whose driver is the oldest that compiles it."""
        if self.isa is None:
            return None
        major, minor = self.isa
        return _TOOLKITS.get(self.isa, f"{major + 4}.{minor}")


def read(path: Path) -> Counter[frozenset[Code]]:
    """How many fat binaries of a shared object hold which code; empty where it has none.

    Raises `UsageError` where it is no 64-bit ELF file, or a damaged one.
    """
    try:
        with path.open("rb") as stream:
            return scan(stream, name=path.name)
    except OSError as error:
        raise UsageError(f"`{path}` cannot be read: {error.strerror}") from error


def scan(stream: IO[bytes], *, name: str) -> Counter[frozenset[Code]]:
    """The same for an open file, which may be a member of a zip."""
    file = _File(stream, name)
    found: Counter[frozenset[Code]] = Counter()
    for start, size in _sections(file):
        for codes in _fat_binaries(file, start, start + size):
            found[codes] += 1
    return found


class _File:
    """A file read in small pieces, the last of which is kept: going back in a zip is starting again."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream = stream
        self._name = name
        self._start = 0
        self._kept = b""

    def at(self, position: int, size: int) -> bytes:
        """Raises `UsageError` where the file ends before."""
        if position > 1 << 62:
            raise self.damaged(f"it points to {position:#x}")
        here = self._start + len(self._kept)
        if not self._start <= position <= here:
            self._start = max(position - _CHUNK, here if position > here else 0)
            self._stream.seek(self._start)
            self._kept, here = b"", self._start
        if here < position + size:
            self._kept += self._stream.read(max(position + size - here, _CHUNK))
        data = self._kept[position - self._start :][:size]
        if len(data) < size:
            raise self.damaged(f"it ends before {position + size:#x}")
        if (old := position - self._start - _CHUNK) > 0:
            self._start, self._kept = self._start + old, self._kept[old:]
        return data

    def damaged(self, why: str) -> UsageError:
        return UsageError(f"`{self._name}` is damaged, or of a kind not known here: {why}")


def is_elf(stream: IO[bytes]) -> bool:
    """Whether a file begins as an ELF file does; leaves it at its beginning."""
    magic = stream.read(4)
    stream.seek(0)
    return magic == b"\x7fELF"


def _sections(file: _File) -> list[tuple[int, int]]:
    """Where the sections with fat binaries begin, and how long they are."""
    header = file.at(0, _ELF_HEADER.size)
    if header[:6] != b"\x7fELF\x02\x01":
        raise file.damaged("it is not a 64-bit little-endian ELF file")
    _, _, _, _, _, _, offset, _, _, _, _, entry_size, count, names_at = _ELF_HEADER.unpack(header)
    if not offset:
        return []
    if entry_size != _SECTION_HEADER.size:
        raise file.damaged(f"its section headers are of {entry_size} bytes")
    if not count:  # more than 65279 of them: the first one's size says how many
        count = _section_headers(file, offset, 1)[0][5]
    if not 0 < count <= _MOST_SECTIONS:
        raise file.damaged(f"it claims {count} sections")
    headers = _section_headers(file, offset, count)
    if names_at == 0xFFFF:  # noqa: PLR2004  SHN_XINDEX
        names_at = headers[0][6]
    if names_at >= count:
        raise file.damaged("it has no section names")
    names = file.at(headers[names_at][4], min(headers[names_at][5], _MOST_NAME_BYTES))
    return sorted(
        {
            (section[4], section[5])
            for section in headers
            if section[1] != _NOBITS and names[section[0] : section[0] + 32].split(b"\0", 1)[0] in SECTIONS
        }
    )


def _section_headers(file: _File, offset: int, count: int) -> list[tuple[int, ...]]:
    return list(_SECTION_HEADER.iter_unpack(file.at(offset, count * _SECTION_HEADER.size)))


def _fat_binaries(file: _File, position: int, end: int) -> Iterator[frozenset[Code]]:
    """The code of each fat binary in a section."""
    while (position := _next(file, position, end)) + _HEADER.size <= end:
        magic, version, header_size, size = _HEADER.unpack(file.at(position, _HEADER.size))
        if magic != _MAGIC or version != _VERSION or header_size < _HEADER.size:
            raise file.damaged(f"there is no fat binary at {position:#x}")
        first, position = position + header_size, position + header_size + size
        if position > end:
            raise file.damaged(f"the fat binary at {first - header_size:#x} is longer than its section")
        yield frozenset(_entries(file, first, position))


def _next(file: _File, position: int, end: int) -> int:
    """Where the next fat binary begins after the padding."""
    while position < end:
        chunk = file.at(position, min(_CHUNK, end - position))
        padding = len(chunk) - len(chunk.lstrip(b"\0"))
        position += padding
        if padding < len(chunk):
            return position
    return end


def _entries(file: _File, position: int, end: int) -> Iterator[Code]:
    while position + _ENTRY.size <= end:
        kind, _, header_size, size, _, _, minor, major, sm, _, _, flags = _ENTRY.unpack(file.at(position, _ENTRY.size))
        if header_size < _ENTRY.size or position + header_size + size > end:
            raise file.damaged(f"the entry at {position:#x} does not fit into its fat binary")
        position += header_size + size
        if kind in _KINDS:
            isa = (major, minor) if _KINDS[kind] == "ptx" else None
            yield Code(_KINDS[kind], sm, _suffix(flags), isa)


def _suffix(flags: int) -> Literal["", "a", "f"]:
    if flags & _ARCHITECTURE_SPECIFIC:
        return "a"
    return "f" if flags & _FAMILY_SPECIFIC else ""
