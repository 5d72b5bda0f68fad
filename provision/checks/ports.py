"""Checks of the ports that a server takes: its own and those the engine derives from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from provision.checks.base import Context, bootstrap, check, error, has_decision, warning
from provision.checks.own import own_pids, prefix_of
from provision.host import Listener
from provision.report import Finding
from provision.serving import keys
from provision.serving.ports import derive_for
from provision.serving.processes import stop_command
from provision.steps.port import describe, needed

_check = partial(check, "ports")
_RANGE = "/proc/sys/net/ipv4/ip_local_port_range"
_PRIVILEGED = "/proc/sys/net/ipv4/ip_unprivileged_port_start"


@_check(
    "port-free",
    "The server's port is free",
    looks_at="listening sockets and their owners, less those of servers that sgprov started",
    why="a server that finds its port taken loads the whole model before it says so",
    remedy="`sgprov bootstrap --port auto` takes the next free one, `--free-port` stops the owner after naming it",
    applies=has_decision,
)
def port_free(context: Context) -> Iterator[Finding]:
    if any(one.check == "facts.listeners" for one in context.facts.problems):
        yield warning(f"whether port {context.serve.port} is free cannot be told", "`ss -ltnp` may say who listens")
    for one in _strangers(context, (context.serve.port,)):
        yield error(describe(one, context.serve.port), _remedy(context, one), port=one.port)


@_check(
    "port-derived-free",
    "The ports derived from it are free",
    looks_at="the ports that this engine version adds to the server's own, by the catalog's rows",
    why="`address already in use` for a port that nobody asked for is hard to understand after ten minutes of loading",
    remedy="`sgprov bootstrap --port auto` takes a port whose derived ones are free too",
    applies=lambda context: bool(context.decision and context.decision.stack),
)
def port_derived_free(context: Context) -> Iterator[Finding]:
    stack = context.decision.stack if context.decision else None
    if stack is None:
        return
    base = context.serve.port
    derived = [port for port in needed(derive_for(stack.engine, stack.version, context.serve)) if port != base]
    for one in _strangers(context, derived):
        yield error(describe(one, base), _remedy(context, one), port=one.port)


@_check(
    "port-privileged",
    "The server's port is not reserved for root",
    looks_at="the first port that everyone may listen on (`ip_unprivileged_port_start`)",
    why="a port below it can be bound by root only",
    remedy="`sgprov bootstrap --port 30000`",
    applies=has_decision,
)
def port_privileged(context: Context) -> Iterator[Finding]:
    first = (context.view.read(_PRIVILEGED) or "").strip()
    user = context.view.query(["id", "-u"]).out.strip()
    if first.isdecimal() and context.serve.port < int(first) and user.isdecimal() and user != "0":
        yield error(f"port {context.serve.port} is below {first}: only root may listen on it", "`--port 30000`")


@_check(
    "port-ephemeral",
    "The server's port is not given to outgoing connections",
    looks_at="the range of ports for outgoing connections (`ip_local_port_range`)",
    why="any program's connection may take the port for a moment, and the server fails to start now and then",
    remedy="`sgprov bootstrap --port 30000`, or `sudo sysctl net.ipv4.ip_local_reserved_ports=PORT`",
    applies=has_decision,
)
def port_ephemeral(context: Context) -> Iterator[Finding]:
    words = (context.view.read(_RANGE) or "").split()
    if len(words) == 2 and int(words[0]) <= context.serve.port <= int(words[1]):  # noqa: PLR2004  # from, to
        yield warning(
            f"port {context.serve.port} is in the range of outgoing connections ({words[0]} to {words[1]})",
            f"`--port 30000`, or `sudo sysctl net.ipv4.ip_local_reserved_ports={context.serve.port}`",
        )


@_check(
    "port-open",
    "Who can reach the server",
    looks_at="the address that the server will listen on, and whether it asks for a key",
    why="an endpoint without a key that others can reach serves whoever finds it",
    remedy="`sgprov bootstrap --bind 127.0.0.1`, or a key in `SGPROV_API_KEY`, and a firewall",
    applies=has_decision,
)
def port_open(context: Context) -> Iterator[Finding]:
    name = context.target.name if context.target else ""
    # Whether a server by that name has a key; what it is goes nowhere.
    has_key = context.view.stat(f"{context.servers}/{name}/{keys.FILE}") is not None
    opened = keys.open_to_all(context.decision) if context.decision else None
    if opened and not has_key and not context.credential("SGPROV_API_KEY"):
        yield replace(opened, check="")


def _strangers(context: Context, ports: tuple[int, ...] | list[int]) -> tuple[Listener, ...]:
    taken = [one for one in context.facts.listeners if one.port in ports]
    ours = own_pids(context) if taken else frozenset[int]()
    return tuple({(one.port, one.pid): one for one in taken if one.pid is None or one.pid not in ours}.values())


def _remedy(context: Context, one: Listener) -> str:
    auto = bootstrap(context, "--port", "auto")
    if one.pid is None:
        return f"`sudo ss -ltnp 'sport = :{one.port}'` says who it is; {auto} takes another"
    prefix = prefix_of(context, one.pid)
    stop = f"kill {one.pid}" if prefix is None else stop_command(prefix)
    return f"{auto} takes the next free one; `--free-port` stops this one, or `{stop}`"


CHECKS = (port_free, port_derived_free, port_privileged, port_ephemeral, port_open)
