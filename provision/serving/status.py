"""How a server is, told from its process, its log and its answers."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from typing import Literal

from provision.catalog.engines import engine
from provision.host.view import HostView
from provision.http_client import NoAnswer
from provision.secrets import mask
from provision.serving import contained, log, out_of_memory
from provision.serving.events import events
from provision.serving.listening import client
from provision.serving.phases import LaunchLog
from provision.serving.record import Server, is_elsewhere, members

Health = Literal["running", "starting", "unhealthy", "dead", "stopped", "elsewhere"]
_LAST_LINES = 200


@dataclass(frozen=True, kw_only=True)
class Status:
    """One server. `pids` are its living processes (after its death: what it left behind)."""

    name: str
    health: Health
    text: str
    server: Server
    pids: tuple[int, ...] = ()
    up_s: float | None = None


def status(host: HostView, server: Server, *, timeout_s: float | None = None) -> Status:
    """Look at one server; nothing is changed. Its health check takes a second when all is well.

    It may take as long as the engine itself gives it, or `timeout_s`. One that works meanwhile is busy, and runs.
    """
    if is_elsewhere(host, server):
        return _made(server, "elsewhere", f"was started on `{server.machine}`")
    again = contained.current(host, server)
    living = tuple(process.pid for process in members(host, again))
    if again.pid not in living:
        return _without_process(host, server, living)
    if again != server:
        # Started again by its engine: what the log says is of the life before.
        return _asked(host, again, living, timeout_s)
    watch = _watched(server)
    if watch.death:
        return _made(server, "unhealthy", f"is breaking down: {mask(watch.death)}", living)
    if server.state == "starting" and not watch.ready and host.stat(server.log) is not None:
        return _made(server, "starting", f"is {watch.phase}", living)
    return _asked(host, server, living, timeout_s)


def _without_process(host: HostView, server: Server, living: tuple[int, ...]) -> Status:
    if server.container:
        living = ()  # who copies its log ends with it
    left = f"; it left {len(living)} processes behind, which `sgprov serve stop {server.name}` ends" if living else ""
    if server.state == "stopped" and not living:
        return _made(server, "stopped", "was stopped")
    how = contained.ending(host, server) or _killed(host, server)
    if given_up := _given_up(host, server):
        return _made(server, "dead", given_up, living)
    if server.state == "failed":
        return _made(server, "dead", f"failed to start{how}{left}", living)
    lines = log.last_lines(server.log, 1)
    return _made(server, "dead", f"ended by itself{how}{left}" + (f"; last line: {lines[0]}" if lines else ""), living)


def _killed(host: HostView, server: Server) -> str:
    """That it ended for lack of memory, as it was told when it failed or as the kernel counts now."""
    if server.ending:
        return server.ending
    found = out_of_memory.finding(host, server.kills, killed=False)
    return f" ({found.text})" if found else ""


def _given_up(host: HostView, server: Server) -> str | None:
    """What its supervisor said last, where it has given up."""
    last = events(host, server)[-1:] if server.supervised else ()
    if not last or last[0]["event"] != "gave-up":
        return None
    return f"was given up after {last[0].get('failures')} fast failures: {mask(str(last[0].get('reason')))}"


def _asked(host: HostView, server: Server, living: tuple[int, ...], timeout_s: float | None) -> Status:
    probe = engine(server.engine).probe(server.version)
    work, start = log.Tail(server.log, at_end=True), time.monotonic()
    try:
        answer = client(host, server, timeout_s=timeout_s or probe.health_limit_s).get(probe.health)
    except NoAnswer as problem:
        said, waits = str(problem), problem.timed_out
    else:
        seconds = time.monotonic() - start
        if answer.ok:
            return _made(server, "running", f"answers on {server.url} ({seconds:.1f} s)", living)
        said, waits = f"`{probe.health}` says {answer.said}", True
    if waits and _works(server, work):
        text = f"is busy: it works on requests, and has no time for its health check ({time.monotonic() - start:.0f} s)"
        return _made(server, "running", text, living)
    return _made(server, "unhealthy", said, living)


def _works(server: Server, since: log.Tail) -> bool:
    """Whether its log tells of requests that it works on."""
    pattern = engine(server.engine).log_of(server.version).work
    return pattern is not None and any(re.search(pattern, line) for line in since.remaining())


def _watched(server: Server) -> LaunchLog:
    watch = LaunchLog(engine(server.engine).log_of(server.version))
    # The launch is at the beginning and a breakdown at the end; what is between may be gigabytes of requests.
    for line in (*log.Tail(log.launch_of(server.log)).lines(), *log.last_lines(server.log, _LAST_LINES)):
        watch.feed(line)
    return watch


def _made(server: Server, health: Health, text: str, pids: tuple[int, ...] = ()) -> Status:
    up_s = _seconds_since(server.started_ticks) if pids and server.started_ticks else None
    return Status(name=server.name, health=health, text=text, server=server, pids=pids, up_s=up_s)


def _seconds_since(ticks: int) -> float:
    """How long ago a process was started: by the clock of the machine's boot, which nobody sets."""
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
