"""`sgprov serve`: start, stop and look at servers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from provision import bootstrap, config
from provision.cli import common, endpoint, keeping_up, progress, render, telemetry
from provision.cli.bootstrap import report_data
from provision.cli.output import Shown
from provision.errors import ServingFailed, StepFailed, UsageError
from provision.host import HostView
from provision.host.local import LocalHost
from provision.remembered import prefixes
from provision.serving import contained, keys, log, record, relaunch, server, supervisor
from provision.serving.failed_launch import diagnosed
from provision.serving.status import Status, status

if TYPE_CHECKING:
    from rich.console import Console

    from provision.plan import Plan
    from provision.report import Report

name_argument = click.argument("name", required=False)
_STYLE = {"running": "green", "starting": "cyan", "stopped": "dim"}


@click.group()
def serve() -> None:
    """Start, stop and look at servers.

    A server is known by its NAME (the target's, unless bootstrap was told another); it can be left out where there is
    only one.
    """


@serve.command(cls=common.HandsOn)
@name_argument
@common.wishes
@click.option("--free-port", is_flag=True, help="Stop whoever listens on the port, after naming them.")
@click.option("--restart", "self_healing", is_flag=True, help="Start it again whenever it dies.")
@common.as_json
def start(
    name: str | None,
    file: str | None,
    extra: tuple[str, ...],
    *,
    free_port: bool,
    self_healing: bool,
    as_json: bool,
    **flags: Any,
) -> Shown:
    """Start a server and wait until it is ready.

    With --target it is started with that target's settings, from the environment that `sgprov bootstrap` installed;
    without, again with what it was started with the last time (after a rollback, from the environment gone back to).
    """
    host, wishes = common.local_host(), common.options(file, {**flags, "name": name}, extra)
    if not wishes.target:
        _refuse_settings(flags, extra, free_port=free_port)
        return _start_again(host, wishes, self_healing=self_healing, as_json=as_json)
    key = config.secret("SGPROV_API_KEY")
    restarts = keeping_up.RESTARTS if self_healing else 0
    manner = bootstrap.Manner(only=("port", "server"), free_port=free_port, restarts=restarts, api_key=key)
    with progress.watching(as_json=as_json) as watcher:
        plan = bootstrap.make_plan(host, wishes, manner)
        lacking = next(
            (s for s in plan.steps if s.id in {"environment", "model", "image"} and not s.satisfied(host)), None
        )
        if lacking:
            raise StepFailed(
                f"nothing to serve from yet: {lacking.preview()}",
                hint=f"`sgprov bootstrap --target {wishes.target}` does that first",
            )
        watcher.decided(plan)
        report = bootstrap.carry_out(plan, host, dry_run=False, watcher=watcher)
    if self_healing and report.ok:
        kept_up = keeping_up.keep(host, wishes, bootstrap.name_of(plan))
        report = replace(report, data={**report.data, "kept_up": kept_up})
    return Shown(
        command="serve",
        data=report_data(report),
        text=lambda screen: _started(report, plan, screen),
        ok=report.ok,
        changed=report.changed,
        exit_status=report.exit_status,
    )


def _started(report: Report, plan: Plan, screen: Console) -> None:
    render.show_report(report, screen, steps=False)
    if report.ok:
        endpoint.show_key(screen, plan)


def _refuse_settings(flags: dict[str, Any], extra: tuple[str, ...], *, free_port: bool) -> None:
    """Raise `UsageError` for settings that a server which is only started again would not get."""
    given = [f"--{name.replace('_', '-')}" for name, value in flags.items() if value is not None and name != "prefix"]
    given += ["--free-port"] if free_port else []
    given += ["--"] if extra else []
    if given:
        raise UsageError(
            f"{', '.join(f'`{flag}`' for flag in given)}: a server that is started again has the settings it had",
            hint="name the `--target` too, and it is started with others",
        )


def _start_again(host: LocalHost, wishes: config.Options, *, self_healing: bool, as_json: bool) -> Shown:
    servers, known = find_one(host, wishes)
    if status(host, known).health == "running":
        shown = _one(host, known, changed=False)
    else:
        shown = _restarted(host, servers, known, as_json=as_json)
    if self_healing and shown.ok:
        kept_up = keeping_up.keep(host, replace(wishes, prefix=servers.removesuffix("/servers")), known.name)
        shown = replace(shown, data={**shown.data, "kept_up": kept_up}, changed=True)
    return shown


@serve.command()
@name_argument
@common.prefix
@common.as_json
def restart(name: str | None, prefix: str | None, *, as_json: bool) -> Shown:
    """Stop a server and start it again with the same settings; after a rollback, from the environment gone back to."""
    host, wishes = common.local_host(), config.load({"name": name, "prefix": prefix})
    servers, known = find_one(host, wishes)
    shown = _restarted(host, servers, known, as_json=as_json)
    if known.supervised and shown.ok:
        keeping_up.keep(host, replace(wishes, prefix=servers.removesuffix("/servers")), known.name)
    return shown


@serve.command(hidden=True)
@click.argument("name")
@common.prefix
def supervise(name: str, prefix: str | None) -> int:
    """Keep a server up until it is stopped: what `start --restart` runs in the background. Exit 6 when it gives up."""
    host = common.local_host()
    servers, _ = find_one(host, config.load({"name": name, "prefix": prefix}))
    supervisor.supervise(host, servers, name=name, tell=render.print_line)
    return 0


@serve.command()
@name_argument
@common.prefix
@click.option("--all", "everyone", is_flag=True, help="Stop all servers.")
@common.as_json
def stop(name: str | None, prefix: str | None, *, everyone: bool, as_json: bool) -> Shown:
    """Stop a server with everything that it started; the port and the memory are free afterwards."""
    del as_json
    host, wishes = common.local_host(), config.load({"name": name, "prefix": prefix})
    those = _all(host, wishes) if everyone else [find_one(host, wishes)]
    stopped = [known.name for servers, known in those if server.stop(host, servers, name=known.name)]
    text = f"stopped {', '.join(stopped)}" if stopped else "nothing was running"
    return Shown(
        command="serve",
        data={"stopped": stopped},
        text=lambda screen: screen.print(text),
        changed=bool(stopped),
    )


@serve.command(name="status")
@name_argument
@common.prefix
@common.as_json
def show_status(name: str | None, prefix: str | None, *, as_json: bool) -> Shown:
    """Say how the servers are: asked of their processes, their logs and themselves. Exit 6 where one is not well."""
    del as_json
    host, wishes = common.local_host(), config.load({"name": name, "prefix": prefix})
    those = [find_one(host, wishes)] if name else _all(host, wishes)
    found = [status(host, known) for _, known in those]
    wrong = [one for one in found if one.health in {"dead", "unhealthy"}]
    return Shown(
        command="serve",
        data={"servers": [_row(one) for one in found]},
        text=lambda screen: _show(found, screen, f"no server was ever started here{_looked_at(host, wishes)}"),
        ok=not wrong,
        exit_status=ServingFailed.exit_status if wrong else 0,
    )


@serve.command()
@name_argument
@common.prefix
@click.option("--follow", "-f", is_flag=True, help="Go on as it grows.")
@click.option(
    "--lines",
    "-n",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    metavar="N",
    help="How many lines, from the end.",
)
@click.option("--explain", is_flag=True, help="Say what the lines mean: requests, queue, cache and throughput.")
@common.as_json
def logs(
    name: str | None, prefix: str | None, *, follow: bool, lines: int, explain: bool, as_json: bool
) -> Shown | int:
    """Show a server's log, with secrets masked; or what it says of the server's work (--explain)."""
    if follow and as_json:
        raise UsageError("`--follow` has no end, and `--json` prints one object", hint="leave one of them out")
    host, wishes = common.local_host(), config.load({"name": name, "prefix": prefix})
    _, known = find_one(host, wishes)
    known = contained.adopt(host, known)
    # Read, so that it is masked wherever the log has it.
    keys.of(host, known.directory)
    if as_json:
        return _log_data(known, lines=lines, explain=explain)
    if explain:
        telemetry.show(log.Tail(known.log).remaining(), log.follow(known.log) if follow else ())
        return 0
    for line in _last(known, lines):
        render.print_line(line)
    if follow:
        for line in log.follow(known.log):
            render.print_line(line)
    return 0


def _log_data(known: record.Server, *, lines: int, explain: bool) -> Shown:
    data: dict[str, Any] = {"name": known.name, "log": known.log}
    if explain:
        data["telemetry"] = telemetry.fold(log.Tail(known.log).remaining()).to_builtins()
    else:
        data["lines"] = list(_last(known, lines))
    return Shown(command="serve", data=data, text=lambda _: None)


def _last(known: record.Server, lines: int) -> tuple[str, ...]:
    return log.last_lines(known.log, lines) if lines else ()


def _all(view: HostView, wishes: config.Options) -> list[tuple[str, record.Server]]:
    """(directory of servers, record) of every server that was ever started."""
    found = []
    for prefix in prefixes(view, wishes):
        servers = f"{prefix}/servers"
        for name in record.names(view, servers):
            known = record.load(view, record.directory_of(servers, name))
            if known:
                found.append((servers, known))
    return found


def _looked_at(view: HostView, wishes: config.Options) -> str:
    """` (under DIR, DIR)`, where there was anything to look at."""
    places = ", ".join(prefixes(view, wishes))
    return f" (under {places})" if places else ""


def find_one(view: HostView, wishes: config.Options) -> tuple[str, record.Server]:
    """The server of that name, or the only one. Raises `UsageError` with the names there are."""
    everyone = _all(view, wishes)
    those = [one for one in everyone if wishes.name in {None, one[1].name}]
    if len(those) == 1:
        return those[0]
    names = ", ".join(f"`{known.name}`" for _, known in everyone)
    if not everyone:
        raise UsageError(
            f"no server was ever started here{_looked_at(view, wishes)}",
            hint="`sgprov bootstrap` starts one; `--prefix DIR` looks elsewhere",
        )
    if not those:
        raise UsageError(f"there is no server `{wishes.name}`", hint=f"there are {names}")
    raise UsageError("there are several servers", hint=f"name one of {names}")


def _restarted(host: LocalHost, servers: str, known: record.Server, *, as_json: bool) -> Shown:
    launch, stack = relaunch.launch_of(host, servers.removesuffix("/servers"), known)
    undone = server.undone_if_interrupted(host, servers, name=known.name)
    with progress.phases(known.name, as_json=as_json) as tell, undone:
        started = server.restart(host, servers, name=known.name, launch=launch, stack=stack)
        with diagnosed(started.log):
            ready = server.wait_until_ready(host, started, tell=tell)
    return _one(host, ready, changed=True)


def _one(view: HostView, known: record.Server, *, changed: bool) -> Shown:
    found = status(view, known)
    return Shown(
        command="serve",
        data={"servers": [_row(found)]},
        text=lambda screen: _show([found], screen),
        ok=found.health == "running",
        changed=changed,
        exit_status=0 if found.health == "running" else ServingFailed.exit_status,
    )


def _row(one: Status) -> dict[str, Any]:
    return {**one.server.public(), "health": one.health, "text": one.text, "pids": list(one.pids), "up_s": one.up_s}


def _show(found: list[Status], screen: Console, otherwise: str = "") -> None:
    if not found:
        screen.print(otherwise)
    for one in found:
        style = _STYLE.get(one.health, "red")
        render.line(screen, (f"{one.name:<18}", "bold"), " ", (f"{one.health:<10}", style), " ", one.text)
        up = f"up {one.up_s:.0f} s, {len(one.pids)} processes, " if one.up_s is not None else ""
        screen.print(f"    {one.server.stack or one.server.engine}, {up}log {one.server.log}", style="dim")
