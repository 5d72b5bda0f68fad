"""Carries out checks side by side; one that fails is a finding, and the others still run."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import dataclass, replace
from typing import Literal

from provision.catalog.load import nearest
from provision.checks.base import Check, Context
from provision.errors import ProvisionError, UsageError
from provision.report import Finding, Severity

Outcome = Literal["ok", "info", "warning", "error", "not-applicable"]
Verdict = Literal["ready", "degraded", "blocked"]

# Nearly all of a check's time is waiting for a program or for the network.
_WORKERS = 12
# Each question has a limit of its own; this is for a machine that answers none of them.
LIMIT_S = 60.0
_ORDER = (Severity.OK, Severity.INFO, Severity.WARNING, Severity.ERROR)


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """What became of one check."""

    check: Check
    outcome: Outcome
    findings: tuple[Finding, ...] = ()
    seconds: float = 0.0


def run_checks(
    checks: Sequence[Check], context: Context, *, ignore: Collection[str] = (), limit_s: float = LIMIT_S
) -> tuple[CheckResult, ...]:
    """Every check's result, in order. Errors of those in `ignore` become warnings, and are still shown."""
    deadline = time.monotonic() + limit_s
    pool = ThreadPoolExecutor(max_workers=_WORKERS)
    try:
        running = [(one, pool.submit(_run, one, context)) for one in checks]
        results = []
        for one, future in running:
            try:
                result = future.result(timeout=max(0.0, deadline - time.monotonic()))
            except (NotInTime, TimeoutError):
                result = _failed(one, f"gave no answer within {limit_s:.0f} s")
            results.append(_softened(result) if one.id in ignore else result)
        return tuple(results)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def chosen(checks: Sequence[Check], names: Collection[str]) -> tuple[Check, ...]:
    """Those of that name or family, all where none is named. Raises `UsageError` with the nearest name."""
    known = {*(one.id for one in checks), *(one.family for one in checks)}
    for name in names:
        if name not in known:
            near = nearest(name, known)
            raise UsageError(
                f"no check is called `{name}`",
                hint=f"did you mean `{near}`?" if near else "`sgprov doctor --list` prints the names",
            )
    return tuple(one for one in checks if not names or one.id in names or one.family in names)


def verdict(results: Sequence[CheckResult]) -> Verdict:
    outcomes = {result.outcome for result in results}
    return "blocked" if "error" in outcomes else "degraded" if "warning" in outcomes else "ready"


def _run(one: Check, context: Context) -> CheckResult:
    start = time.monotonic()
    try:
        if not one.applies(context):
            return CheckResult(check=one, outcome="not-applicable", seconds=time.monotonic() - start)
        findings = tuple(replace(finding, check=one.id) for finding in one.run(context))
    except ProvisionError as problem:
        finding = Finding(
            check=one.id,
            severity=Severity.ERROR,
            text=f"this could not be looked at: {problem}",
            fix=(problem.hint,) if problem.hint else (),
        )
        return _result(one, (finding,), time.monotonic() - start)
    except Exception as problem:  # noqa: BLE001  # one broken check must not hide what the others found
        return replace(_failed(one, f"failed: {problem!r}"), seconds=time.monotonic() - start)
    return _result(one, findings, time.monotonic() - start)


def _failed(one: Check, how: str) -> CheckResult:
    finding = Finding(
        check=one.id,
        severity=Severity.ERROR,
        text=f"the check itself {how}",
        fix=(f"`sgprov doctor --ignore {one.id}` goes on without it; report it with `sgprov facts --capture DIR`",),
    )
    return _result(one, (finding,), 0.0)


def _softened(result: CheckResult) -> CheckResult:
    findings = tuple(
        replace(finding, severity=Severity.WARNING, data={**finding.data, "ignored": True})
        if finding.severity is Severity.ERROR
        else finding
        for finding in result.findings
    )
    return _result(result.check, findings, result.seconds, applied=result.outcome != "not-applicable")


def _result(one: Check, findings: tuple[Finding, ...], seconds: float, *, applied: bool = True) -> CheckResult:
    worst = max((finding.severity for finding in findings), key=_ORDER.index, default=Severity.OK)
    outcome: Outcome = worst.value if applied else "not-applicable"
    return CheckResult(check=one, outcome=outcome, findings=findings, seconds=seconds)
