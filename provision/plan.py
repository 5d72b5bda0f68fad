"""The ordered steps of a decision: pure data."""

from __future__ import annotations

from dataclasses import dataclass

from provision.decision import Decision
from provision.host import HostView
from provision.serving.launch import Launch
from provision.steps import Step


@dataclass(frozen=True, kw_only=True)
class Foresight:
    """What would become of a step today; None where it was not looked at, because the machine is not here."""

    id: str
    preview: str
    would_change: bool | None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What will be done, in order. Steps whose id is in `left_out` are shown and not carried out."""

    decision: Decision
    steps: tuple[Step, ...]
    launch: Launch | None = None
    left_out: frozenset[str] = frozenset()

    def foresee(self, view: HostView | None) -> tuple[Foresight, ...]:
        """Each step with whether it would change something; a step after a change is judged on today's host."""
        return tuple(
            Foresight(
                id=step.id,
                preview=step.preview(),
                would_change=None if view is None else not step.looks_only and not step.satisfied(view),
            )
            for step in self.steps
            if step.id not in self.left_out
        )
