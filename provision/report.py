"""What one run has to say, as data; text and JSON are two renderings of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Severity(str, Enum):
    """How much a finding matters; only an error makes a report not ok."""

    OK = "ok"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Status(str, Enum):
    """What became of a step."""

    ALREADY = "already"
    WOULD = "would"
    DONE = "done"
    # Looked at and found right: a smoke test changes nothing.
    CHECKED = "checked"
    FAILED = "failed"
    SKIPPED = "skipped"
    NOT_REACHED = "not-reached"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing a check, a log line or a verification has to say, and what the user can do about it.

    `fix` holds exact commands or sentences, best first. `seconds` is what the observation took, where that
    is of interest (a smoke test's request).
    """

    check: str
    severity: Severity
    text: str
    fix: tuple[str, ...] = ()
    seconds: float | None = None
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one step of a plan came to. `note` says what it found or did, in a line."""

    step: str
    status: Status
    seconds: float = 0.0
    note: str = ""
    error: str | None = None
    hint: str | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """Steps and findings of one run. `data` holds what is particular to the command (an endpoint, a decision)."""

    host: str
    command: str
    target: str | None = None
    findings: tuple[Finding, ...] = ()
    steps: tuple[StepResult, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)
    # Set where a step failed with a status of its own (3 wrong Python, 6 does not serve); 5 otherwise.
    failed_with: int | None = None

    @property
    def ok(self) -> bool:
        return not self._failed and not any(f.severity is Severity.ERROR for f in self.findings)

    @property
    def _failed(self) -> bool:
        return self.failed_with is not None or any(s.status is Status.FAILED for s in self.steps)

    @property
    def exit_status(self) -> int:
        if self._failed:
            return self.failed_with or 5
        return 0 if self.ok else 4

    @property
    def changed(self) -> bool:
        return any(s.status in {Status.DONE, Status.WOULD} for s in self.steps)


_listener: ContextVar[Callable[[Finding], None]] = ContextVar("listener", default=lambda _: None)


def notice(finding: Finding) -> None:
    """Say at once what the user has to know whatever the command goes on to say, such as a file that was ignored."""
    _listener.get()(finding)


@contextmanager
def noticing(listener: Callable[[Finding], None]) -> Iterator[None]:
    """While the block runs, `listener` hears every notice."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
