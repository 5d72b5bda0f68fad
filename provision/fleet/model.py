"""What is known of the hosts of a fleet, while it runs and afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from provision.fleet.answers import Asked, Machine, Report


class State(str, Enum):
    """Where a host is. An unreachable host is not a failed one: nothing was tried on it."""

    WAITING = "waiting"
    WORKING = "working"
    OK = "ok"
    FAILED = "failed"
    UNREACHABLE = "unreachable"
    # The run stopped before it came to this host.
    NOT_REACHED = "not-reached"


ENDED = frozenset({State.OK, State.FAILED, State.UNREACHABLE})


@dataclass(kw_only=True)
class HostState:
    """One host. `report` is sgprov's own object, `asked` what the host said before anything was changed; `answered` and
    `reported` are whether the play that runs has had an answer of it that was complete, and one with a report;
    `seconds` is the time of its own work, without what it waited for others, and `since` when the task began that it is
    at.
    """

    name: str
    state: State = State.WAITING
    step: str = ""
    progress: str = ""
    seconds: float = 0.0
    since: float | None = None
    changed: bool = False
    finding: str = ""
    report: Report | None = None
    asked: Asked | None = None
    machine: Machine | None = None
    answered: bool = False
    reported: bool = False
    exit_status: int | None = None

    def clock(self, now: float, *, working: bool) -> None:
        """Count the time up to now, and go on counting or stop."""
        self.seconds = self.seconds_at(now)
        self.since = now if working else None

    def seconds_at(self, now: float) -> float:
        return self.seconds + (now - self.since if self.since is not None else 0.0)

    @property
    def gpu(self) -> str:
        """`2 x NVIDIA A40`, or empty where none is known."""
        names = [str(name) for name in (self.machine and self.machine.gpus) or ()]
        kinds = list(dict.fromkeys(names))
        return ", ".join(f"{names.count(kind)} x {kind}" if names.count(kind) > 1 else kind for kind in kinds)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Hosts that are alike in everything that was compared. `differs` says in what from the largest group."""

    hosts: tuple[str, ...]
    traits: dict[str, str]
    differs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FleetReport:
    """One run over many hosts. `wheels` says what crossed which line, `unkept` what of it could not be written."""

    command: str
    hosts: tuple[HostState, ...]
    groups: tuple[Group, ...]
    seconds: float
    dry_run: bool = False
    stopped: str | None = None
    unkept: tuple[str, ...] = ()
    wheels: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.stopped is None and all(host.state is State.OK for host in self.hosts)

    @property
    def changed(self) -> bool:
        return any(host.changed for host in self.hosts)

    @property
    def exit_status(self) -> int:
        return 0 if self.ok else 7

    def count(self, state: State) -> int:
        return sum(host.state is state for host in self.hosts)
