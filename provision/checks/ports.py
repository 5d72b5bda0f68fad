"""Checks of the ports that a server takes: its own and those the engine derives from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from urllib.parse import urlsplit

from msgspec.structs import replace as replace_setting

from provision.catalog.rows import Serve
from provision.checks.base import Context, bootstrap, check, error, has_decision, warning
from provision.checks.own import living, own_pids, prefix_of, servers
from provision.errors import UsageError
from provision.host import Listener
from provision.report import Finding
from provision.serving import commands, keys
from provision.serving.ports import derive_for
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
    "endpoint-open",
    "Nobody is served without a key who reaches the server from elsewhere",
    looks_at="the address that each server listens on, or will, and whether it asks for a key",
    why="an endpoint without a key serves whoever finds it, and lets them change its weights, write files and stop it",
    remedy="`sgprov bootstrap` without `--allow-unauthenticated`, which makes a key; or `--bind 127.0.0.1`",
)
def endpoint_open(context: Context) -> Iterator[Finding]:
    running = _open_servers(context)
    yield from running.values()
    decision, name = context.decision, context.target.name if context.target else ""
    # Whether a server by that name has a key; what it is goes nowhere.
    has_key = context.view.stat(f"{context.servers}/{name}/{keys.FILE}") is not None
    if not decision or name in running or has_key or context.credential("SGPROV_API_KEY"):
        return
    engine, version = decision.engine
    if context.allow_unauthenticated and (opened := keys.open_to_all(decision.serve, engine, version)):
        yield replace(opened, check="")
    elif not context.allow_unauthenticated:
        try:
            keys.check_open(decision.serve, engine, version)
        except UsageError as refused:
            yield error(str(refused), refused.hint or "")


def _open_servers(context: Context) -> dict[str, Finding]:
    """Servers that run here and answer everyone, by name."""
    found = {}
    for one in servers(context):
        if one.pid not in living(context)[one.name] or one.key_file:
            continue
        address = one.container.address if one.container else one.serve.host if one.serve else "127.0.0.1"
        serve = replace_setting(one.serve or Serve(), host=address, port=urlsplit(one.url).port or 0)
        if opened := keys.open_to_all(serve, one.engine, one.version):
            found[one.name] = replace(opened, check="", text=f"`{one.name}` runs: {opened.text}")
    return found


def _strangers(context: Context, ports: tuple[int, ...] | list[int]) -> tuple[Listener, ...]:
    taken = [one for one in context.facts.listeners if one.port in ports]
    ours = own_pids(context) if taken else frozenset[int]()
    return tuple({(one.port, one.pid): one for one in taken if one.pid is None or one.pid not in ours}.values())


def _remedy(context: Context, one: Listener) -> str:
    auto = bootstrap(context, "--port", "auto")
    if one.pid is None:
        return f"`sudo ss -ltnp 'sport = :{one.port}'` says who it is; {auto} takes another"
    prefix = prefix_of(context, one.pid)
    stop = f"kill {one.pid}" if prefix is None else commands.stop(context.view, prefix, one.pid)
    return f"{auto} takes the next free one; `--free-port` stops this one, or `{stop}`"


CHECKS = (port_free, port_derived_free, port_privileged, port_ephemeral, endpoint_open)
