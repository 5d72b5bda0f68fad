"""`sgprov bootstrap`: take this machine to a verified endpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from provision import bootstrap as bootstrapping
from provision import config
from provision.cli import common, endpoint, places, progress, render
from provision.cli.output import Shown
from provision.host.local import LocalHost
from provision.plan import Plan, preflight_failures
from provision.report import Report

if TYPE_CHECKING:
    from rich.console import Console

    from provision.bundle.carried import Carried


@click.command(cls=common.HandsOn)
@common.wishes
@common.server_name
@common.forget
@click.option("--free-port", is_flag=True, help="Stop whoever listens on the port, after naming them.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, change nothing.")
@click.option("--only", multiple=True, metavar="STEP", help="Take these steps only (repeatable).")
@click.option("--skip", multiple=True, metavar="STEP", help="Leave these steps out (repeatable).")
@click.option("--no-smoke", is_flag=True, help="Install and switch, without a launch and its smoke test.")
@click.option("--stop", is_flag=True, help="Stop the server again once it is verified.")
@click.option("--bundle", metavar="FILE|DIR", help="Take everything from this bundle; nothing is fetched.")
@common.as_json
def bootstrap(
    file: str | None,
    *,
    bundle: str | None,
    only: tuple[str, ...],
    skip: tuple[str, ...],
    extra: tuple[str, ...],
    forget: tuple[str, ...],
    free_port: bool,
    dry_run: bool,
    no_smoke: bool,
    stop: bool,
    as_json: bool,
    **flags: Any,
) -> Shown:
    """Take this machine to a verified endpoint: install, launch, test, and only then switch.

    Without --target it takes that of the server here, else the one that fits best, and says why. Run it again after
    anything went wrong: what is already true is left alone, and what the server was asked for holds again. What stands
    behind `--` is handed to the engine.
    """
    host = common.local_host()
    manner = bootstrapping.Manner(
        only=only,
        skip=skip,
        smoke=not no_smoke,
        free_port=free_port,
        api_key=config.secret("SGPROV_API_KEY"),
        wheels=config.secret(config.WHEELS_VARIABLE),
        forget=forget,
    )
    wishes = common.options(file, flags, extra)
    carried = None
    if bundle:
        from provision.bundle.carried import Carried  # noqa: PLC0415  # only with a bundle

        with progress.bytes_of("verifying the bundle", as_json=as_json) as tell:
            carried = Carried.open(host, Path(bundle), wishes, tell)
        wishes, host, manner = carried.wishes, carried.host, replace(manner, wheels=carried.wheels)
    with progress.watching(as_json=as_json) as watcher:
        plan = bootstrapping.make_plan(host, wishes, manner)
        watcher.decided(plan, plan.to_fetch(host))
    report = _carry_out(plan, host, carried, dry_run=dry_run, as_json=as_json)
    if stop and report.ok and not dry_run:
        bootstrapping.stop(host, plan)
    return Shown(
        command="bootstrap",
        data=report_data(report),
        text=lambda screen: _show(
            report, plan, screen, stopped=stop, place=places.flag_for(host, plan.decision.places.prefix)
        ),
        ok=report.ok,
        changed=report.changed,
        exit_status=report.exit_status,
    )


def _carry_out(plan: Plan, host: LocalHost, carried: Carried | None, *, dry_run: bool, as_json: bool) -> Report:
    """Carry out a plan, between the unpacking of what a bundle carries for it and the end of that."""
    # What would fail all the same is told before anything is unpacked.
    if carried and not dry_run and not preflight_failures(plan, bootstrapping.for_target(host, plan)):
        with progress.bytes_of("unpacking the bundle", as_json=as_json) as tell:
            carried.unpack(plan, tell)
    with progress.watching(as_json=as_json) as watcher:
        report = bootstrapping.carry_out(plan, host, dry_run=dry_run, watcher=watcher)
    if carried and report.ok and not dry_run:
        carried.clear()
    return report


def report_data(report: Report) -> dict[str, Any]:
    """A report as plain data, but for `schema`, `ok` and `changed`."""
    return {
        "host": report.host,
        "target": report.target,
        "exit_status": report.exit_status,
        "steps": msgspec.to_builtins(report.steps),
        "findings": msgspec.to_builtins(report.findings),
        **report.data,
    }


def _show(report: Report, plan: Plan, screen: Console, *, stopped: bool, place: str) -> None:
    render.show_report(report, screen, steps=False)
    if not report.ok or not report.data.get("endpoint"):
        return
    name = bootstrapping.name_of(plan)
    if stopped:
        command = f"sgprov serve start {name}{place}"
        render.line(screen, "verified, and stopped again: ", (command, "bold"), " brings it back")
        endpoint.show_key(screen, plan)
        return
    endpoint.show(screen, report, plan, name=name, place=place)
