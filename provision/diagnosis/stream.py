"""Cut a stream into chunks of whole lines, and lines too long to search into pieces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO

CHUNK = 1 << 20
_LONGEST_PIECE = 8192
# What two pieces share, so that no message is lost at a cut.
_OVERLAP = 512


def chunks(stream: BinaryIO | Iterable[bytes]) -> Iterator[bytes]:
    """Whole lines, about a MiB at a time; only a line longer than that is cut."""
    rest = b""
    for block in _blocks(stream):
        data = rest + block
        end = data.rfind(b"\n") + 1
        if end:
            yield data[:end]
        rest = data[end:]
        while len(rest) > CHUNK:
            yield rest[:CHUNK]
            rest = rest[CHUNK - _OVERLAP :]
    if rest:
        yield rest


def _blocks(stream: BinaryIO | Iterable[bytes]) -> Iterator[bytes]:
    read = getattr(stream, "read", None)
    if read is not None:
        yield from iter(lambda: read(CHUNK), b"")
        return
    held: list[bytes] = []
    size = 0
    for block in stream:
        for start in range(0, len(block), CHUNK):
            held.append(block[start : start + CHUNK])
            size += len(held[-1])
            if size >= CHUNK:
                yield b"".join(held)
                held, size = [], 0
    yield b"".join(held)


def pieces(line: bytes, *, continued: bool = False) -> Iterator[bytes]:
    """The line as pieces short enough to search: what a carriage return overwrote apart, long ones cut.

    The word at a cut is left out, because it may be half of a secret that could no longer be told from a word.
    `continued` says that the line itself begins at a cut.
    """
    if continued:
        line = _without_first_word(line)
    for part in line.split(b"\r"):
        if len(part) <= _LONGEST_PIECE:
            yield part
            continue
        for at in range(0, len(part), _LONGEST_PIECE - _OVERLAP):
            piece = part[at : at + _LONGEST_PIECE]
            piece = _without_first_word(piece) if at else piece
            yield piece if at + _LONGEST_PIECE >= len(part) else piece[: piece.rfind(b" ") + 1]


def _without_first_word(piece: bytes) -> bytes:
    at = piece.find(b" ")
    return piece[at:] if at >= 0 else b""
