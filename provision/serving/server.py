"""The life of a server: started detached, found again by its record, and ended with everything that came of it."""

from __future__ import annotations

import fcntl
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from provision.catalog.engines import engine
from provision.errors import ServingFailed, UsageError
from provision.host.view import Host
from provision.serving import contained, inherited, keys, log, out_of_memory, processes, record, scratch
from provision.serving.launch import Launch
from provision.serving.listening import check_free
from provision.serving.phases import LaunchLog, Phase
from provision.serving.processes import ProcessStat
from provision.serving.readiness import Wait
from provision.serving.record import Server, members
from provision.serving.status import status

READY_TIMEOUT_S = 1800.0
GRACE_S = 15.0
_INTERRUPTED_GRACE_S = 3.0
_KILL_S = 10.0
# The engine gives its own health check 20 s before it says no; a busy server is not to be replaced.
_HEALTHY_S = 30.0
_POLL_S = 0.1
# How long children may outlive the process that was started before they are ended too.
_ORPHANED_S = 1.0


def start(
    host: Host,
    servers: str,
    launch: Launch,
    *,
    name: str = "default",
    stack: str | None = None,
    replacing: bool = False,
    key: str | None = None,
) -> Server:
    """Start a server, detached, and return at once; the one that runs already where it is the same.

    `servers` is the directory of all servers. `replacing` ends the one that runs by that name with other settings; if
    it was ready, `restore` starts it again. `key` is for a launch with a key file; without one it finds the key that is
    there. Raises `UsageError` where another runs by that name, and `ServingFailed`
    where a port that it needs is taken.
    """
    directory = record.directory_of(servers, name)
    host.make_directory(directory, mode=0o700)
    with _alone(directory):
        existing = record.load(host, directory)
        same_key = key is None or keys.of(host, directory) == key
        if existing and _running_well(host, existing, launch, replacing=replacing, same_key=same_key):
            return existing
        # Before anything is ended: what serves is not taken down for a launch that cannot be.
        check_free(host, launch, instead_of=existing)
        if existing:
            _make_room(host, existing, same=existing.runs(launch) and same_key)
        if key and launch.key_file:
            keys.give(host, directory, key)
        # Whoever supervises the one that was there goes on with the one that takes its place.
        supervised = existing is not None and existing.supervised and existing.state in {"starting", "ready"}
        return _start(
            host, directory, launch, name=name, stack=stack, supervised=supervised and launch.container is None
        )


def wait_until_ready(
    host: Host,
    server: Server,
    *,
    timeout_s: float = READY_TIMEOUT_S,
    tell: Callable[[Phase, float], None] = lambda _phase, _seconds: None,
) -> Server:
    """Wait for readiness, telling each phase of the launch with its seconds so far.

    A server that fails, is not ready in time or whose wait is interrupted is ended, with all its children.
    Raises `ServingFailed` with the end of the log.
    """
    if server.state == "ready":
        return server
    row = engine(server.engine)
    wait = Wait(
        host, server, LaunchLog(row.log_of(server.version)), row.probe(server.version), timeout_s=timeout_s, tell=tell
    )
    try:
        seconds = wait.run()
    except ServingFailed:
        now = record.load(host, server.directory)
        if now is None or (now.id == server.id and now.state != "stopped"):
            _end(host, server, grace_s=_INTERRUPTED_GRACE_S)
            record.save(host, msgspec.structs.replace(server, state="failed", ending=wait.ending))
        raise
    except BaseException:
        _give_up(host, server)
        raise
    _note_scratch(host, server)
    return record.save(host, msgspec.structs.replace(server, state="ready", ready_after_s=round(seconds, 2)))


@contextmanager
def undone_if_interrupted(host: Host, servers: str, *, name: str = "default") -> Iterator[None]:
    """Around `start` and `wait_until_ready`: interrupted between the two as well, what was started is ended."""
    directory = record.directory_of(servers, name)
    before = record.load(host, directory)
    try:
        yield
    except KeyboardInterrupt:
        now = record.load(host, directory)
        if now and now.state == "starting" and (before is None or now.id != before.id):
            _give_up(host, now)
        raise


def restore(host: Host, servers: str, *, name: str = "default") -> Server | None:
    """Start the server again that another one replaced without proving itself; None where none was. Does not wait."""
    directory = record.directory_of(servers, name)
    host.make_directory(directory, mode=0o700)
    with _alone(directory):
        replaced = record.replaced(host, directory)
        if replaced is None:
            return None
        if existing := record.load(host, directory):
            _end(host, existing, grace_s=_INTERRUPTED_GRACE_S)
        check_free(host, replaced.launch)
        keys.restore_replaced(host, directory)
        started = _start_like(host, replaced)
        record.forget_replaced(host, directory)
        return started


