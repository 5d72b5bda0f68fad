"""Read the log of a server while it grows, and its end when it is over. Credentials never leave this module."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from provision.errors import ProvisionError
from provision.host.view import Host
from provision.secrets import mask
from provision.serving.log_keeper import EARLIER, LAUNCH

TAIL_LINES = 15
# A running server's log is rotated at this size: with what is kept of it, and of the one before, three times as much.
MOST_BYTES = 32 * 1024 * 1024
_NEXT, _BEFORE = ".next", ".1"
_CHUNK_BYTES = 1024 * 1024
_TAIL_BYTES = 128 * 1024
_FOLLOW_S = 0.2
# Colours, as in `\x1b[1;33m`, and what a progress bar draws, as in `Capturing:  45%|####    | 9/20`.
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_BAR = re.compile(r"\d{1,3}%\|")
_LINE_END = re.compile(rb"[\r\n]+")


class Tail:
    """The lines that a growing file has got since the last look; a progress bar's every state is a line.

    Where the log was rotated meanwhile, what it had got until then is read first. `at_end` begins with what comes.
    """

    def __init__(self, path: str, *, at_end: bool = False) -> None:
        self._path = Path(path)
        self._earlier = Path(path + EARLIER)
        self._offset = _size(self._path) if at_end else 0
        self._rotation = _identity(self._earlier)
        self._rest = b""

    def lines(self) -> list[str]:
        """New complete lines. A file that is not there (yet) has none; one that became shorter starts again."""
        raw = self._left_behind() + self._new()
        *whole, self._rest = _LINE_END.split(self._rest + raw)
        return [_text(line) for line in whole if line]

    def _left_behind(self) -> bytes:
        """What was written between the last look and a rotation."""
        rotation = _identity(self._earlier)
        if rotation == self._rotation or rotation is None or _size(self._path) >= _size(self._earlier):
            return b""
        offset, self._offset, self._rotation = self._offset, 0, rotation
        return _read(self._earlier, offset, None)

    def _new(self) -> bytes:
        if _size(self._path) < self._offset:
            self._offset, self._rest = 0, b""
        raw = _read(self._path, self._offset, _CHUNK_BYTES)
        self._offset += len(raw)
        return raw

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
    raw = _end(Path(path))
    if len(raw) < _TAIL_BYTES:
        # It was rotated just now: its end is in two files.
        raw = _end(Path(path + EARLIER)) + raw
    lines = [_text(line) for line in _LINE_END.split(raw) if line.strip()]
    return tuple(mask(line) for line in [line for line in lines if not _BAR.search(line)][-count:])


def launch_of(path: str) -> str:
    """The file that holds the beginning of a log: a part of its own where the log was rotated since."""
    launch = path + LAUNCH
    return launch if Path(launch).exists() else path


def keep(host: Host, path: str, *, pid: int, started: int) -> None:
    """Keep a log within bounds as long as the process that writes it lives."""
    script = str(Path(__file__).with_name("log_keeper.py"))
    argv = [sys.executable, "-I", "-S", script, path, str(pid), str(started), str(MOST_BYTES)]
    with suppress(ProvisionError):
        host.start(argv, log=path)


def follow(path: str, *, going_on: Callable[[], bool] = lambda: True) -> Iterator[str]:
    """New lines as they come, without credentials, until `going_on` says no."""
    tail = Tail(path, at_end=True)
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
    """Begin the log of a start: the end of the one before stays as `….1`, so that it can be read why that failed."""
    if host.stat(path) is not None:
        host.move(path, f"{path}{_BEFORE}")
    for part in (LAUNCH, EARLIER):
        host.remove(f"{path}{part}")
    if host.stat(f"{path}{_NEXT}") is not None:
        host.move(f"{path}{_NEXT}", path)


def _read(path: Path, offset: int, most: int | None) -> bytes:
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            return stream.read(most)
    except OSError:
        return b""


def _end(path: Path) -> bytes:
    return _read(path, max(0, _size(path) - _TAIL_BYTES), _TAIL_BYTES)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from another one that took its name."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _text(raw: bytes) -> str:
    return _COLOUR.sub("", raw.decode("utf-8", errors="replace")).rstrip()
