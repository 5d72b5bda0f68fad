"""One at a time with a server: two runs at once must not start two servers by one name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from provision.errors import StepFailed
from provision.host import Host, locking

FILE = "lock"
# Ending a server takes as long as its requests, starting a container as long as its engine.
PATIENCE_S = 120.0


@contextmanager
def alone(
    host: Host, directory: str, *, tell: Callable[[str], None] = lambda _: None, needed: bool = True
) -> Iterator[None]:
    """Nobody else starts or ends the server in `directory` meanwhile; `tell` hears once who is waited for.

    Raises `StepFailed` that names the holder where it does not end in time, and where the lock cannot be opened. Where
    it is not `needed`, what must be possible on a disk that is full or read-only is done without it.
    """
    path = f"{directory}/{FILE}"
    descriptor = _opened(host, path, needed=needed)
    if descriptor is None:
        yield
        return
    work = f"at work on the server `{directory.rpartition('/')[2]}`"
    with locking.held(descriptor, path, work=work, patience_s=PATIENCE_S, tell=tell):
        yield


def _opened(host: Host, path: str, *, needed: bool) -> int | None:
    try:
        return host.open_state(path, os.O_RDWR | os.O_CREAT)
    except StepFailed:
        if needed:
            raise
    try:
        # One that is there can be held all the same.
        return host.open_state(path, os.O_RDONLY)
    except StepFailed:
        return None
