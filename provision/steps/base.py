"""What every step is: data that knows how to become true."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from provision.host import Host, HostView


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a step is: `done` and `total` in bytes where they can be told, else only a phrase."""

    text: str
    done: int | None = None
    total: int | None = None


class Step(Protocol):
    """One change. The plan builds steps and calls neither `satisfied` nor `apply`."""

    @property
    def id(self) -> str: ...

    def preview(self) -> str:
        """What it would do, in a line."""
        ...

    def satisfied(self, host: HostView) -> bool: ...

    def apply(self, host: Host, tell: Callable[[Progress], None]) -> str:
        """Make it true and say so in a line. Raises a `ProvisionError`, leaving what was in use as it was."""
        ...
