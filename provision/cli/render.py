"""The only module that prints: text for people, one JSON object for programs."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from provision import errors
from provision.cli.interrupts import TEXT as INTERRUPTED_TEXT
from provision.cli.program import runnable
from provision.output import json_text, readable, sayable
from provision.report import Finding, Report, Severity, Status

if TYPE_CHECKING:
    from rich.console import Console

    from provision.cli.output import Shown
    from provision.errors import ProvisionError

_SEVERITY = {
    Severity.OK: ("✓", "green"),
    Severity.INFO: ("·", "cyan"),
    Severity.WARNING: ("!", "yellow"),
    Severity.ERROR: ("✗", "red"),
}
_STATUS = {
    Status.DONE: ("✓", "green"),
    Status.CHECKED: ("✓", "green"),
    Status.ALREADY: ("=", "green"),
    Status.WOULD: ("~", "cyan"),
    Status.SKIPPED: ("-", "dim"),
    Status.FAILED: ("✗", "red"),
    Status.NOT_REACHED: (" ", "dim"),
}

_LABELS = {Status.ALREADY: "already true", Status.WOULD: "would change", Status.NOT_REACHED: "not reached"}


def console(*, error: bool = False) -> Console:
    """A terminal for people. Wide lines are not folded where nobody's terminal is: a log wants whole lines."""
    from provision.cli.screen import Screen  # noqa: PLC0415  # 60 ms that JSON does not pay

    return Screen(error=error)


def show(shown: Shown, *, as_json: bool, notices: Sequence[Finding] = ()) -> None:
    """One result: JSON alone on stdout, or text. `notices` have been shown to people already."""
    if as_json:
        told = shown.to_json()
        if notices:
            told["findings"] = [*map(_plain, notices), *told.get("findings", ())]
        print_json(told)
    else:
        shown.text(console())
        sys.stdout.flush()


def print_json(value: dict[str, Any]) -> None:
    """One object on stdout, with every credential in it masked."""
    print(json_text(value, sys.stdout.encoding or "utf-8"), flush=True)


def show_error(error: ProvisionError, *, command: str, as_json: bool, notices: Sequence[Finding] = ()) -> None:
    """`error: …` and `hint: …` for people; the same as an object, on stdout, for programs."""
    text, hint = str(error), error.hint
    if as_json:
        findings = [_plain(finding) for finding in (*notices, *error.findings)]
        _print_json_error(command, _told(error.code, error.exit_status, text, hint), findings)
        return
    screen = console(error=True)
    # A check that keeps a command from going on is its own finding: that is said once.
    told = tuple(finding for finding in error.findings if finding.text != str(error))
    _show_findings(told, screen)
    _show_failure(text, hint, screen)


def show_notice(finding: Finding) -> None:
    """What is said beside a result, on stderr, whatever form the result has."""
    _show_findings((finding,), console(error=True))


def show_interrupted(*, command: str, as_json: bool) -> None:
    if as_json:
        _print_json_error(command, _told("interrupted", errors.INTERRUPTED, INTERRUPTED_TEXT))
    else:
        line(console(error=True), INTERRUPTED_TEXT)


def show_bug(error: Exception, *, command: str, as_json: bool) -> None:
    """A traceback on stderr, which only a bug of ours shows; and what it comes to, in the form that was asked for."""
    print_line("".join(traceback.format_exception(error)), error=True)
    text = f"{type(error).__name__}: {error}"
    hint = "this is a bug of sgprov: report it with the lines above and `sgprov facts --capture DIR`"
    if as_json:
        _print_json_error(command, _told(errors.ProvisionError.code, errors.ProvisionError.exit_status, text, hint))
    else:
        _show_failure(text, hint, console(error=True))


def _print_json_error(command: str, told: dict[str, Any], findings: Sequence[Any] = ()) -> None:
    found = {"findings": list(findings)} if findings else {}
    print_json({"schema": f"sgprov.{command}/1", "ok": False, "changed": False, "error": told, **found})


