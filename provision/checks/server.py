"""Checks of servers: those that were started here, and engines that nobody owns any more."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from provision.checks.base import Context, check, error, info, warning
from provision.checks.own import engines, living, names, own_pids, prefix_of, servers
from provision.report import Finding
from provision.serving import commands, record, watchman
from provision.serving.processes import boot_id
from provision.serving.record import Server

_check = partial(check, "server")
_CONNECT_S = 0.2


def _has_servers(context: Context) -> bool:
    return bool(servers(context))


def _has_names(context: Context) -> bool:
    return bool(names(context))


def _should_run(context: Context) -> tuple[Server, ...]:
    view = context.view
    return tuple(
        one for one in servers(context) if one.state in {"starting", "ready"} and not record.is_elsewhere(view, one)
    )


@_check(
    "server-alive",
    "Every server that was started still runs",
    looks_at="the records under servers/ and the processes they name, by pid and start time",
    why="a server that ended by itself leaves a record that looks alive; a pid alone may be somebody else's by now",
    remedy="`sgprov diagnose LOG` says why, `sgprov serve start NAME` starts it again",
    applies=_has_servers,
)
def server_alive(context: Context) -> Iterator[Finding]:
    boot = boot_id(context.view)
    for one in _should_run(context):
        if one.pid in living(context)[one.name]:
            continue
        how = "before the machine was booted" if one.boot != boot else "and ended by itself"
        yield warning(
            f"the server `{one.name}` was started {how}: its record is stale",
            f"`sgprov diagnose {one.log}` says why; `sgprov serve start {one.name}` starts it again",
        )


@_check(
    "server-answers",
    "Every running server takes connections",
    looks_at="a connection to its port; it is not asked to generate (`sgprov serve status` does that)",
    why="a process that lives and does not listen is hanging or still loading",
    remedy="`sgprov serve status`; then its log",
    applies=_has_servers,
)
def server_answers(context: Context) -> Iterator[Finding]:
    for one in _should_run(context):
        if one.state != "ready" or one.pid not in living(context)[one.name]:
            continue
        host, _, port = one.url.rpartition("/")[2].rpartition(":")
        reach = context.view.reach(host.strip("[]"), int(port), timeout_s=_CONNECT_S)
        if reach and reach.state != "reached":
            yield error(
                f"the server `{one.name}` runs and {one.url} is {reach.state}", f"`sgprov serve status {one.name}`"
            )


@_check(
    "server-orphans",
    "No server left processes behind",
    looks_at="processes of a server whose first process has ended, by session and marker",
    why="an orphaned worker keeps its GPU memory: the next start fails with out-of-memory on an idle machine",
    remedy="`sgprov serve stop NAME` ends them",
    applies=_has_servers,
)
def server_orphans(context: Context) -> Iterator[Finding]:
    for one in servers(context):
        pids = living(context)[one.name]
        if pids and one.pid not in pids:
            yield error(
                f"the server `{one.name}` is gone and left {len(pids)} processes behind ({', '.join(map(str, pids))})",
                f"`sgprov serve stop {one.name}`",
            )


@_check(
    "server-foreign",
    "No engine runs that nobody owns",
    looks_at="processes of SGLang, LMDeploy, vLLM and NIM that no record here names",
    why="an engine that was left behind holds GPU memory and ports, and is found only when the next one fails",
    remedy="`kill PID`, or stop its unit or container",
)
def server_foreign(context: Context) -> Iterator[Finding]:
    ours = own_pids(context) if engines(context) else frozenset[int]()
    strangers = [one for one in engines(context) if one.pid not in ours]
    pids = {one.pid for one in strangers}
    for one in strangers:
        # Its children are named with it.
        if one.parent in pids:
            continue
        prefix = prefix_of(context, one.pid)
        if prefix is not None:
            where = f" under {prefix}" if prefix else " under another prefix"
            yield info(
                f"a server of sgprov runs{where}: pid {one.pid}, user {one.user}",
                f"`{commands.stop(context.view, prefix, one.pid)}` if nobody needs it",
                pid=one.pid,
            )
            continue
        left = ", left behind by its parent" if one.parent == 1 else ""
        name = one.name if one.name.startswith(("sglang", "VLLM")) else one.command.split(" --", 1)[0][:80]
        children = sum(other.parent == one.pid for other in strangers)
        more = f" with {children} children" if children else ""
        yield warning(
            f"an engine of user {one.user} runs{left}: pid {one.pid}{more} (`{name}`)",
            f"`kill {one.pid}` if nobody needs it",
            pid=one.pid,
        )


@_check(
    "server-failed",
    "The last start of every server went well",
    looks_at="the state in each server's record",
    why="what failed once fails again until its cause is known",
    remedy="`sgprov diagnose LOG`",
    applies=_has_servers,
)
def server_failed(context: Context) -> Iterator[Finding]:
    for one in servers(context):
        if one.state == "failed":
            yield warning(f"the last start of the server `{one.name}` failed", f"`sgprov diagnose {one.log}`")


@_check(
    "server-kept-up",
    "Whoever is to keep a server up is there",
    looks_at="the lock that a supervisor holds as long as it lives, for each server that was started with `--restart`",
    why="a supervisor that was killed is missed only when its server dies, too, and stays dead",
    remedy="`sgprov serve start NAME --restart` does again, and so does the next `sgprov bootstrap`",
    applies=_has_servers,
)
def server_kept_up(context: Context) -> Iterator[Finding]:
    for one in _should_run(context):
        if one.supervised and not watchman.keeps_up(one) and one.pid in living(context)[one.name]:
            yield warning(
                f"the server `{one.name}` is to be kept up, and nobody does so any more",
                f"`sgprov serve start {one.name} --restart`",
            )


@_check(
    "server-record",
    "Every server's record can be read",
    looks_at="servers/*/server.json, and the servers that run without one",
    why="a server whose record was lost is found by its process alone, and nothing is known of one that has ended",
    remedy="`sgprov serve start NAME` makes it anew from the server that runs; `sgprov serve remove NAME` forgets it",
    applies=_has_names,
)
def server_record(context: Context) -> Iterator[Finding]:
    known = {one.name for one in servers(context)}
    for name in names(context):
        if found := record.damage(context.view, f"{context.servers}/{name}"):
            again = f"`sgprov serve start {name}` makes it anew"
            yield warning(found.text, again if name in known else f"`sgprov serve remove {name}` forgets it")


CHECKS = (server_alive, server_answers, server_orphans, server_foreign, server_failed, server_kept_up, server_record)
