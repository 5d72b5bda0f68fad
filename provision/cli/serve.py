"""`sgprov serve`: start, stop and look at servers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from provision import bootstrap, config
from provision.cli import common, endpoint, keeping_up, progress, render, server_status, servers, telemetry
from provision.cli.bootstrap import report_data
from provision.cli.output import Shown
from provision.cli.servers import Place
from provision.errors import ProvisionError, ServingFailed, StepFailed, UsageError
from provision.host import HostView
from provision.host.local import LocalHost
from provision.serving import contained, keys, log, record, relaunch, server, supervisor, watchman
from provision.serving.ending import GRACE_S, Ended, counted
from provision.serving.failed_launch import diagnosed
from provision.serving.status import status
from provision.steps.server import gone_back

if TYPE_CHECKING:
    from rich.console import Console

    from provision.plan import Plan
    from provision.report import Report

name_argument = click.argument("name", required=False)
_grace = click.option(
    "--grace",
    type=click.FloatRange(min=0, max=3600),
    default=GRACE_S,
    show_default=True,
    metavar="SECONDS",
    help="How long requests that it has taken may go on.",
)


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

    With --target it is started with that target's settings and what it was asked for before, from the environment that
    `sgprov bootstrap` installed; without, again with what it was started with the last time (after a rollback, from the
    environment gone back to).
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
    place = servers.one(host, wishes)
    known = server.known(host, place.servers, name=place.name)
    if status(host, known).health == "running":
        damaged = record.damage(host, place.directory) is not None
        if damaged:
            # It runs with what it would be started with: its record alone is made anew.
            known = server.start(host, place.servers, known.launch, name=place.name, stack=known.stack, tell=_told)
        shown = _one(host, known, changed=damaged)
    else:
        shown = _restarted(host, place, as_json=as_json)
    if self_healing and shown.ok:
        kept_up = keeping_up.keep(host, replace(wishes, prefix=place.prefix), place.name)
        shown = replace(shown, data={**shown.data, "kept_up": kept_up}, changed=True)
    return shown


@serve.command()
@name_argument
@common.prefix
@_grace
@common.as_json
def restart(name: str | None, prefix: str | None, *, grace: float, as_json: bool) -> Shown:
    """Stop a server and start it again with the same settings; after a rollback, from the environment gone back to.

    What serves is stopped only after a look at whether it can be started again.
    """
    host, wishes = common.local_host(), config.load({"name": name, "prefix": prefix})
    return _restarted(host, servers.one(host, wishes), as_json=as_json, grace_s=grace)


@serve.command(hidden=True)
@click.argument("name")
@common.prefix
def supervise(name: str, prefix: str | None) -> int:
    """Keep a server up until it is stopped: what `start --restart` runs in the background. Exit 6 when it gives up."""
    host = common.local_host()
    place = servers.one(host, config.load({"name": name, "prefix": prefix}))
    supervisor.supervise(host, place.servers, name=name, tell=render.print_line)
    return 0


@serve.command()
@name_argument
@common.prefix
@click.option("--all", "everyone", is_flag=True, help="Stop all servers.")
@_grace
@common.as_json
def stop(name: str | None, prefix: str | None, *, everyone: bool, grace: float, as_json: bool) -> Shown:
    """Stop a server with everything that it started; the port and the memory are free afterwards.

    It takes no more requests, and has --grace seconds to answer those that it has.
    """
    del as_json
    host, wishes = common.local_host(), config.load({"name": name, "prefix": prefix})
    those = servers.everyone(host, wishes) if everyone else [servers.one(host, wishes)]
    stopped, failed = {}, list[ProvisionError]()
    for place in those:
        try:
            if ended := server.stop(host, place.servers, name=place.name, grace_s=grace, tell=_told):
                stopped[place.name] = ended
        except ProvisionError as error:
            failed.append(error)
            _told(f"{place.name}: {error}")
    if failed:
        raise failed[0]  # the others are stopped all the same
    lines = [_stopped(name, ended) for name, ended in stopped.items()] or ["nothing was running"]
    return Shown(
        command="serve",
        data={"stopped": list(stopped), "cut": {name: ended.cut for name, ended in stopped.items()}},
        text=lambda screen: screen.print("\n".join(lines)),
        changed=bool(stopped),
    )


def _stopped(name: str, ended: Ended) -> str:
    return f"stopped {name}" + (f"; {counted(ended.cut)} had no answer yet and were cut off" if ended.cut else "")


def _told(text: str) -> None:
    """What is worth knowing while it goes on, beside the result."""
    render.print_line(text, error=True)


@serve.command()
@click.argument("name")
@common.prefix
@common.as_json
def remove(name: str, prefix: str | None, *, as_json: bool) -> Shown:
    """Forget a server that does not run: its record, logs and key.

    Also one that was started on a machine which shares this directory and is gone.
    """
    del as_json
    host, wishes = common.local_host(), config.load({"name": name, "prefix": prefix})
    place = servers.one(host, wishes)
    server.remove(host, place.servers, name=place.name, tell=_told)
    return Shown(
        command="serve",
        data={"removed": [place.name]},
        text=lambda screen: screen.print(f"removed {place.name}"),
        changed=True,
    )


@serve.command(name="status")
@name_argument
@common.prefix
@common.as_json
def show_status(name: str | None, prefix: str | None, *, as_json: bool) -> Shown:
    """Say how the servers are: asked of their processes, their logs and themselves. Exit 6 where one is not well."""
    del as_json
    host, wishes = common.local_host(), config.load({"name": name, "prefix": prefix})
    those = [servers.one(host, wishes)] if name else servers.everyone(host, wishes)
    found = [server_status.look(host, place) for place in those]
    wrong = [one for one in found if not one.well]
    return Shown(
        command="serve",
        data={"servers": [one.row for one in found]},
        text=lambda screen: server_status.show(
            found, screen, otherwise=f"no server was ever started here{servers.looked_at(host, wishes)}"
        ),
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
    place = servers.one(host, wishes)
    if known := record.load(host, place.directory):
        contained.adopt(host, known)
    # Read, so that it is masked wherever the log has it.
    keys.of(host, place.directory)
    path = f"{place.directory}/{record.LOG}"
    if as_json:
        return _log_data(place.name, path, lines=lines, explain=explain)
    if explain:
        telemetry.show(log.Tail(path).remaining(), log.follow(path, going_on=render.is_heard) if follow else ())
        return 0
    for line in _last(path, lines):
        render.print_line(line)
    if follow:
        for line in log.follow(path, going_on=render.is_heard):
            render.print_line(line)
    return 0


def _log_data(name: str, path: str, *, lines: int, explain: bool) -> Shown:
    data: dict[str, Any] = {"name": name, "log": path}
    if explain:
        data["telemetry"] = telemetry.fold(log.Tail(path).remaining()).to_builtins()
    else:
        data["lines"] = list(_last(path, lines))
    return Shown(command="serve", data=data, text=lambda _: None)


def _last(path: str, lines: int) -> tuple[str, ...]:
    return log.last_lines(path, lines) if lines else ()


def _restarted(host: LocalHost, place: Place, *, as_json: bool, grace_s: float = GRACE_S) -> Shown:
    known = server.known(host, place.servers, name=place.name)
    launch, stack = relaunch.launch_of(host, place.prefix, known)
    undone = server.undone_if_interrupted(host, place.servers, name=place.name)
    try:
        with progress.phases(place.name, as_json=as_json) as tell, undone:
            started = server.restart(
                host, place.servers, name=place.name, launch=launch, stack=stack, grace_s=grace_s, tell=_told
            )
            with diagnosed(started.log):
                ready = server.wait_until_ready(host, started, tell=tell)
    except ProvisionError as error:
        raise gone_back(
            host, error, servers=place.servers, name=place.name, tell=lambda told: _told(told.text)
        ) from error
    except BaseException:
        server.restore(host, place.servers, name=place.name)
        raise
    record.forget_replaced(host, place.directory)
    if ready.supervised and not watchman.is_at_work(place.directory):
        watchman.start(host, ready)
    return _one(host, ready, changed=True)


def _one(view: HostView, known: record.Server, *, changed: bool) -> Shown:
    found = server_status.of(view, known)
    return Shown(
        command="serve",
        data={"servers": [found.row]},
        text=lambda screen: server_status.show([found], screen),
        ok=found.health == "running",
        changed=changed,
        exit_status=0 if found.health == "running" else ServingFailed.exit_status,
    )