def _told(code: str, exit_status: int, text: str, hint: str | None = None) -> dict[str, Any]:
    return {"code": code, "exit_status": exit_status, "text": text, "hint": hint}


def _plain(finding: Finding) -> dict[str, Any]:
    import msgspec  # noqa: PLC0415  # only where there is one

    plain: dict[str, Any] = msgspec.to_builtins(finding)
    return plain


def show_report(report: Report, screen: Console, *, steps: bool = True) -> None:
    """Steps in order, then what there is to say, errors last so that they stand next to the prompt."""
    if steps:
        for step in report.steps:
            show_step(step.step, step.status, step.note, step.seconds, screen)
    _show_findings(report.findings, screen)
    for step in report.steps:
        if step.status is Status.FAILED:
            _show_failure(step.error or "the step did not succeed", step.hint, screen)


def _show_findings(findings: Sequence[Finding], screen: Console) -> None:
    order = [Severity.OK, Severity.INFO, Severity.WARNING, Severity.ERROR]
    for finding in sorted(findings, key=lambda finding: order.index(finding.severity)):
        sign, style = _SEVERITY[finding.severity]
        took = f" ({finding.seconds:.2f} s)" if finding.seconds is not None else ""
        line(screen, (sign, style), " ", (finding.check, "bold"), "  ", finding.text, took)
        for fix in finding.fix:
            line(screen, (f"    → {fix}", "cyan"), indent=6)


def _show_failure(text: str, hint: str | None, screen: Console) -> None:
    line(screen, ("error:", "bold red"), " ", text)
    if hint:
        line(screen, ("hint:", "bold cyan"), " ", hint)


def show_step(
    name: str, status: Status, note: str, seconds: float, screen: Console, *, told: str | None = None
) -> None:
    """A step in a line: its sign, name, what became of it (or `told`), what it found or did, and how long it took."""
    sign, style = _STATUS[status]
    said = told or label(status)
    took = f"  {seconds:.1f} s" if seconds >= 0.1 else ""  # noqa: PLR2004  # below that nobody waited
    line(screen, (sign, style), f" {name:<14}", (f"{said:<14}{note}{took}", "dim" if style == "dim" else ""))


def line(screen: Console, *parts: str | tuple[str, str], indent: int = 4) -> None:
    """Plain words and (words, style), printed at once: a live display would break it in between.

    What a terminal is too narrow for is folded, and goes on behind `indent` blanks.
    """
    from rich.text import Text  # noqa: PLC0415  # as above

    from provision.cli.folding import folded  # noqa: PLC0415  # JSON does not pay for it

    clean = [_clean(part) if isinstance(part, str) else (_clean(part[0]), part[1]) for part in parts]
    screen.print(Text("\n").join(folded(Text.assemble(*clean), screen, indent=indent)))


def _clean(text: str) -> str:
    return readable(runnable(text))


def show_secret(screen: Console, before: str, secret: str, behind: str) -> None:
    """A line with a secret that is shown this once, to whoever asked for it to be made."""
    from rich.text import Text  # noqa: PLC0415  # as above

    screen.print(Text.assemble(before, secret, behind))


def label(status: Status) -> str:
    """What a status is called where people read it."""
    return _LABELS.get(status, status.value)


def is_heard() -> bool:
    """Whether anybody may still read stdout: what only follows something has nothing else to go on for."""
    return bool(getattr(sys.stdout, "heard", True))


def show_help(text: str) -> None:
    """Help that nobody asked for, where a command was left out: beside the result that there is not."""
    print(sayable(text, sys.stderr.encoding or "utf-8"), file=sys.stderr, flush=True)


def print_line(text: str, *, error: bool = False) -> None:
    """A plain line, for what is not a terminal; flushed, because someone is following."""
    stream = sys.stderr if error else sys.stdout
    print(sayable(readable(text), stream.encoding or "utf-8"), file=stream, flush=True)
