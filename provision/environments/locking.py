"""One at a time under a prefix: two runs that install, switch or clear at once would destroy each other's work."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from provision.host import Host
from provision.host.locking import held

FILE = ".lock"
# Moving a link or removing a directory takes no longer than that; an install may take an hour.
SHORT_S = 10.0
LONG_S = 3 * 3600.0


@contextmanager
def alone(
    host: Host, prefix: str, *, patience_s: float | None = None, tell: Callable[[str], None] = lambda _: None
) -> Iterator[int]:
    """Nobody else changes environments under `prefix` meanwhile; the descriptor of the lock.

    `tell` hears once who is waited for. Raises `StepFailed` that names the process where it does not end in time.
    """
    path = f"{prefix}/{FILE}"
    descriptor = host.open_state(path, os.O_RDWR | os.O_CREAT)
    patience_s = SHORT_S if patience_s is None else patience_s
    with held(descriptor, path, work=f"at work under `{prefix}`", patience_s=patience_s, tell=tell):
        yield descriptor
