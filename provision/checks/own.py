"""Which processes on this host are servers of ours, and which engines are nobody's."""

from __future__ import annotations

import re

from provision.checks.base import Context
from provision.host import Process
from provision.serving import processes, record
from provision.serving.record import Server

# How the engines' processes are called: SGLang writes titles over its command lines.
_ENGINE = re.compile(
    r"^sglang::|-m sglang\.launch_server|\bsglang serve\b|lmdeploy (?:serve|api_server)|-m vllm\.|^VLLM::|/opt/nim/llm/"
)
# The interpreter of an environment, such as `/srv/sgprov/environments/sglang-0.5.9-cp310-x86_64-012345/bin/python`.
_PREFIX = re.compile(r"(/\S{1,400}?)/environments/[^/\s]{1,200}/bin/")


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
    """The prefix of the sgprov server that a process belongs to, empty where it cannot be told; None for a stranger's.

    A worker may have written its title over its environment: then its parents are asked, up to the one that was
    started, which has the marker.
    """
    commands = {one.pid: one.command for one in everyone(context)}
    seen = set[int]()
    marked, prefix = False, ""
    while pid > 1 and pid not in seen:
        seen.add(pid)
        environment = context.view.read(f"/proc/{pid}/environ") or ""
        marked = marked or any(entry.startswith(f"{processes.MARKER}=") for entry in environment.split("\0"))
        if found := _PREFIX.search(commands.get(pid, "")):
            prefix = found[1]
        stat = processes.parse_stat(context.view.read(f"/proc/{pid}/stat") or "")
        pid = stat.parent if stat else 0
    return prefix if marked else None


def stop_command(prefix: str) -> str:
    return f"sgprov serve stop --prefix {prefix}" if prefix else "sgprov serve stop"


def _servers(context: Context) -> tuple[Server, ...]:
    names = record.names(context.view, context.servers)
    found = (record.load(context.view, f"{context.servers}/{name}") for name in names)
    return tuple(one for one in found if one)


def _pids(context: Context, server: Server) -> tuple[int, ...]:
    return tuple(process.pid for process in record.members(context.view, server))
