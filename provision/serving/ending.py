"""End a server with everything that came of it: it answers what it has first; no process but its own gets a signal."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from provision.catalog.engines import engine
from provision.errors import ServingFailed
from provision.host.view import Host
from provision.serving import contained, processes, scratch
from provision.serving.listening import connections
from provision.serving.processes import ProcessStat
from provision.serving.record import Server, members

# How long what is in flight may take to be answered, and how long a server without anything to answer to end.
GRACE_S = 30.0
INTERRUPTED_GRACE_S = 3.0
# How long before its end the signal is sent that every program knows, where the engine has a better one.
_USUAL_S = 5.0
_TOLD_AFTER_S = 1.0
_KILL_S = 10.0
_POLL_S = 0.1
# How long children may outlive the process that was started before they are ended too.
_ORPHANED_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How many `processes` there were, and how many requests were `cut`; None where that cannot be told."""

    processes: int
    cut: int | None = 0


def end(host: Host, server: Server, *, grace_s: float, tell: Callable[[str], None] = lambda _: None) -> Ended:
    """End all processes of a server. It takes no more requests at once, and has `grace_s` to answer those it has.

    Raises `ServingFailed` where a process stays.
    """
    stopped = int(contained.end(host, server, grace_s=grace_s)) if server.container else 0
    tracked = {process.pid: process for process in _provable(host, server)}
    if not tracked:
        scratch.remove(host, server.scratch)
        return Ended(processes=stopped, cut=None if stopped else 0)
    if server.pid and server.scratch:
        scratch.note(host, server.scratch, pid=server.pid, started=server.started_ticks)
    cut: int | None = 0
    if leader := tracked.get(server.pid or 0):
        _let_answer(host, server, leader, grace_s, tell)
        if processes.same(host, leader):
            cut = connections(host, server.url)
        else:
            _wait(host, tracked.values(), _ORPHANED_S)
    else:
        _signal(host, tracked.values(), signal.SIGTERM)
        _wait(host, tracked.values(), min(grace_s, INTERRUPTED_GRACE_S))
    _kill(host, server, tracked)
    scratch.remove(host, server.scratch)
    return Ended(processes=len(tracked) + stopped, cut=None if stopped else cut)


def _let_answer(host: Host, server: Server, leader: ProcessStat, grace_s: float, tell: Callable[[str], None]) -> None:
    """Ask the first process to end, and wait until it has answered what it had, and has ended."""
    start = time.monotonic()
    drain = signal.Signals[engine(server.engine).drain]
    # One that is not ready has nothing to answer, and may know nothing but the usual signal yet.
    was_ready = server.state == "ready" or server.proved
    usual_at = grace_s - _USUAL_S if was_ready and drain is not signal.SIGTERM else 0.0
    _signal(host, (leader,), drain if usual_at else signal.SIGTERM)
    idle_since, told = start, False
    while processes.same(host, leader) and (waited := time.monotonic() - start) < grace_s:
        if in_flight := connections(host, server.url):
            idle_since = time.monotonic()
            if not told and waited > _TOLD_AFTER_S:
                tell(f"waiting for {counted(in_flight)} in flight, at most {grace_s:.0f} s")
                told = True
        if usual_at and (waited > usual_at or time.monotonic() - idle_since > _USUAL_S):
            # It has answered all, and is still there: perhaps it does not know that signal.
            _signal(host, (leader,), signal.SIGTERM)
            usual_at = 0.0
        time.sleep(_POLL_S)


def _kill(host: Host, server: Server, tracked: dict[int, ProcessStat]) -> None:
    deadline = time.monotonic() + _KILL_S
    while alive := _alive(host, (tracked | {one.pid: one for one in _provable(host, server)}).values()):
        tracked |= {process.pid: process for process in alive}
        _signal(host, alive, signal.SIGKILL)
        if time.monotonic() > deadline:
            pids = ", ".join(str(process.pid) for process in alive)
            raise ServingFailed(
                f"processes {pids} of the server `{server.name}` cannot be killed",
                hint="they wait inside the kernel, most often for a GPU driver that hangs: `sgprov doctor`",
            )
        time.sleep(_POLL_S)


def counted(requests: int) -> str:
    return "1 request" if requests == 1 else f"{requests} requests"


def _provable(host: Host, server: Server) -> tuple[ProcessStat, ...]:
    """The living processes that prove that they are of this server, the first one first."""
    return tuple(
        process
        for process in members(host, server)
        if processes.is_provably(host, process, marker=server.id, directory=server.directory)
    )


def _wait(host: Host, those: Iterable[ProcessStat], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while _alive(host, those) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def _alive(host: Host, those: Iterable[ProcessStat]) -> tuple[ProcessStat, ...]:
    return tuple(process for process in those if processes.same(host, process))


def _signal(host: Host, those: Iterable[ProcessStat], number: int) -> None:
    """To those very processes that proved to be the server's: each is looked at once more when it cannot be another."""

    def is_still(process: ProcessStat) -> bool:
        return processes.same(host, process) and processes.is_callers(host, process.pid)

    for process in those:
        host.signal(process.pid, number, only_if=partial(is_still, process))
