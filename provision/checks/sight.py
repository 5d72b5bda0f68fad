"""From the question that a decision answers to what checks look at; a refusal is something to look at, too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from threading import Lock
from typing import Any, cast

from provision import launches, models
from provision.catalog.rows import Layout
from provision.checks.base import Context
from provision.decision import Candidate, Decision, Question, decide, weigh_targets
from provision.decision.choose import chosen_gpus, places_of
from provision.errors import StepFailed, UnsupportedHost
from provision.host import QUERY_TIMEOUT_S, HostView, Outcome


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
    if decision and wishes.port == "auto":
        # Where none is free, the checks of ports say who has the first.
        with suppress(StepFailed):
            name = wishes.name or launches.default_name(decision)
            decision = replace(decision, serve=launches.on_a_free_port(view, decision, name))
    if decision:
        decision = models.at_hand(view, decision)
    named = question.catalog.target(wishes.target) if wishes.target else None
    target = decision.target if decision else named
    places = places_of(target.layout if target else Layout(), wishes, question.home, hf_home=question.hf_home)
    wants_gpus = decision is None or bool(decision.target.compute_capabilities)
    return Context(
        view=cast("HostView", _OneLook(view, target.layout.variables if target else {})),
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
        allow_unauthenticated=bool(wishes.allow_unauthenticated),
        allow_pickle=bool(wishes.allow_pickle),
    )


class _OneLook:
    """A view that asks each command once, and whose user has set what the target's layout sets for all it starts."""

    def __init__(self, view: HostView, variables: Mapping[str, str]) -> None:
        self._view = view
        self._variables = variables
        self._outcomes: dict[tuple[str, ...], Outcome] = {}
        self._asking: dict[tuple[str, ...], Lock] = {}
        self._guard = Lock()

    def variable(self, name: str) -> str | None:
        value = self._view.variable(name)
        return self._variables.get(name) if value is None else value

    def query(self, argv: Sequence[str], *, timeout_s: float = QUERY_TIMEOUT_S) -> Outcome:
        command = tuple(argv)
        with self._guard:
            asking = self._asking.setdefault(command, Lock())
        with asking:
            if command not in self._outcomes:
                self._outcomes[command] = self._view.query(command, timeout_s=timeout_s)
        return self._outcomes[command]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._view, name)


def _candidates(question: Question) -> tuple[Candidate, ...]:
    """What was weighed for the target that was named, or for every one for GPUs that is chosen unasked; each once."""
    name = question.wishes.target
    found = {
        one.name: one
        for fit in weigh_targets(question)
        if (fit.target.name == name if name else fit.target.compute_capabilities and fit.target.rank is not None)
        for one in fit.candidates
    }
    return tuple(found.values())
