"""What every step is: data that knows how to become true."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from provision.host import Host, HostView
from provision.report import Finding


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a step is: `done` and `total` in bytes where they can be told, else only a phrase.

    A `milestone` is worth a line of its own where nobody watches a terminal; the others are for passing the time. What
    `stays` is one on a terminal too.
    """

    text: str
    done: int | None = None
    total: int | None = None
    milestone: bool = False
    stays: bool = False


@dataclass(frozen=True, kw_only=True)
class Applied:
    """What a step that was carried out has to say; `data` goes into the report's (an endpoint)."""

    note: str
    findings: tuple[Finding, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class Precondition(Protocol):
    """A step whose failure can be told by looking, before the first change (and before gigabytes are fetched)."""

    def check(self, view: HostView) -> None:
        """Raise what `apply` would raise today."""
        ...


class Step(Protocol):
    """One change. The plan builds steps and calls neither `satisfied` nor `apply`."""

    @property
    def id(self) -> str: ...

    @property
    def looks_only(self) -> bool:
        """Whether carrying it out changes nothing (a check that needs what the steps before it made)."""
        ...

    def preview(self) -> str:
        """What it would do, in a line."""
        ...

    def satisfied(self, host: HostView) -> bool: ...

    def apply(self, host: Host, tell: Callable[[Progress], None]) -> str | Applied:
        """Make it true, and say so. Raises a `ProvisionError`, leaving what was in use as it was."""
        ...
