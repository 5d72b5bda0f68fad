"""Carries out a plan: the only loop that changes a host."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from provision.errors import CommandFailed, ProvisionError, StepFailed
from provision.host import Host
from provision.plan import Plan, preflight_failures, preflight_status
from provision.report import Finding, Report, Status, StepResult
from provision.serving import record
from provision.steps import Applied, Progress, Step
from provision.steps.server import StartServer, gone_back


class Named(Protocol):
    """What a watcher needs to know of a step."""

    @property
    def id(self) -> str: ...


class Watcher(Protocol):
    """Who is told how it goes: a terminal, a log, nobody."""

    def decided(self, plan: Plan, to_fetch: str | None = None) -> None: ...
    def started(self, step: Named) -> None: ...
    def progress(self, step: Named, progress: Progress) -> None: ...
    def ended(self, step: Named, result: StepResult) -> None: ...


class Nobody:
    """A watcher that looks away."""

    def decided(self, plan: Plan, to_fetch: str | None = None) -> None: ...
    def started(self, step: Named) -> None: ...
    def progress(self, step: Named, progress: Progress) -> None: ...
    def ended(self, step: Named, result: StepResult) -> None: ...


def apply(plan: Plan, host: Host, *, dry_run: bool = False, watcher: Watcher | None = None) -> Report:
    """Make each step true that is not, in order, and stop at the first that cannot be made true.

    A dry run is the same loop that stops one line earlier; a step after a "would" is judged on today's host.
    """
    watcher = watcher or Nobody()
    results: list[StepResult] = []
    findings = list(plan.decision.findings)
    data: dict[str, Any] = {}
    hopeless = preflight_failures(plan, host)
    findings += [finding for error in hopeless.values() for finding in error.findings]
    failure = next(iter(hopeless.values()), None)
    for step in plan.steps:
        start = time.monotonic()
        status, applied, error = Status.NOT_REACHED, Applied(note=""), hopeless.get(step.id)
        if error:
            status = Status.FAILED
        elif failure is None:
            watcher.started(step)
            try:
                status, applied = _carry_out(step, plan, host, dry_run=dry_run, watcher=watcher)
            except ProvisionError as problem:
                status, failure, error = Status.FAILED, problem, problem
                findings += problem.findings or _known_causes(problem)
        result = StepResult(
            step=step.id,
            status=status,
            seconds=time.monotonic() - start,
            note=applied.note or ("" if error else step.preview()),
            error=str(error) if error else None,
            hint=error.hint if error else None,
        )
        watcher.ended(step, result)
        results.append(result)
        findings += applied.findings
        data |= applied.data
    return Report(
        host=host.name,
        command="bootstrap",
        target=plan.decision.target.name,
        findings=tuple(findings),
        steps=tuple(results),
        data=data,
        failed_with=preflight_status(failure) if failure and failure in hopeless.values() else _status_of(failure),
    )


def settle(plan: Plan, host: Host, report: Report, *, watcher: Watcher | None = None) -> Report:
    """What serves in the end: the new server where every step succeeded; else the one before, or none.

    The steps that start and test it see to that themselves: this is for those that come after.
    """
    step = next(step for step in plan.steps if isinstance(step, StartServer))
    failed = next((one.step for one in report.steps if one.status is Status.FAILED), None)
    if failed is None:
        record.forget_replaced(host, record.directory_of(step.servers, step.name))
    was_started = any(one.step == step.id and one.status is Status.DONE for one in report.steps)
    if failed in {None, "server", "smoke"} or not was_started:
        return report
    error = gone_back(
        host,
        StepFailed(failed),
        servers=step.servers,
        name=step.name,
        tell=partial((watcher or Nobody()).progress, step),
        otherwise_stop=True,
    )
    return replace(report, findings=(*report.findings, *error.findings))


def _carry_out(step: Step, plan: Plan, host: Host, *, dry_run: bool, watcher: Watcher) -> tuple[Status, Applied]:
    preview = Applied(note=step.preview())
    if step.id in plan.left_out:
        return Status.SKIPPED, Applied(note="left out")
    if step.satisfied(host):
        return Status.ALREADY, preview
    if dry_run:
        return (Status.SKIPPED if step.looks_only else Status.WOULD), preview
    applied = step.apply(host, lambda progress: watcher.progress(step, progress))
    return (
        Status.CHECKED if step.looks_only else Status.DONE,
        Applied(note=applied) if isinstance(applied, str) else applied,
    )


def _known_causes(problem: ProvisionError) -> tuple[Finding, ...]:
    """What the output of a command that went wrong is known to mean."""
    if not isinstance(problem, CommandFailed):
        return ()
    from provision.diagnosis.matcher import diagnose_text  # noqa: PLC0415  # a second of patterns

    return diagnose_text(str(problem)).to_findings()


def _status_of(failure: ProvisionError | None) -> int | None:
    if failure is None:
        return None
    # A step that fails for a reason with a status of its own (3 wrong Python, 6 does not serve) keeps it.
    return failure.exit_status if failure.exit_status > 1 else StepFailed.exit_status
