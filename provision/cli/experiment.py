"""`sgprov experiment`: what happens when a server is killed, and whether a client can change models unchanged."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click
import msgspec

from provision import config
from provision.cli import common, render
from provision.cli.output import Shown
from provision.cli.servers import find_one
from provision.errors import ServingFailed
from provision.experiments import self_heal as healing
from provision.experiments import switcheroo as switching
from provision.report import Report, Severity

if TYPE_CHECKING:
    from rich.console import Console

    from provision.experiments.self_heal import Healing


@click.group()
def experiment() -> None:
    """Try a running server: its recovery, and its portability."""


@experiment.command(name="self-heal")
@click.argument("name", required=False)
@click.option("--rounds", default=2, show_default=True, metavar="N", help="How often to kill it; the first is cold.")
@click.option("--timeout", "ready_s", default=900.0, show_default=True, metavar="SECONDS", help="Until it is ready.")
@common.prefix
@common.as_json
def self_heal(name: str | None, prefix: str | None, rounds: int, ready_s: float, *, as_json: bool) -> Shown:
    """Kill a server that is kept up (`serve start --restart`), and measure how it comes back.

    Says how long it took to notice and to be ready again, cold and with a warm cache, and whether the answer that was
    in flight was lost.
    """
    host = common.local_host()
    _, known = find_one(host, config.load({"name": name, "prefix": prefix}))
    found = healing.run(
        host, known, rounds=rounds, ready_s=ready_s, tell=lambda text: render.print_line(text, error=as_json)
    )
    return Shown(
        command="experiment",
        data={"experiment": "self-heal", "server": known.name, "rounds": [asdict(one) for one in found]},
        text=lambda screen: _show_healing(found, screen),
        changed=True,
    )


def _show_healing(found: tuple[Healing, ...], screen: Console) -> None:
    for one in found:
        cache = f"cold ({one.dropped_bytes / 1e9:.1f} GB were dropped)" if one.cold else "warm"
        fate = "was lost" if one.lost else "came to its end"
        render.line(
            screen,
            f"{cache}: noticed after {one.detect_s:.2f} s, ready after {one.ready_s:.1f} s; the answer in flight "
            f"{fate} after {one.tokens_before} tokens ({one.seen_by_client})",
        )


@experiment.command()
@click.argument("one", metavar="URL")
@click.argument("other", metavar="URL")
@click.option(
    "--timeout",
    "timeout_s",
    type=common.Seconds(most=86400),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="For each request.",
)
@common.insecure
@common.as_json
def switcheroo(one: str, other: str, timeout_s: float, *, insecure: bool, as_json: bool) -> Shown:
    """Ask two endpoints with the same client code: only the address differs.

    A key for them is taken from SGPROV_API_KEY. Exit 6 where one of them does not answer.
    """
    del as_json
    key = config.secret("SGPROV_API_KEY")
    answers, finding = switching.run((one, other), api_key=key, timeout_s=timeout_s, insecure=insecure)
    ok = finding.severity is not Severity.ERROR
    report = Report(host="", command="experiment", findings=(finding,))

    def show(screen: Console) -> None:
        for answer in answers:
            screen.print(f"{answer.url}  {answer.model or '?'}  ({answer.seconds:.2f} s)", style="bold")
            render.line(screen, f"    {answer.text or answer.problem}")
        render.show_report(report, screen)

    return Shown(
        command="experiment",
        data={
            "experiment": "switcheroo",
            "answers": [asdict(answer) for answer in answers],
            "findings": msgspec.to_builtins((finding,)),
        },
        text=show,
        ok=ok,
        exit_status=0 if ok else ServingFailed.exit_status,
    )
