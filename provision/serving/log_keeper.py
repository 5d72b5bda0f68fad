"""Keeps the log of a server that runs within bounds: a process of its own beside it, which ends when the server does.

The engine writes into the file itself, so nothing stands between it and its log: where this is killed, the log only
grows. What was written is copied aside and the file cut to nothing; its writers append, and go on at its beginning.

Run alone by the Python that runs sgprov, so it imports nothing of ours. Arguments: the log, the pid of the server, when
that was started (in clock ticks since boot), and how many bytes the log may have.
"""

from __future__ import annotations

import os
import select
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

# The launch stays for as long as the server runs: what is asked of it later (its model, its settings) is there.
LAUNCH, EARLIER = ".launch", ".earlier"
LAUNCH_BYTES = 2 * 1024 * 1024
_LOOK_S = 1.0
_BLOCK_BYTES = 1024 * 1024


def rotate(path: str) -> None:
    """Move what is in the log into `….earlier`, in place of what is there; the first time its beginning stays, too."""
    with Path(path).open("r+b") as log:
        if not Path(path + LAUNCH).exists():
            with suppress(OSError):
                _write(path + LAUNCH, log, LAUNCH_BYTES)
        # Before the copy, so that there is room for it; a disk without any is no reason to grow.
        Path(path + EARLIER).unlink(missing_ok=True)
        log.seek(0)
        with suppress(OSError):
            _write(path + EARLIER, log, None)
        log.truncate(0)


def keep(path: str, pid: int, started: str, most_bytes: int) -> None:
    """Until that process has ended."""
    ended = _notice(pid)
    while _started(pid) == started:
        with suppress(OSError):
            if Path(path).stat().st_size > most_bytes:
                rotate(path)
        if ended is None:
            time.sleep(_LOOK_S)
        elif ended.poll(_LOOK_S * 1000):
            return


def _write(path: str, source: BinaryIO, most: int | None) -> None:
    """Copy what is left of a stream, or the first `most` bytes of it, into a file that is there whole or not at all."""
    new = f"{path}.new"
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as target:
            left = most
            while block := source.read(_BLOCK_BYTES if left is None else min(left, _BLOCK_BYTES)):
                target.write(block)
                left = None if left is None else left - len(block)
        Path(new).replace(path)
    except OSError:
        Path(new).unlink(missing_ok=True)
        raise


def _notice(pid: int) -> select.poll | None:
    """What tells at once that a process has ended; None where the kernel or Python has nothing of the kind."""
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None
    noticing = select.poll()
    noticing.register(descriptor, select.POLLIN)
    return noticing


def _started(pid: int) -> str | None:
    """When a process was started: field 22 of its stat (proc(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


if __name__ == "__main__":
    keep(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
