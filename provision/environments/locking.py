"""One at a time under a prefix: two runs that install, switch or clear at once would destroy each other's work."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from provision.errors import StepFailed
from provision.host import Host

FILE = ".lock"
# Moving a link or removing a directory takes no longer than that; an install may take an hour.
SHORT_S = 10.0
LONG_S = 3 * 3600.0
_POLL_S = 0.1


@contextmanager
def alone(
    host: Host, prefix: str, *, patience_s: float | None = None, tell: Callable[[str], None] = lambda _: None
) -> Iterator[None]:
    """Nobody else changes environments under `prefix` meanwhile; the lock ends with the process, however that ends.

    `tell` hears once who is waited for. Raises `StepFailed` that names the process where it does not end in time.
    """
    host.make_directory(prefix)
    path = f"{prefix}/{FILE}"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise StepFailed(f"`{path}` could not be opened: {error.strerror}") from error
    try:
        _take(descriptor, prefix, SHORT_S if patience_s is None else patience_s, tell)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        # Closing lets go of it; the file stays, for removing it would let two in who opened it before and after.
        os.close(descriptor)


def _take(descriptor: int, prefix: str, patience_s: float, tell: Callable[[str], None]) -> None:
    deadline = time.monotonic() + patience_s
    told = False
    while not _taken(descriptor):
        holder = _holder(descriptor)
        if time.monotonic() >= deadline:
            raise StepFailed(
                f"{holder} is at work under `{prefix}`", hint="wait until it has ended, or take another `--prefix`"
            )
        if not told:
            tell(f"waiting for {holder}, which is at work under `{prefix}`")
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


def _holder(descriptor: int) -> str:
    # Who has only just taken it has not written yet, and the one before has ended.
    with suppress(OSError, ValueError):
        return f"another sgprov (pid {int(os.pread(descriptor, 20, 0))})"
    return "another sgprov"