def start_again(host: Host, server: Server) -> Server:
    """Start a server once more, with what it was started with, in place of whatever has its name. Does not wait."""
    with _alone(server.directory):
        if existing := record.load(host, server.directory):
            _end(host, existing, grace_s=_INTERRUPTED_GRACE_S)
        return _start_like(host, server)


def stop(host: Host, servers: str, *, name: str = "default", grace_s: float = GRACE_S) -> bool:
    """End a server and everything that came of it; whether there was anything to end.

    Raises `UsageError` where no such server was ever started, `ServingFailed` where a process does not go away.
    """
    server = known(host, servers, name=name)
    if server.machine != processes.machine_name(host):
        raise UsageError(f"the server `{name}` runs on `{server.machine}`", hint="stop it there")
    with _alone(server.directory):
        ended = _end(host, server, grace_s=grace_s)
        if server.state not in {"stopped", "failed"}:
            record.save(host, msgspec.structs.replace(server, state="stopped"))
        record.forget_replaced(host, server.directory)
    return ended > 0


def restart(
    host: Host,
    servers: str,
    *,
    name: str = "default",
    launch: Launch | None = None,
    stack: str | None = None,
    grace_s: float = GRACE_S,
) -> Server:
    """Stop, then start: with another launch (of `stack`), or again with what it was started with. Does not wait."""
    server = known(host, servers, name=name)
    stop(host, servers, name=name, grace_s=grace_s)
    return start(host, servers, launch or server.launch, name=name, stack=stack or server.stack)


def revive(host: Host, server: Server) -> Server | None:
    """Start a server that died again, with what it was started with; None where somebody else did, or stopped it."""
    with _alone(server.directory):
        now = record.load(host, server.directory)
        if now is None or now.id != server.id or now.state == "stopped":
            return None
        _end(host, now, grace_s=_INTERRUPTED_GRACE_S)
        return _start_like(host, now)


def died(host: Host, server: Server) -> bool:
    """Whether a server whose process has ended did so by itself: nobody stops or replaces it at this moment."""
    with _alone(server.directory):
        now = record.load(host, server.directory)
        return now is not None and now.id == server.id and now.state != "stopped"


def known(host: Host, servers: str, *, name: str = "default") -> Server:
    """The record of a server. Raises `UsageError` with the names there are."""
    server = record.load(host, record.directory_of(servers, name))
    if server is None:
        names = ", ".join(f"`{other}`" for other in record.names(host, servers))
        raise UsageError(
            f"no server `{name}` was started here", hint=f"there are {names}" if names else "`sgprov serve start`"
        )
    return server


def _start_like(host: Host, server: Server) -> Server:
    return _start(
        host,
        server.directory,
        server.launch,
        name=server.name,
        stack=server.stack,
        supervised=server.supervised,
        proved=server.proved or server.state == "ready",
    )


def _start(
    host: Host,
    directory: str,
    launch: Launch,
    *,
    name: str,
    stack: str | None,
    supervised: bool = False,
    proved: bool = False,
) -> Server:
    path = f"{directory}/server.log"
    log.rotate(path)
    server = Server(
        id=uuid.uuid4().hex,
        name=name,
        directory=directory,
        engine=launch.engine,
        version=launch.version,
        stack=stack,
        model=launch.model,
        url=launch.url,
        argv=launch.argv,
        variables=launch.variables,
        ports=launch.ports,
        serve=launch.serve,
        python=launch.python,
        given=launch.given,
        key_file=launch.key_file,
        asked=launch.asked,
        log=path,
        started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        machine=processes.machine_name(host),
        boot=processes.boot_id(host),
        container=launch.container,
        supervised=supervised,
        proved=proved,
        kills=out_of_memory.kills(host),
    )
    # Written before the process exists too: killed between the two, its id still finds the process.
    record.save(host, server)
    if launch.container:
        pid = contained.start(host, server, launch.container)
    else:
        scratch.sweep(host)
        server = record.save(host, msgspec.structs.replace(server, scratch=scratch.make(server.id)))
        own = {"TMPDIR": server.scratch, processes.MARKER: server.id}
        variables = {**inherited.withheld(host.environment()), **launch.variables, **_asks_itself(host), **own}
        pid = host.start(launch.argv, log=path, variables=variables)
    process = processes.find(host, pid)
    server = msgspec.structs.replace(server, pid=pid, started_ticks=process.started if process else 0)
    _note_scratch(host, server)
    return record.save(host, server)


