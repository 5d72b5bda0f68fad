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
_CHUNK = 4096

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
    """The same for an open file. Seeks forward except for one step back, so that a zip's member will do."""
    found: Counter[frozenset[Code]] = Counter()
    for start, size in _sections(stream, name):
        for codes in _fat_binaries(stream, start, start + size, name):
            found[codes] += 1
    return found


def is_elf(stream: IO[bytes]) -> bool:
    """Whether a file begins as an ELF file does; leaves it at its beginning."""
    magic = stream.read(4)
    stream.seek(0)
    return magic == b"\x7fELF"


def _sections(stream: IO[bytes], name: str) -> list[tuple[int, int]]:
    """Where the sections with fat binaries begin, and how long they are."""
    header = stream.read(_ELF_HEADER.size)
    if len(header) < _ELF_HEADER.size or header[:6] != b"\x7fELF\x02\x01":
        raise UsageError(f"`{name}` is not a 64-bit little-endian ELF file")
    _, _, _, _, _, _, offset, _, _, _, _, entry_size, count, names_at = _ELF_HEADER.unpack(header)
    if not offset:
        return []
    if entry_size != _SECTION_HEADER.size:
        raise _damaged(name, f"its section headers are of {entry_size} bytes")
    if not count:  # more than 65279 of them: the first one's size says how many
        count = _section_headers(stream, offset, 1, name)[0][5]
    if not 0 < count <= _MOST_SECTIONS:
        raise _damaged(name, f"it claims {count} sections")
    headers = _section_headers(stream, offset, count, name)
    if names_at == 0xFFFF:  # noqa: PLR2004  SHN_XINDEX
        names_at = headers[0][6]
    if names_at >= count:
        raise _damaged(name, "it has no section names")
    names = _at(stream, headers[names_at][4], min(headers[names_at][5], _MOST_NAME_BYTES), name)
    return sorted(
        {
            (section[4], section[5])
            for section in headers
            if section[1] != _NOBITS and names[section[0] : section[0] + 32].split(b"\0", 1)[0] in SECTIONS
        }
    )


def _section_headers(stream: IO[bytes], offset: int, count: int, name: str) -> list[tuple[int, ...]]:
    return list(_SECTION_HEADER.iter_unpack(_at(stream, offset, count * _SECTION_HEADER.size, name)))


def _fat_binaries(stream: IO[bytes], position: int, end: int, name: str) -> Iterator[frozenset[Code]]:
    """The code of each fat binary in a section."""
    while (position := _next(stream, position, end, name)) + _HEADER.size <= end:
        magic, version, header_size, size = _HEADER.unpack(_at(stream, position, _HEADER.size, name))
        if magic != _MAGIC or version != _VERSION or header_size < _HEADER.size:
            raise _damaged(name, f"there is no fat binary at {position:#x}")
        first, position = position + header_size, position + header_size + size
        if position > end:
            raise _damaged(name, f"the fat binary at {first - header_size:#x} is longer than its section")
        yield frozenset(_entries(stream, first, position, name))


def _next(stream: IO[bytes], position: int, end: int, name: str) -> int:
    """Where the next fat binary begins after the padding."""
    while position < end:
        chunk = _at(stream, position, min(_CHUNK, end - position), name)
        padding = len(chunk) - len(chunk.lstrip(b"\0"))
        position += padding
        if padding < len(chunk):
            return position
    return end


def _entries(stream: IO[bytes], position: int, end: int, name: str) -> Iterator[Code]:
    while position + _ENTRY.size <= end:
        kind, _, header_size, size, _, _, minor, major, sm, _, _, flags = _ENTRY.unpack(
            _at(stream, position, _ENTRY.size, name)
        )
        if header_size < _ENTRY.size or position + header_size + size > end:
            raise _damaged(name, f"the entry at {position:#x} does not fit into its fat binary")
        position += header_size + size
        if kind in _KINDS:
            isa = (major, minor) if _KINDS[kind] == "ptx" else None
            yield Code(_KINDS[kind], sm, _suffix(flags), isa)


def _suffix(flags: int) -> Literal["", "a", "f"]:
    if flags & _ARCHITECTURE_SPECIFIC:
        return "a"
    return "f" if flags & _FAMILY_SPECIFIC else ""


def _at(stream: IO[bytes], position: int, size: int, name: str) -> bytes:
    if position > 1 << 62:
        raise _damaged(name, f"it points to {position:#x}")
    stream.seek(position)
    data = stream.read(size)
    if len(data) < size:
        raise _damaged(name, f"it ends before {position + size:#x}")
    return data


def _damaged(name: str, why: str) -> UsageError:
    return UsageError(f"`{name}` is damaged, or of a kind not known here: {why}")
