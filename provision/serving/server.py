"""The life of a server: started detached, found again by its record, and ended with everything that came of it.

What serves is ended last: the record and the log of its successor are written before, and the successor's own start
writes nothing that must succeed. So a full disk, an exception, or the end of this very command leaves one of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import msgspec

from provision.catalog.engines import engine
from provision.errors import ServingFailed, StepFailed, UsageError
from provision.host.view import Host, HostView
from provision.serving import contained, keys, record, starting, watchman
from provision.serving.ending import GRACE_S, INTERRUPTED_GRACE_S, Ended, counted, end
from provision.serving.launch import Launch
from provision.serving.listening import check_free
from provision.serving.lock import alone
from provision.serving.phases import LaunchLog, Phase
from provision.serving.preflight import check_launch
from provision.serving.readiness import Wait
from provision.serving.record import Server, members
from provision.serving.status import status

READY_TIMEOUT_S = 1800.0


def start(
    host: Host,
    servers: str,
    launch: Launch,
    *,
    name: str = "default",
    stack: str | None = None,
    replacing: bool = False,
    again: bool = False,
    key: str | None = None,
    grace_s: float = GRACE_S,
    tell: Callable[[str], None] = lambda _: None,
) -> Server:
    """Start a server, detached, and return at once; the one that runs already where it is the same.

    `servers` is the directory of all servers. `replacing` ends the one that runs by that name with other settings; if
    it was ready, `restore` starts it again. `again` ends the same one, too. `key` is for a launch with a key file;
    without one it finds the key that is there. `tell` hears what is waited for, and what was found out of order.
    Raises, with everything as it was: `UsageError` where another runs by that name, `ServingFailed` where a port that
    it needs is taken, `StepFailed` where it cannot be started.
    """
    directory = record.directory_of(servers, name)
    host.make_directory(directory, mode=0o700)
    with alone(host, directory, tell=tell):
        if mended := record.mend(host, directory):
            tell(mended)
        existing = record.load(host, directory)
        same = existing is not None and existing.runs(launch) and (key is None or keys.of(host, directory) == key)
        if existing and _running_well(host, existing, same=same, replacing=replacing or again) and not again:
            return existing
        # Before anything is ended: what serves is not taken down for a launch that cannot be.
        check_free(host, launch, instead_of=existing)
        if existing and _serves(host, existing):
            check_launch(host, launch)
        # Whoever supervises the one that was there goes on with the one that takes its place.
        supervised = existing is not None and existing.supervised and existing.state in {"starting", "ready"}
        started = starting.new(host, directory, launch, stack=stack, supervised=supervised and launch.container is None)
        with starting.prepared(host, started) as started:
            _make_room(
                host, directory, existing, same=same, key=key if launch.key_file else None, grace_s=grace_s, tell=tell
            )
            return starting.launched(host, started)


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
        now = record.written(host, server.directory)
        if now is None or (now.id == server.id and now.state != "stopped"):
            end(host, server, grace_s=INTERRUPTED_GRACE_S)
            record.note(host, msgspec.structs.replace(server, state="failed", ending=wait.ending))
        raise
    except BaseException:
        _give_up(host, server)
        raise
    starting.note_scratch(host, server)
    with alone(host, server.directory, needed=False):
        # Stopped at this very moment, it stays stopped: who keeps it up would start it again.
        now = record.written(host, server.directory)
        if now and now.id == server.id and now.state == "stopped":
            raise ServingFailed(f"the server `{server.name}` was stopped as soon as it was ready")
        return record.note(host, msgspec.structs.replace(server, state="ready", ready_after_s=round(seconds, 2)))


@contextmanager
def undone_if_interrupted(host: Host, servers: str, *, name: str = "default") -> Iterator[None]:
    """Around `start` and `wait_until_ready`: left by an exception, between the two too, what was started is ended."""
    directory = record.directory_of(servers, name)
    before = record.load(host, directory)
    try:
        yield
    except BaseException:
        now = record.load(host, directory)
        if now and now.state == "starting" and (before is None or now.id != before.id):
            _give_up(host, now)
        raise


def restore(
    host: Host, servers: str, *, name: str = "default", tell: Callable[[str], None] = lambda _: None
) -> Server | None:
    """Start the server again that another one replaced without proving itself; None where none was. Does not wait."""
    directory = record.directory_of(servers, name)
    host.make_directory(directory, mode=0o700)
    with alone(host, directory, tell=tell, needed=False):
        replaced = record.replaced(host, directory)
        if replaced is None:
            return None
        if existing := record.load(host, directory):
            end(host, existing, grace_s=INTERRUPTED_GRACE_S)
        check_free(host, replaced.launch)
        record.bring_back_replaced(host, directory)
        return starting.launched(host, msgspec.structs.replace(replaced, started=starting.now()), prepared=False)


def start_again(host: Host, server: Server) -> Server:
    """Start a server once more, with what it was started with, in place of whatever has its name. Does not wait."""
    with alone(host, server.directory):
        if existing := record.load(host, server.directory):
            end(host, existing, grace_s=INTERRUPTED_GRACE_S)
        return starting.like(host, server)


def stop(
    host: Host,
    servers: str,
    *,
    name: str = "default",
    grace_s: float = GRACE_S,
    tell: Callable[[str], None] = lambda _: None,
) -> Ended | None:
    """End a server and everything that came of it; what that came to, None where there was nothing to end.

    It needs no room on the disk. Raises `UsageError` where no such server was ever started, `ServingFailed` where a
    process does not go away.
    """
    server = known(host, servers, name=name)
    if record.is_elsewhere(host, server):
        raise _elsewhere(server, hint=f"stop it there; if that machine is gone: `sgprov serve remove {server.name}`")
    with alone(host, server.directory, tell=tell, needed=False):
        with suppress(StepFailed):
            if mended := record.mend(host, server.directory):
                tell(mended)
        server = record.load(host, server.directory) or server
        ended = end(host, server, grace_s=grace_s, tell=tell)
        try:
            if server.state not in {"stopped", "failed"}:
                record.save(host, msgspec.structs.replace(server, state="stopped"))
            record.forget_replaced(host, server.directory)
        except StepFailed as problem:
            # Whoever keeps it up reads there that it is not to be started again.
            watchman.end(host, server.directory)
            tell(f"it was stopped, and that could not be written down: {problem}")
    return ended if ended.processes else None


def restart(
    host: Host,
    servers: str,
    *,
    name: str = "default",
    launch: Launch | None = None,
    stack: str | None = None,
    grace_s: float = GRACE_S,
    tell: Callable[[str], None] = lambda _: None,
) -> Server:
    """Stop, then start: with another launch (of `stack`), or again with what it was started with. Does not wait.

    What serves is not stopped before it is seen that it can be started; with another launch, `restore` goes back.
    """
    server = known(host, servers, name=name)
    return start(
        host,
        servers,
        launch or server.launch,
        name=name,
        stack=stack or server.stack,
        again=True,
        grace_s=grace_s,
        tell=tell,
    )


def remove(host: Host, servers: str, *, name: str, tell: Callable[[str], None] = lambda _: None) -> None:
    """Forget a server that does not run, or ran on a machine that is gone: its record, logs and key.

    Raises `UsageError` where it runs, or is not known.
    """
    directory = record.directory_of(servers, name)
    if name not in record.names(host, servers):
        known(host, servers, name=name)
    with alone(host, directory, tell=tell, needed=False):
        server = record.load(host, directory)
        if server and not record.is_elsewhere(host, server):
            if members(host, contained.current(host, server)):
                raise UsageError(
                    f"the server `{name}` runs (pid {server.pid})", hint=f"`sgprov serve stop {name}` first"
                )
            if server.container:
                contained.end(host, server, grace_s=0)
        host.remove(directory)


def revive(host: Host, server: Server) -> Server | None:
    """Start a server that died again, with what it was started with; None where somebody else did, or stopped it."""
    with alone(host, server.directory):
        now = record.load(host, server.directory) or server
        if now.id != server.id or now.state == "stopped":
            return None
        end(host, now, grace_s=INTERRUPTED_GRACE_S)
        return starting.like(host, now, restarts=now.restarts + 1)


def died(host: Host, server: Server) -> bool:
    """Whether a server whose process has ended did so by itself: nobody stops or replaces it at this moment."""
    with alone(host, server.directory, needed=False):
        now = record.load(host, server.directory) or server
        return now.id == server.id and now.state != "stopped"


def known(host: HostView, servers: str, *, name: str = "default") -> Server:
    """The record of a server. Raises `UsageError` with the names there are."""
    directory = record.directory_of(servers, name)
    server = record.load(host, directory)
    if server is not None:
        return server
    if found := record.damage(host, directory):
        raise UsageError(
            f"{found.text}, and nothing of its server runs",
            hint=f"`sgprov serve remove {name}` forgets it; `sgprov bootstrap` puts another in its place",
        )
    names = ", ".join(f"`{other}`" for other in record.names(host, servers))
    raise UsageError(
        f"no server `{name}` was started here", hint=f"there are {names}" if names else "`sgprov bootstrap` starts one"
    )


def refuse_elsewhere(host: HostView, existing: Server) -> None:
    """Raise `UsageError` where the server of that name runs on another machine."""
    if record.is_elsewhere(host, existing):
        raise _elsewhere(
            existing,
            hint=f"choose another name with `--name`; if that machine is gone: `sgprov serve remove {existing.name}`",
        )


def _running_well(host: Host, existing: Server, *, same: bool, replacing: bool) -> bool:
    """Whether the server runs with the `same` launch, and is well.

    Raises `UsageError` where it runs on another machine, or with another launch and is not to be replaced.
    """
    refuse_elsewhere(host, existing)
    existing = contained.current(host, existing)
    running = members(host, existing)
    if not running or running[0].pid != existing.pid:
        return False
    if not same:
        if replacing:
            return False
        raise UsageError(
            f"the server `{existing.name}` runs already, with other settings (pid {existing.pid})",
            hint=f"`sgprov serve stop {existing.name}` first, or choose another name with `--name`",
        )
    # One that hangs or breaks down is not the server that was asked for: starting again is the repair.
    return status(host, existing).health in {"running", "starting"}


def _serves(host: Host, existing: Server) -> bool:
    """Whether it was ready once and still lives: what is not well, or left children behind, is not worth keeping."""
    existing = contained.current(host, existing)
    living = members(host, existing)
    return (existing.proved or existing.state == "ready") and bool(living) and living[0].pid == existing.pid


def _make_room(
    host: Host,
    directory: str,
    existing: Server | None,
    *,
    same: bool,
    key: str | None,
    grace_s: float,
    tell: Callable[[str], None],
) -> None:
    """Leave the key, and end what is there; what serves is remembered until the one in its place has proved itself."""
    serves = existing is not None and _serves(host, existing)
    remembered = existing is not None and serves and not same and record.remember_replaced(host, existing)
    try:
        if key:
            keys.give(host, directory, key)
    except BaseException:
        if remembered:
            record.take_back_replaced(host, directory)
        raise
    # A container that is left over from a stop goes before the next one starts.
    if existing and not (existing.container and existing.state == "stopped"):
        existing = contained.current(host, existing)
        _tell_cut(end(host, existing, grace_s=grace_s if serves else INTERRUPTED_GRACE_S, tell=tell), tell)


def _tell_cut(ended: Ended, tell: Callable[[str], None]) -> None:
    if ended.cut:
        tell(f"{counted(ended.cut)} had no answer yet and were cut off")


def _give_up(host: Host, server: Server) -> None:
    try:
        end(host, server, grace_s=INTERRUPTED_GRACE_S)
    except KeyboardInterrupt:
        end(host, server, grace_s=0.0)  # asked twice: no more patience, but nothing stays behind
    record.note(host, msgspec.structs.replace(server, state="stopped"))


def _elsewhere(server: Server, *, hint: str) -> UsageError:
    return UsageError(f"the server `{server.name}` runs on `{server.machine}`", hint=hint)
