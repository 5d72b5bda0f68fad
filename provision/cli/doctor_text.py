"""What `sgprov doctor` shows to people: what matters, by family, folded to the width of the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from provision.checks.base import Check, Context
from provision.checks.run import CheckResult, Outcome, Verdict
from provision.cli import render
from provision.report import Finding, Severity

if TYPE_CHECKING:
    from rich.console import Console

_SIGNS = {
    "error": ("✗", "red"),
    "warning": ("!", "yellow"),
    "info": ("·", "cyan"),
    "ok": ("✓", "green"),
}
_VERDICTS: dict[Verdict, str] = {"ready": "bold green", "degraded": "bold yellow", "blocked": "bold red"}
_ORDER = (Severity.ERROR, Severity.WARNING, Severity.INFO, Severity.OK)


def show(
    context: Context,
    results: Sequence[CheckResult],
    *,
    verdict: Verdict,
    following: str,
    seconds: float,
    verbose: bool,
    screen: Console,
) -> None:
    """Errors and warnings by family, one line for the rest, the verdict and the next command last."""
    shown = [result for result in results if verbose or result.outcome in {"error", "warning"}]
    for family, group in groupby(shown, key=lambda result: result.check.family):
        rows = [row for result in group for row in _rows(result, verbose=verbose)]
        if rows:
            render.line(screen, (family, "bold"))
        for sign, name, text, fixes in rows:
            _show_row(sign, name, text, fixes, screen)
    counted = Counter(result.outcome for result in results)
    kinds: tuple[tuple[Outcome, str], ...] = (
        ("error", "error"),
        ("warning", "warning"),
        ("ok", "well"),
        ("info", "to know"),
    )
    parts = [_counted(counted[outcome], word) for outcome, word in kinds if counted[outcome]]
    if counted["not-applicable"]:
        parts.append(f"{counted['not-applicable']} not for this host")
    if shown:
        screen.print()
    render.line(screen, (f"{len(results)} checks in {seconds:.2f} s: {', '.join(parts)}", "dim"))
    render.line(screen, (verdict, _VERDICTS[verdict]), f": {_meaning(context, verdict)}")
    render.line(screen, ("next", "bold"), ": ", (following, "cyan"))


def show_list(checks: Sequence[Check], screen: Console) -> None:
    """A table of ids and titles, by family."""
    width = max((len(one.id) for one in checks), default=0)
    for family, group in groupby(checks, key=lambda one: one.family):
        render.line(screen, (family, "bold"))
        for one in group:
            render.line(screen, "  ", (f"{one.id:<{width}}", "cyan"), f"  {one.title}", indent=width + 4)


def show_pages(checks: Sequence[Check], screen: Console) -> None:
    """Everything there is to say of each check."""
    for one in checks:
        render.line(screen, (one.id, "bold"), "  ", (f"({one.family})", "dim"))
        render.line(screen, f"{one.title}.")
        for name, text in (("looks at", one.looks_at), ("why", one.why), ("remedy", one.remedy)):
            render.line(screen, (f"{name:<10}", "bold"), text, indent=10)


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'s' if count > 1 and word in {'error', 'warning'} else ''}"


def _rows(result: CheckResult, *, verbose: bool) -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    findings = sorted(result.findings, key=lambda finding: _ORDER.index(finding.severity))
    for finding in findings:
        if verbose or finding.severity in {Severity.ERROR, Severity.WARNING}:
            yield finding.severity.value, finding.check, _text(finding), finding.fix
    if not findings and result.outcome == "ok":
        yield "ok", result.check.id, result.check.title, ()


def _text(finding: Finding) -> str:
    return finding.text + (" (ignored)" if finding.data.get("ignored") else "")


def _show_row(sign: str, name: str, text: str, fixes: tuple[str, ...], screen: Console) -> None:
    mark, style = _SIGNS[sign]
    told = "\n    ".join(text.splitlines())
    render.line(screen, "  ", (mark, style), " ", (name, "bold"), f"  {told}")
    for fix in fixes:
        render.line(screen, (f"    → {fix}", "cyan"), indent=6)


def _meaning(context: Context, verdict: Verdict) -> str:
    if context.target is None and verdict == "blocked":
        return "nothing can serve here before that is mended"
    name = f"`{context.target.name}`" if context.target else "a target"
    return {
        "ready": f"nothing keeps {name} from serving here",
        "degraded": f"{name} can serve here, with what is said above",
        "blocked": f"{name} cannot serve here before that is mended",
    }[verdict]
