"""Read the log of a server while it grows, and its end when it is over. Credentials never leave this module."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from provision.host.view import Host
from provision.secrets import mask

TAIL_LINES = 15
_NEXT, _BEFORE = ".next", ".1"
_CHUNK_BYTES = 1024 * 1024
_TAIL_BYTES = 128 * 1024
_FOLLOW_S = 0.2
# Colours, as in `\x1b[1;33m`, and what a progress bar draws, as in `Capturing:  45%|####    | 9/20`.
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_BAR = re.compile(r"\d{1,3}%\|")
_LINE_END = re.compile(rb"[\r\n]+")


class Tail:
    """The lines that a growing file has got since the last look; a progress bar's every state is a line."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._offset = 0
        self._rest = b""

    def lines(self) -> list[str]:
        """New complete lines. A file that is not there (yet) has none; one that became shorter starts again."""
        try:
            with self._path.open("rb") as stream:
                if stream.seek(0, os.SEEK_END) < self._offset:
                    self._offset, self._rest = 0, b""
                stream.seek(self._offset)
                raw = stream.read(_CHUNK_BYTES)
        except OSError:
            return []
        self._offset += len(raw)
        *whole, self._rest = _LINE_END.split(self._rest + raw)
        return [_text(line) for line in whole if line]

    def remaining(self) -> list[str]:
        """Everything up to the end of the file, the unfinished last line too: for a process that writes no more."""
        found = []
        while new := self.lines():
            found += new
        if self._rest:
            found.append(_text(self._rest))
            self._rest = b""
        return found


def last_lines(path: str, count: int = TAIL_LINES) -> tuple[str, ...]:
    """The end of a log, without credentials, colours, and the states of progress bars. Empty where there is none."""
    try:
        with Path(path).open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _TAIL_BYTES))
            raw = stream.read(_TAIL_BYTES)
    except OSError:
        return ()
    lines = [_text(line) for line in _LINE_END.split(raw) if line.strip()]
    return tuple(mask(line) for line in [line for line in lines if not _BAR.search(line)][-count:])


def follow(path: str, *, going_on: Callable[[], bool] = lambda: True) -> Iterator[str]:
    """New lines as they come, without credentials, until `going_on` says no."""
    tail = Tail(path)
    tail.remaining()
    while going_on():
        for line in tail.lines():
            yield mask(line)
        time.sleep(_FOLLOW_S)


def prepare(host: Host, path: str) -> None:
    """Make the log of a start that is about to be, beside the one that is written: so there is room for it."""
    os.close(host.open_state(f"{path}{_NEXT}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC))


def drop_prepared(host: Host, path: str) -> None:
    host.remove(f"{path}{_NEXT}")


def begin(host: Host, path: str) -> None:
    """Begin the log of a start: that of the one before stays as `….1`, so that it does not hide why that one failed."""
    if host.stat(path) is not None:
        host.move(path, f"{path}{_BEFORE}")
    if host.stat(f"{path}{_NEXT}") is not None:
        host.move(f"{path}{_NEXT}", path)


def _text(raw: bytes) -> str:
    return _COLOUR.sub("", raw.decode("utf-8", errors="replace")).rstrip()
