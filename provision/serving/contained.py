"""A server in a container, made to look like a process: its first process by pid, its output in a file.

Nobody but the engine may end it, and only the engine knows how it ended; for the rest, what holds for processes holds
for it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise

import msgspec

from provision import config
from provision.catalog.engines import engine as engine_named
from provision.containers import engine
from provision.containers.engine import Seen, Silent
from provision.errors import CommandFailed, ServingFailed, StepFailed
from provision.host.view import Host, HostView
from provision.serving import inherited, keys, log, processes
from provision.serving.launch import Inside
from provision.serving.record import Server, marks, members, save

_START_S = 120.0
# How long the last lines of a container that has ended may be on their way into the log.
_LINES_S = 2.0
_POLL_S = 0.05
_LOOK_S = 0.5
# What engines send by themselves.
_USUAL = "SIGTERM"


def start(host: Host, server: Server, container: Inside) -> int:
    """Start the container and what copies its output into the log; the pid of its first process, 0 if it has ended.

    Raises `StepFailed` where a key is missing, `ServingFailed` where the port is taken.
    """
    secrets = secrets_of(container)
    keys.leave_script(host, server.directory)
    engine.end(host, container.program, container.name, grace_s=0)  # left by a start that was interrupted
    # The words after `run --detach`: the marker is of this start, the rest of every start with these settings.
    more = [f"{processes.MARKER}={server.id}", *_inherited(host, server)]
    argv = [*server.argv[:3], *(word for one in more for word in ("--env", one)), *server.argv[3:]]
    try:
        host.run(argv, timeout_s=_START_S, variables=secrets)
    except CommandFailed as error:
        # An engine that could not start it has made it all the same.
        engine.end(host, container.program, container.name, grace_s=0)
        raise engine.explain(error, program=container.program, port=container.port, view=host) from error
    follow(host, server, container)
    seen = engine.look(host, container.program, container.name)
    if isinstance(seen, Seen) and seen.runs and processes.find(host, seen.pid) is None:
        engine.end(host, container.program, container.name, grace_s=0)
        raise ServingFailed(
            f"the container runs on another machine than this: `{container.program}` is led there by DOCKER_HOST",
            hint="run sgprov on that machine, or `unset DOCKER_HOST`",
        )
    return seen.pid if isinstance(seen, Seen) else 0


def secrets_of(container: Inside) -> dict[str, str | None]:
    """The values of the variables that the container needs. Raises `StepFailed` where one is not set."""
    secrets = {name: config.secret(name) for name in container.secrets}
    if missing := [name for name, value in secrets.items() if not value]:
        raise StepFailed(
            f"{' and '.join(missing)} is not set, and the container needs it",
            hint=f"`export {missing[0]}=…`; it is handed on by name and written nowhere",
        )
    return secrets


def _inherited(host: Host, server: Server) -> Iterator[str]:
    """Names of the caller's variables that the engine in it reads, but for what the launch says itself."""
    told = {word.partition("=")[0] for flag, word in pairwise(server.argv) if flag == "--env"}
    yield from (name for name in inherited.for_container(host.environment()) if name not in told)


def follow(host: Host, server: Server, container: Inside, *, since: str = "") -> None:
    """Copy the container's output into the server's log, until it ends; that of its latest life with `since`."""
    argv = [container.program, "logs", "--follow", *(["--since", since] if since else []), container.name]
    host.start(argv, log=server.log, variables=marks(server))


def end(host: Host, server: Server, *, grace_s: float) -> bool:
    """Stop and remove the container; whether there was one. Its engine waits, and kills in the end."""
    container = server.container
    if container is None:
        return False
    start = time.monotonic()
    drain = engine_named(server.engine).drain
    # An engine that starts it again would do so when it has answered what it had.
    if drain != _USUAL and server.state == "ready" and container.restarts == 0 and grace_s > 0:
        with suppress(CommandFailed):
            host.run([container.program, "kill", "--signal", drain, container.name], timeout_s=_START_S)
            while time.monotonic() - start < grace_s and _runs(host, container):
                time.sleep(_LOOK_S)
    left = max(0.0, grace_s - (time.monotonic() - start))
    return engine.end(host, container.program, container.name, grace_s=left)


def _runs(view: HostView, container: Inside) -> bool:
    seen = engine.look(view, container.program, container.name)
    return isinstance(seen, Seen) and seen.runs


def current(view: HostView, server: Server) -> Server:
    """The record with the process that runs now: an engine that restarts a container starts another one."""
    container = server.container
    if container is None or server.state in {"stopped", "failed"}:
        return server
    if server.pid and (process := processes.find(view, server.pid)) and process.started == server.started_ticks:
        return server
    seen = engine.look(view, container.program, container.name)
    if not isinstance(seen, Seen) or not seen.runs:
        return server
    process = processes.find(view, seen.pid)
    return msgspec.structs.replace(server, pid=seen.pid, started_ticks=process.started if process else 0)


def adopt(host: Host, server: Server) -> Server:
    """The record of a container that its engine started again, with the log of its new life; as it is otherwise."""
    again, container = current(host, server), server.container
    if again == server or container is None:
        return server
    seen = engine.look(host, container.program, container.name)
    log.begin(host, server.log)
    follow(host, again, container, since=seen.started if isinstance(seen, Seen) else "")
    log.keep(host, again.log, pid=again.pid or 0, started=again.started_ticks)
    return save(host, msgspec.structs.replace(again, state="starting", ready_after_s=None))


def settle(view: HostView, server: Server) -> None:
    """Wait until the last lines of a container that has ended are in the log."""
    deadline = time.monotonic() + _LINES_S
    while server.container and members(view, server) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def ending(view: HostView, server: Server) -> str:
    """How its container ended, such as `: its container was killed by signal 9`; empty where it has none."""
    container = server.container
    if container is None:
        return ""
    seen = engine.look(view, container.program, container.name)
    if isinstance(seen, Silent):
        return f" ({seen.reason})"
    if seen is None or seen.runs:
        return ""
    again = f" after {seen.restarts} restarts" if seen.restarts else ""
    return f" (its container {seen.ending}{again})"
