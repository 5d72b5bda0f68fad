"""`sgprov doctor`: what is wrong with this machine, and which command mends it."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import click
import msgspec

from provision import bootstrap, config
from provision.checks.base import NETWORK_WAIT_S, Check, Context
from provision.checks.registry import CHECKS
from provision.checks.run import CheckResult, chosen, run_checks, verdict
from provision.checks.sight import look
from provision.cli import common, doctor_text
from provision.cli.output import Shown
from provision.config import Options
from provision.host import HostView

if TYPE_CHECKING:
    from rich.console import Console

CHECK_FAILED = 4


@click.command()
@click.argument("checks", nargs=-1, metavar="[CHECK|FAMILY]...")
@click.option("--list", "as_list", is_flag=True, help="Print the checks instead of running them.")
@click.option("--explain", metavar="CHECK", help="Print what a check looks at, why it matters and what mends it.")
@click.option("--ignore", metavar="CHECK,...", help="Let errors of these checks through as warnings.")
@click.option("--verbose", "-v", is_flag=True, help="Show what is well, too.")
@click.option(
    "--wait", type=float, default=NETWORK_WAIT_S, metavar="SECONDS", help="How long a host may take to answer."
)
@common.wishes
@common.replayed
@common.as_json
def doctor(
    checks: tuple[str, ...],
    *,
    ignore: str | None,
    explain: str | None,
    file: str | None,
    folder: str | None,
    wait: float,
    as_list: bool,
    verbose: bool,
    as_json: bool,
    **flags: Any,
) -> Shown:
    """Say what is wrong with this machine, and which command mends it.

    Looks only, and never repairs. Without --target it looks at what the best fitting target needs. Ends with ready,
    degraded or blocked, and the next command; exit status 4 where something blocks.
    """
    del as_json
    if explain or as_list:
        return _told(chosen(CHECKS, (explain,) if explain else checks), pages=bool(explain))
    wanted = chosen(CHECKS, checks)
    ignored = tuple(one.id for one in chosen(CHECKS, names)) if (names := _names(ignore)) else ()
    start = time.monotonic()
    context = _context(common.view(folder), common.options(file, flags), local=folder is None, wait=wait)
    results = run_checks(wanted, context, ignore=ignored)
    seconds = time.monotonic() - start
    outcome = verdict(results)
    following = next_command(context, results)
    return Shown(
        command="doctor",
        data={
            "verdict": outcome,
            "next": following,
            "host": context.facts.host,
            "target": context.target.name if context.target else None,
            "seconds": round(seconds, 3),
            "findings": [msgspec.to_builtins(finding) for result in results for finding in result.findings],
            "checks": [
                {"id": result.check.id, "status": result.outcome, "seconds": round(result.seconds, 4)}
                for result in results
            ],
        },
        text=lambda screen: doctor_text.show(
            context, results, verdict=outcome, following=following, seconds=seconds, verbose=verbose, screen=screen
        ),
        ok=outcome != "blocked",
        exit_status=CHECK_FAILED if outcome == "blocked" else 0,
    )


def next_command(context: Context, results: tuple[CheckResult, ...]) -> str:
    """What to do now: the remedy of the first error; else what brings the target to serve, or proves that it does."""
    for result in results:
        for finding in result.findings:
            if finding.severity.value == "error" and finding.fix:
                return _command(finding.fix[0])
    name = context.target.name if context.target else None
    running = {result.check.id: result for result in results}.get("server-alive")
    if running and running.outcome == "ok":
        return "sgprov smoke"
    return f"sgprov bootstrap --target {name}" if name else "sgprov targets"


def _command(fix: str) -> str:
    """The command that a remedy begins with, or the whole of one that is no command."""
    found = re.match(r"`([^`]+)`", fix)
    return found[1] if found else fix


def _context(view: HostView, wishes: Options, *, local: bool, wait: float) -> Context:
    # A recorded machine has no secrets, and those of this one say nothing of it.
    return look(
        bootstrap.question(view, wishes),
        view,
        credential=config.secret if local else lambda _: None,
        local=local,
        network_wait_s=wait,
    )


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def _told(checks: tuple[Check, ...], *, pages: bool) -> Shown:
    fields = ("id", "family", "title", "looks_at", "why", "remedy")
    rows = [{name: getattr(one, name) for name in fields} for one in checks]

    def text(screen: Console) -> None:
        (doctor_text.show_pages if pages else doctor_text.show_list)(checks, screen)

    return Shown(command="doctor", data={"checks": rows}, text=text)
