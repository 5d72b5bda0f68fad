"""One at a time: a lock that ends with its holder, however that ends, and a wait that says for whom and has an end."""

from __future__ import annotations

import fcntl
import os
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from provision.errors import StepFailed

_POLL_S = 0.1
# Who was stopped (Ctrl-Z, SIGSTOP) lets go of nothing: there is no sense in waiting for it as long as for others.
STOPPED_S = 10.0


@contextmanager
def held(
    descriptor: int, path: str, *, work: str, patience_s: float, tell: Callable[[str], None] = lambda _: None
) -> Iterator[int]:
    """Hold the lock on the open file `path` meanwhile; its descriptor, which is closed in the end.

    A child that is given the descriptor holds the lock as long as it lives. `work` says what whoever holds it is doing
    (`at work under /srv/sgprov`); `tell` hears once who is waited for. Raises `StepFailed` that names the process where
    it does not end in `patience_s` seconds.
    """
    try:
        _take(descriptor, path, work, patience_s, tell)
        # Who holds it is written down for those who wait. A full disk is no reason not to hold it.
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        # Closing lets go of it; the file stays, for removing it would let two in who opened it before and after.
        os.close(descriptor)


def is_held(descriptor: int) -> bool:
    """Whether somebody else holds the lock of an open file."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


def holder(descriptor: int) -> int | None:
    """The pid that its holder wrote into a lock; of one that nobody holds, that of the last one."""
    with suppress(OSError, ValueError):
        return int(os.pread(descriptor, 20, 0))
    return None


def _take(descriptor: int, path: str, work: str, patience_s: float, tell: Callable[[str], None]) -> None:
    start = time.monotonic()
    told = False
    while not _taken(descriptor):
        pid = holder(descriptor)
        is_stopped = _is_stopped(pid)
        waited = time.monotonic() - start
        if waited >= (min(patience_s, STOPPED_S) if is_stopped else patience_s):
            raise _given_up(path, pid, work, waited, is_stopped=is_stopped)
        if not told:
            tell(f"waiting for {_named(pid, is_stopped=is_stopped)}, which is {work}")
            told = True
        time.sleep(_POLL_S)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # A file system without locks: it is used as it was before there were any.
        return True
    return True


def _given_up(path: str, pid: int | None, work: str, waited: float, *, is_stopped: bool) -> StepFailed:
    hint = "wait until it has ended, then run the same command again"
    if is_stopped:
        hint = f"`kill -CONT {pid}` lets it go on, `kill -KILL {pid}` ends it; then run the same command again"
    elif pid is None:
        hint = f"`fuser {shlex.quote(path)}` says who it is"
    return StepFailed(f"{_named(pid, is_stopped=is_stopped)} is {work}, still after {waited:.0f} s", hint=hint)


def _named(pid: int | None, *, is_stopped: bool) -> str:
    # Who has only just taken it has not written yet, and the one before has ended.
    if pid is None or not Path(f"/proc/{pid}").exists():
        return "another sgprov"
    return f"another sgprov (pid {pid}{', stopped by a signal' if is_stopped else ''})"


def _is_stopped(pid: int | None) -> bool:
    """Whether a process was stopped by a signal (`T`) or by a debugger (`t`)."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[
            0
        ] in {"T", "t"}
    return False
