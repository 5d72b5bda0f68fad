"""What `sgprov doctor` shows to people: what matters, by family, folded to the width of the terminal."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from provision.checks.base import Check, Context
from provision.checks.run import CheckResult, Outcome, Verdict
from provision.report import Finding, Severity
from provision.secrets import mask

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
# Longer lines are hard to read, however wide the terminal.
_WIDEST = 120
_COMMAND = re.compile(r"`[^`]+`")
# Stands for a blank at which no line is broken.
_BOUND = "\x00"


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
            screen.print(f"[bold]{family}[/]")
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
    _fold(f"{len(results)} checks in {seconds:.2f} s: {', '.join(parts)}", screen, style="dim")
    screen.print(f"[{_VERDICTS[verdict]}]{verdict}[/]", end="")
    screen.print(f": {_meaning(context, verdict)}", markup=False)
    screen.print("[bold]next[/]: ", end="")
    _fold(mask(following), screen, style="cyan", first=6)


def show_list(checks: Sequence[Check], screen: Console) -> None:
    """A table of ids and titles, by family."""
    width = max((len(one.id) for one in checks), default=0)
    for family, group in groupby(checks, key=lambda one: one.family):
        screen.print(f"[bold]{family}[/]")
        for one in group:
            screen.print(f"  [cyan]{one.id:<{width}}[/]  ", end="")
            _fold(one.title, screen, first=width + 4, indent=width + 4)


def show_pages(checks: Sequence[Check], screen: Console) -> None:
    """Everything there is to say of each check."""
    for one in checks:
        screen.print(f"[bold]{one.id}[/]  ", end="")
        screen.print(f"({one.family})", markup=False, style="dim")
        _fold(f"{one.title}.", screen)
        for name, text in (("looks at", one.looks_at), ("why", one.why), ("remedy", one.remedy)):
            screen.print(f"[bold]{name:<10}[/]", end="")
            _fold(text, screen, first=10, indent=10)


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
    return mask(finding.text) + (" (ignored)" if finding.data.get("ignored") else "")


def _show_row(sign: str, name: str, text: str, fixes: tuple[str, ...], screen: Console) -> None:
    mark, style = _SIGNS[sign]
    screen.print(f"  [{style}]{mark}[/] [bold]{name}[/]  ", end="")
    first, *rest = text.splitlines() or [""]
    _fold(first, screen, first=len(name) + 6, indent=4)
    for line in rest:
        _fold("    " + line, screen, indent=4 + len(line) - len(line.lstrip()) + 2)
    for fix in fixes:
        _fold(f"    →{_BOUND}{mask(fix)}", screen, style="cyan", indent=6)


def _meaning(context: Context, verdict: Verdict) -> str:
    if context.target is None and verdict == "blocked":
        return "nothing can serve here before that is mended"
    name = f"`{context.target.name}`" if context.target else "a target"
    return {
        "ready": f"nothing keeps {name} from serving here",
        "degraded": f"{name} can serve here, with what is said above",
        "blocked": f"{name} cannot serve here before that is mended",
    }[verdict]


def _fold(text: str, screen: Console, *, style: str | None = None, first: int = 0, indent: int = 4) -> None:
    """Print text folded to a terminal's width; whole where nobody's terminal is: a log wants whole lines.

    `first` columns of the first line are taken already, the others begin with `indent` blanks.
    """
    if not screen.is_terminal:
        screen.print(text.replace(_BOUND, " "), markup=False, style=style)
        return
    leading = len(text) - len(text.lstrip())
    lines = textwrap.wrap(
        # A command is copied: it stays in one piece, on a line of its own where it is long.
        _COMMAND.sub(lambda found: found[0].replace(" ", _BOUND), text.strip()),
        width=max(min(screen.width, _WIDEST), 40),
        initial_indent=" " * (first + leading),
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    lines[:1] = [line[first:] for line in lines[:1]]
    screen.print("\n".join(lines).replace(_BOUND, " "), markup=False, style=style)
