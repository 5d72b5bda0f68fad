"""Keeping an environment from being cleared away between its install and its use."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress

from provision import trust
from provision.environments.layout import CLAIM
from provision.errors import ProvisionError
from provision.host import Host

# The kernel lets go of them when the process ends, however it ends.
_HELD: dict[str, int] = {}


def hold(host: Host, path: str, *, made_in: str | None = None) -> None:
    """Claim the environment at `path`, or on the way there, until it is in use or this process ends.

    One that may not be written to may not be cleared away either.
    """
    with suppress(ProvisionError, OSError):
        descriptor = host.open_state(f"{made_in or path}/{CLAIM}", os.O_RDWR | os.O_CREAT, mode=0o600)
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        release(path)
        _HELD[path] = descriptor


def release(path: str) -> None:
    """It is in use now, which protects it."""
    if (descriptor := _HELD.pop(path, None)) is not None:
        os.close(descriptor)


def is_claimed(path: str) -> bool:
    """Whether a run that is still going on has claimed it, this one included."""
    with suppress(ProvisionError, OSError):
        descriptor = trust.open_state(f"{path}/{CLAIM}", os.O_RDWR)
        try:
            return _is_locked(descriptor)
        finally:
            os.close(descriptor)
    return False


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