def _running_well(host: Host, existing: Server, launch: Launch, *, replacing: bool, same_key: bool) -> bool:
    """Whether the server runs with this launch, and is well.

    Raises `UsageError` where it runs on another machine, or with another launch and is not to be replaced.
    """
    if existing.machine != processes.machine_name(host) and existing.state in {"starting", "ready"}:
        raise UsageError(
            f"the server `{existing.name}` runs on `{existing.machine}`", hint="choose another name with `--name`"
        )
    existing = contained.current(host, existing)
    running = members(host, existing)
    if not running or running[0].pid != existing.pid:
        return False
    if not (existing.runs(launch) and same_key):
        if replacing:
            return False
        raise UsageError(
            f"the server `{existing.name}` runs already, with other settings (pid {existing.pid})",
            hint="`sgprov serve restart`, or choose another name with `--name`",
        )
    # One that hangs or breaks down is not the server that was asked for: starting again is the repair.
    return status(host, existing, timeout_s=_HEALTHY_S).health in {"running", "starting"}


def _make_room(host: Host, existing: Server, *, same: bool) -> None:
    """End what is there: one that was ready once and is replaced is remembered until the other has proved itself.

    What is not well, or is dead and left children behind, is not worth going back to.
    """
    if existing.container and existing.state == "stopped":
        return  # a container that is left all the same goes before the next one starts
    existing = contained.current(host, existing)
    living = members(host, existing)
    serves = (existing.proved or existing.state == "ready") and bool(living) and living[0].pid == existing.pid
    if serves and not same:
        record.remember_replaced(host, existing)
    _end(host, existing, grace_s=GRACE_S if serves else _INTERRUPTED_GRACE_S)


def _give_up(host: Host, server: Server) -> None:
    try:
        _end(host, server, grace_s=_INTERRUPTED_GRACE_S)
    except KeyboardInterrupt:
        _end(host, server, grace_s=0.0)  # asked twice: no more patience, but nothing stays behind
    record.save(host, msgspec.structs.replace(server, state="stopped"))


def _end(host: Host, server: Server, *, grace_s: float) -> int:
    """End all processes of a server: how many there were. The first is asked, all are made to in the end."""
    ended = int(contained.end(host, server, grace_s=grace_s)) if server.container else 0
    tracked = {process.pid: process for process in members(host, server)}
    if not tracked:
        scratch.remove(host, server.scratch)
        return ended
    _note_scratch(host, server)
    leader = tracked.get(server.pid or 0)
    asked = (leader,) if leader else tuple(tracked.values())
    _signal(host, asked, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while (alive := _alive(host, tracked)) and time.monotonic() < deadline:
        if leader and leader not in alive:
            deadline, leader = min(deadline, time.monotonic() + _ORPHANED_S), None
        time.sleep(_POLL_S)
    deadline = time.monotonic() + _KILL_S
    while alive := _alive(host, tracked | {process.pid: process for process in members(host, server)}):
        tracked |= {process.pid: process for process in alive}
        _signal(host, alive, signal.SIGKILL)
        if time.monotonic() > deadline:
            pids = ", ".join(str(process.pid) for process in alive)
            raise ServingFailed(
                f"processes {pids} of the server `{server.name}` cannot be killed",
                hint="they wait inside the kernel, most often for a GPU driver that hangs: `sgprov doctor`",
            )
        time.sleep(_POLL_S)
    scratch.remove(host, server.scratch)
    return len(tracked)


def _note_scratch(host: Host, server: Server) -> None:
    if server.pid and server.scratch:
        scratch.note(host, server.scratch, pid=server.pid, started=server.started_ticks)


def _alive(host: Host, tracked: Mapping[int, ProcessStat]) -> tuple[ProcessStat, ...]:
    return tuple(process for process in tracked.values() if processes.same(host, process))


def _signal(host: Host, those: tuple[ProcessStat, ...], number: int) -> None:
    for process in those:
        if processes.same(host, process):
            host.signal(process.pid, number)


def _asks_itself(host: Host) -> dict[str, str]:
    """The engine asks itself over HTTP before it is ready. A company's proxy would answer in its place, and a login in
    ~/.netrc would go to it in place of the server's key.
    """
    given = host.variable("NO_PROXY") or host.variable("no_proxy") or ""
    entries = ",".join(dict.fromkeys([*filter(None, given.split(",")), "127.0.0.1", "localhost", "::1"]))
    return {"NO_PROXY": entries, "no_proxy": entries, "NETRC": os.devnull}


@contextmanager
def _alone(directory: str) -> Iterator[None]:
    """Two runs at once must not start two servers by one name."""
    with Path(directory, "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
