"""The shape of a check, and what every check is given to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from threading import Lock as ThreadLock
from typing import Any, TypeVar, cast

from provision.catalog.rows import Serve, Target
from provision.decision import Candidate, Decision, Places
from provision.errors import ProvisionError
from provision.facts.model import Facts, Gpu
from provision.host import HostView
from provision.report import Finding, Severity

T = TypeVar("T")

# Long enough for a name server and a handshake across an ocean; checks of the network run beside all others.
NETWORK_WAIT_S = 1.5
# Problems of the facts that are about GPUs and their driver.
GPU_TOPICS = ("facts.gpu", "facts.driver", "facts.nvml")


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a check looks at. It holds a view, so it can change nothing.

    `decision` is what this host would become, None where nothing fits (`refusal` says why); `candidates` are the
    stacks and images that were weighed. `gpus` are those to be used. `credential` gives the value of a secret
    variable to the check that looks at its shape; no finding ever holds one.
    """

    view: HostView
    facts: Facts
    places: Places
    target: Target | None = None
    decision: Decision | None = None
    refusal: ProvisionError | None = None
    candidates: tuple[Candidate, ...] = ()
    gpus: tuple[Gpu, ...] = ()
    credential: Callable[[str], str | None] = lambda _: None
    # False for a recorded machine: its files can be read as text only.
    local: bool = True
    network_wait_s: float = NETWORK_WAIT_S
    allow_unauthenticated: bool = False
    allow_pickle: bool = False
    _answers: dict[str, Any] = field(default_factory=dict, repr=False)
    _guard: ThreadLock = field(default_factory=ThreadLock, repr=False)

    @property
    def serve(self) -> Serve:
        """How the server is to run; the defaults where nothing was decided."""
        return self.decision.serve if self.decision else self.target.serve if self.target else Serve()

    @property
    def servers(self) -> str:
        return f"{self.places.prefix}/servers"

    @property
    def in_container(self) -> bool:
        return self.facts.surroundings.container is not None

    @property
    def home(self) -> str:
        return self.view.variable("HOME") or "/root"

    def once(self, question: str, look: Callable[[], T]) -> T:
        """The answer to a question that several checks have; checks run side by side, so one of them asks."""
        with self._guard:
            guard = self._answers.setdefault(f"guard of {question}", ThreadLock())
        with guard:
            if question not in self._answers:
                self._answers[question] = look()
        return cast("T", self._answers[question])


@dataclass(frozen=True, kw_only=True)
class Check:
    """One question about a machine. `id` is public and never reused; `remedy` is the general one, as a command."""

    id: str
    family: str
    title: str
    looks_at: str
    why: str
    remedy: str
    run: Callable[[Context], Iterable[Finding]]
    applies: Callable[[Context], bool]


def always(_: Context) -> bool:
    return True


def check(
    family: str,
    identifier: str,
    title: str,
    *,
    looks_at: str,
    why: str,
    remedy: str,
    applies: Callable[[Context], bool] = always,
) -> Callable[[Callable[[Context], Iterable[Finding]]], Check]:
    """Make a check of the function that looks; its findings get the check's id when it is run."""

    def make(run: Callable[[Context], Iterable[Finding]]) -> Check:
        return Check(
            id=identifier,
            family=family,
            title=title,
            looks_at=looks_at,
            why=why,
            remedy=remedy,
            run=run,
            applies=applies,
        )

    return make


def error(text: str, *fix: str, **data: Any) -> Finding:
    """It keeps the target from serving."""
    return Finding(check="", severity=Severity.ERROR, text=text, fix=fix, data=data)


def warning(text: str, *fix: str, **data: Any) -> Finding:
    """It will serve, but worse, or not for long."""
    return Finding(check="", severity=Severity.WARNING, text=text, fix=fix, data=data)


def info(text: str, *fix: str, **data: Any) -> Finding:
    """Good to know, nothing to mend."""
    return Finding(check="", severity=Severity.INFO, text=text, fix=fix, data=data)


def bootstrap(context: Context, *more: str) -> str:
    """The command that brings this target to serve, with what a remedy adds to it."""
    target = ("--target", context.target.name) if context.target else ()
    return f"`{' '.join(('sgprov bootstrap', *target, *more))}`"


def gpus_are_clear(context: Context) -> bool:
    """Whether what GPUs there are could be told; where it could not, `gpu-answers` says all there is to say."""
    problems = context.facts.problems
    return not any(one.severity is Severity.ERROR and one.check.startswith(GPU_TOPICS) for one in problems)


def has_gpus(context: Context) -> bool:
    return bool(context.facts.gpus)


def has_several_gpus(context: Context) -> bool:
    return len(context.gpus) > 1


def has_driver(context: Context) -> bool:
    return context.facts.driver is not None


def serves_on_gpus(context: Context) -> bool:
    """Whether a stack of wheels is to run on GPUs, and so compiles kernels on this host."""
    decision = context.decision
    return bool(decision and decision.stack and decision.target.compute_capabilities)


def has_decision(context: Context) -> bool:
    return context.decision is not None


def has_lock(context: Context) -> bool:
    return context.decision is not None and context.decision.lock is not None


def on_the_machine(context: Context) -> bool:
    """Whether this is the machine itself: what belongs to its kernel is not a container's to change."""
    return not context.in_container and not context.facts.surroundings.wsl
