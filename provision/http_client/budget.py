"""What one question may cost in time and bytes, and what is left of that."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

MOST_BYTES = 32 * 1024 * 1024
# What one read may take of a question that has no end.
_LONGEST_S = 86400.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one question may cost: `seconds` from its beginning to the last byte of its answer, None for no such end.

    With `stall_s` there is an end, too, as soon as fewer than `least_bytes` came within that time: for a download,
    which may take hours, but not for nothing.
    """

    seconds: float | None = None
    most_bytes: int | None = MOST_BYTES
    stall_s: float | None = None
    least_bytes: int = 1


class TooMuch(OSError):
    """More bytes than an answer may have."""


class Budget:
    """What is left of the time and the bytes of one question."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._start = self._window = time.monotonic()
        self._bytes = self._in_window = 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return self._left() <= 0

    @property
    def stalled(self) -> str | None:
        """What came of too little in too long a time, for people; None where that is not what happened."""
        limits = self._limits
        if limits.stall_s is None or time.monotonic() < self._window + limits.stall_s:
            return None
        return f"sent {self._in_window} bytes in {limits.stall_s:.0f} s"

    def remaining(self) -> float:
        """Seconds that the next read may take. Raises `TimeoutError` where there are none."""
        left = self._left()
        if left <= 0:
            raise TimeoutError
        return left

    def spend(self, count: int) -> None:
        """Take note of bytes that came. Raises `TooMuch`."""
        self._bytes += count
        self._in_window += count
        if self._limits.most_bytes is not None and self._bytes > self._limits.most_bytes:
            raise TooMuch
        if self._limits.stall_s is not None and self._in_window >= self._limits.least_bytes:
            self._window, self._in_window = time.monotonic(), 0

    def _left(self) -> float:
        now = time.monotonic()
        ends = [self._start + self._limits.seconds] if self._limits.seconds is not None else []
        ends += [self._window + self._limits.stall_s] if self._limits.stall_s is not None else []
        return min(ends, default=now + _LONGEST_S) - now


def within(seconds: float, work: Callable[[], T]) -> T:
    """What the work comes to; `TimeoutError` where that takes longer, and it is left to end alone.

    For what no timeout of a socket bounds: a name that is looked up, and several addresses that are tried.
    """
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:  # noqa: BLE001  # whoever waits has it
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not done:
        raise TimeoutError
    return done[0]
