"""From the question that a decision answers to what checks look at; a refusal is something to look at, too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from provision.catalog.rows import Layout
from provision.checks.base import Context
from provision.decision import Candidate, Decision, Question, decide, weigh_targets
from provision.decision.choose import chosen_gpus, places_of
from provision.errors import UnsupportedHost
from provision.host import HostView


def look(
    question: Question,
    view: HostView,
    *,
    credential: Callable[[str], str | None] = lambda _: None,
    local: bool = True,
    network_wait_s: float,
) -> Context:
    """What checks look at. Raises `UsageError` where the wishes are wrong, nothing because of the host."""
    decision: Decision | None = None
    refusal: UnsupportedHost | None = None
    try:
        decision = decide(question)
    except UnsupportedHost as error:
        refusal = error
    wishes = question.wishes
    named = question.catalog.target(wishes.target) if wishes.target else None
    target = decision.target if decision else named
    places = places_of(target.layout if target else Layout(), wishes, question.home)
    wants_gpus = decision is None or bool(decision.target.compute_capabilities)
    return Context(
        view=_with_defaults(view, target.layout.variables if target else {}),
        facts=question.facts,
        places=decision.places if decision else places,
        target=target,
        decision=decision,
        refusal=refusal,
        candidates=decision.candidates if decision else _candidates(question),
        gpus=chosen_gpus(question.facts, wishes) if wants_gpus else (),
        credential=credential,
        local=local,
        network_wait_s=network_wait_s,
    )


class _Defaults:
    """A view whose user has set what the target's layout sets for everything that sgprov starts."""

    def __init__(self, view: HostView, variables: Mapping[str, str]) -> None:
        self._view = view
        self._variables = variables

    def variable(self, name: str) -> str | None:
        return self._view.variable(name) or self._variables.get(name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._view, name)


def _with_defaults(view: HostView, variables: Mapping[str, str]) -> HostView:
    return cast("HostView", _Defaults(view, variables)) if variables else view


def _candidates(question: Question) -> tuple[Candidate, ...]:
    """What was weighed for the target that was named, or for every target of these GPUs; each once."""
    name = question.wishes.target
    found = {
        one.name: one
        for fit in weigh_targets(question)
        if (fit.target.name == name if name else bool(fit.target.compute_capabilities))
        for one in fit.candidates
    }
    return tuple(found.values())
