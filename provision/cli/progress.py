"""Shows a running plan: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from provision.cli import render
from provision.output import readable
from provision.plan import Plan
from provision.report import Status, StepResult
from provision.runner import Named, Watcher
from provision.serving.phases import Phase
from provision.steps import Progress

if TYPE_CHECKING:
    from rich.console import Console

# Without a terminal a line now and then is enough: logs are read afterwards.
_PLAIN_EVERY_S = 10.0


@contextmanager
def watching(*, as_json: bool) -> Iterator[Watcher]:
    """A watcher that fits where the output goes; with `--json` people's text goes to stderr."""
    screen = render.console(error=as_json)
    if not screen.is_terminal:
        yield _Plain(error=as_json)
        return
    terminal = _Terminal(screen)
    with terminal.bars:
        yield terminal


@contextmanager
def phases(name: str, *, as_json: bool) -> Iterator[Callable[[Phase, float], None]]:
    """Shows the phases of one launch, outside a plan."""
    with watching(as_json=as_json) as watcher:
        launch = Work(name)
        watcher.started(launch)

        def tell(phase: Phase, seconds: float) -> None:
            watcher.progress(launch, Progress(text=f"{phase} ({seconds:.0f} s)", milestone=True))

        yield tell


@contextmanager
def bytes_of(name: str, *, as_json: bool) -> Iterator[Callable[[int, int], None]]:
    """Shows how far a count of bytes is, outside a plan: (done, total)."""
    with watching(as_json=as_json) as watcher:
        work = Work(name)
        watcher.started(work)
        yield lambda done, total: watcher.progress(work, Progress(text="reading", done=done, total=total))


@dataclass(frozen=True)
class Work:
    """Something that takes a while and is no step of a plan."""

    id: str


class _Plain:
    def __init__(self, *, error: bool) -> None:
        self._error = error
        self._last_time = 0.0

    def decided(self, plan: Plan, to_fetch: str | None = None) -> None:
        for line in (_decided(plan), *plan.lines(), *([to_fetch] if to_fetch else [])):
            render.print_line(line, error=self._error)

    def started(self, _: Named) -> None:
        self._last_time = time.monotonic()

    def progress(self, step: Named, progress: Progress) -> None:
        now = time.monotonic()
        if not progress.milestone and now - self._last_time < _PLAIN_EVERY_S:
            return
        self._last_time = now
        render.print_line(f"{step.id}: {progress.text}{_amount(progress)}", error=self._error)

    def ended(self, step: Named, result: StepResult) -> None:
        took = f" ({result.seconds:.1f} s)" if result.status is Status.DONE else ""
        if result.status is not Status.NOT_REACHED:
            render.print_line(f"{step.id}: {render.label(result.status)}: {_came(result)}{took}", error=self._error)


class _Terminal:
    def __init__(self, screen: Console) -> None:
        from rich.progress import (  # noqa: PLC0415  # only on a terminal
            BarColumn,
            TextColumn,
            TimeElapsedColumn,
        )
        from rich.progress import Progress as Bars  # noqa: PLC0415

        self._screen = screen
        self.bars = Bars(
            TextColumn("  {task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[amount]}", markup=False),
            TimeElapsedColumn(),
            console=self._screen,
            transient=True,
        )
        self._task = self.bars.add_task("", total=None, amount="", visible=False)

    def decided(self, plan: Plan, to_fetch: str | None = None) -> None:
        render.line(self._screen, (_decided(plan), "bold"))
        for line in (*plan.lines(), *([to_fetch] if to_fetch else [])):
            render.line(self._screen, line)

    def started(self, step: Named) -> None:
        self.bars.reset(self._task, description=step.id, total=None, amount="", visible=True)

    def progress(self, step: Named, progress: Progress) -> None:
        if progress.stays:
            render.line(self._screen, ("·", "cyan"), f" {step.id:<14}", progress.text)
        self.bars.update(
            self._task,
            description=readable(f"{step.id}: {progress.text}"),
            completed=progress.done or 0,
            total=progress.total,
            amount=_amount(progress).strip(" ()"),
        )

    def ended(self, step: Named, result: StepResult) -> None:
        self.bars.update(self._task, visible=False)
        if result.status is not Status.NOT_REACHED:
            render.show_step(step.id, result.status, _came(result), result.seconds, self._screen)


def _came(result: StepResult) -> str:
    """What a step came to, in a line: of one that failed the first of its error, which is told whole at the end."""
    return result.note or (result.error or "").partition("\n")[0].rstrip(":")


def _decided(plan: Plan) -> str:
    decision = plan.decision
    what = decision.stack.name if decision.stack else decision.image.reference if decision.image else ""
    python = f", Python {decision.python}" if decision.python else ""
    return f"{decision.target.name}: {what}{python}, under {decision.places.prefix}"


def _amount(progress: Progress) -> str:
    if progress.done is None:
        return ""
    done = progress.done / 1e9
    return f" ({done:.2f} of {progress.total / 1e9:.2f} GB)" if progress.total else f" ({done:.2f} GB)"
