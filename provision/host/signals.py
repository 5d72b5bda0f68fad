"""Sending a signal to the very process that is meant, and to no other that has its number by now."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from provision.errors import StepFailed


def send(pid: int, number: int, only_if: Callable[[], bool]) -> bool:
    """Send it where `only_if` says yes, asked while the process is held; whether there was such a process."""
    if pid <= 1:
        # 0 and negative ones are groups, and 1 is the machine's.
        raise StepFailed(f"process {pid} is never sent a signal")
    try:
        with _held(pid) as descriptor:
            if not only_if():
                return False
            if descriptor is None:
                os.kill(pid, number)
            else:
                signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    except PermissionError as error:
        raise StepFailed(f"process {pid} is not ours to stop: {error}") from error
    return True


@contextmanager
def _held(pid: int) -> Iterator[int | None]:
    """A descriptor of a process, which stays its own; None where the kernel (before 5.3) or Python has none."""
    descriptor = None
    if hasattr(os, "pidfd_open") and hasattr(signal, "pidfd_send_signal"):
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            raise
        except OSError:
            descriptor = None
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)
