"""Which processes on this host are servers of ours, and which engines are nobody's."""

from __future__ import annotations

import re

from provision.checks.base import Context
from provision.errors import NotPermitted, UntrustedPath
from provision.host import Process
from provision.serving import processes, record
from provision.serving.record import Server

# How the engines' processes are called: SGLang writes titles over its command lines.
_ENGINE = re.compile(
    r"^sglang::|-m sglang\.launch_server|\bsglang serve\b|lmdeploy (?:serve|api_server)|-m vllm\.|^VLLM::|/opt/nim/llm/"
)


def servers(context: Context) -> tuple[Server, ...]:
    """Every server that was started under this prefix and has a readable record."""
    return context.once("servers", lambda: _servers(context))


def living(context: Context) -> dict[str, tuple[int, ...]]:
    """The living processes of each server, by its name."""
    return context.once("living", lambda: {one.name: _pids(context, one) for one in servers(context)})


def own_pids(context: Context) -> frozenset[int]:
    return frozenset(pid for pids in living(context).values() for pid in pids)


def everyone(context: Context) -> tuple[Process, ...]:
    """All processes of this host, listed once: that is a tenth of a second."""
    return context.once("processes", context.view.processes)


def engines(context: Context) -> tuple[Process, ...]:
    """Processes of inference engines, ours and others'."""
    return context.once(
        "engines",
        lambda: tuple(one for one in everyone(context) if _ENGINE.search(one.command or one.name)),
    )


def prefix_of(context: Context, pid: int) -> str | None:
    """The prefix of the sgprov server that a process belongs to, empty where it is not known; None for a stranger's."""
    return processes.prefix_of(context.view, pid, {one.pid: one.command for one in everyone(context)})


def names(context: Context) -> tuple[str, ...]:
    """The names of every server under this prefix; none where it is another user's, which is told elsewhere."""
    return context.once("names", lambda: _names(context))


def _names(context: Context) -> tuple[str, ...]:
    try:
        return record.names(context.view, context.servers)
    except (NotPermitted, UntrustedPath):
        return ()


def _servers(context: Context) -> tuple[Server, ...]:
    found = (record.load(context.view, f"{context.servers}/{name}") for name in names(context))
    return tuple(one for one in found if one)


def _pids(context: Context, server: Server) -> tuple[int, ...]:
    return tuple(process.pid for process in record.members(context.view, server))
