"""The ordered steps of a decision: pure data."""

from __future__ import annotations

from dataclasses import dataclass

from provision.decision import Decision
from provision.steps import Step


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What will be done, in order. Steps whose id is in `left_out` are shown and not carried out."""

    decision: Decision
    steps: tuple[Step, ...]
    left_out: frozenset[str] = frozenset()
