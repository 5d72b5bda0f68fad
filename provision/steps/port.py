"""The step that sees to free ports: the server's own and those the engine derives from it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from provision.containers import engine
from provision.errors import ProbeError, StepFailed
from provision.host import Host, HostView, Listener
from provision.secrets import mask
from provision.serving import commands, processes, record
from provision.serving.ports import HIGHEST, DerivedPort
from provision.steps.base import Progress

_PATIENCE_S = 10.0
_POLL_S = 0.1
_SHOWN_COMMAND = 120
# Who only hands a port on, or must never be ended: (process name, what to do instead).
_UNTOUCHABLE = {
    "sshd": "it is how this machine is reached; choose another port",
    "systemd": "stop its unit: `systemctl list-sockets`",
    "init": "stop the service that it runs",
    "docker-proxy": "stop the container: `docker ps --filter publish={port}`",
    "dockerd": "stop the container: `docker ps --filter publish={port}`",
    "rootlessport": "stop the container: `podman ps --filter publish={port}`",
}


@dataclass(frozen=True, kw_only=True)
class Port:
    """Nobody else listens on `ports`, the server's own first. With `free` their owners are stopped.

    `server` is the directory of our own server's record: where that very server listens, all is well.
    """

    ports: tuple[int, ...]
    free: bool = False
    server: str | None = None
    patience_s: float = _PATIENCE_S

    @property
    def id(self) -> str:
        return "port"

    @property
    def looks_only(self) -> bool:
        return not self.free

    def preview(self) -> str:
        others = f" and {len(self.ports) - 1} derived from it" if len(self.ports) > 1 else ""
        return f"{'free' if self.free else 'see that nobody uses'} port {self.ports[0]}{others}"

    def satisfied(self, host: HostView) -> bool:
        try:
            return not self._strangers(host)
        except StepFailed:
            return False

    def apply(self, host: Host, tell: Callable[[Progress], None]) -> str:
        self.check(host)
        named = strangers = self._strangers(host)
        for stranger in strangers:
            tell(Progress(text=f"stopping: {describe(stranger, self.ports[0])}", milestone=True, stays=True))
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not strangers:
                break
            for pid in {stranger.pid for stranger in strangers if stranger.pid}:
                host.signal(pid, number)
            strangers = self._wait(host)
        if strangers:
            raise StepFailed(
                f"{describe(strangers[0], self.ports[0])}: it came back after it was stopped",
                hint="something starts it again (a service manager, a container); stop it there, or use `--port auto`",
            )
        stopped = dict.fromkeys(f"stopped {owner(one)}" for one in named)
        return "; ".join([*stopped, f"port {self.ports[0]} is free"])

    def check(self, view: HostView) -> None:
        strangers = self._strangers(view)
        if containers := engine.on_port(view, self.ports[0]) if strangers else ():
            # Whoever listens only hands the port on; the container is what users know.
            program, name, image = containers[0]
            raise StepFailed(
                f"port {self.ports[0]} is taken by the container `{name}` ({image})",
                hint=f"`{program} stop {name}`, or `--port auto` takes the next free one",
            )
        if strangers and not self.free:
            raise StepFailed(
                "\n".join(describe(one, self.ports[0]) for one in strangers), hint=self._hint(view, strangers)
            )
        for stranger in strangers:
            _refuse_untouchable(view, stranger)

    def _strangers(self, view: HostView) -> tuple[Listener, ...]:
        """Listeners on our ports that are not our own server, one for each port and process."""
        taken = [listener for listener in _listeners(view) if listener.port in self.ports]
        if taken and self._is_published(view):
            return ()
        ours = self._ours(view) if taken else frozenset[int]()
        return tuple({(one.port, one.pid): one for one in taken if one.pid not in ours}.values())

    def _ours(self, view: HostView) -> frozenset[int]:
        server = record.load(view, self.server) if self.server else None
        if server is None or server.pid is None:
            return frozenset()
        tree = processes.tree(view, pid=server.pid, started=server.started_ticks, marker=server.id)
        return frozenset(process.pid for process in tree)

    def _is_published(self, view: HostView) -> bool:
        """Whether our own server's container has the port: who listens then is a part of the container's engine."""
        server = record.load(view, self.server) if self.server else None
        if server is None or server.container is None:
            return False
        ours = (server.container.program, server.container.name)
        return any((program, name) == ours for program, name, _ in engine.on_port(view, self.ports[0]))

    def _wait(self, host: Host) -> tuple[Listener, ...]:
        deadline = time.monotonic() + self.patience_s
        while (left := self._strangers(host)) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return left

    def _hint(self, view: HostView, strangers: tuple[Listener, ...]) -> str:
        unseen = next((one for one in strangers if one.pid is None), None)
        if unseen:
            return f"`sudo ss -ltnp 'sport = :{unseen.port}'` says who it is; `--port auto` takes another port"
        # A server of ours under another prefix has a better end than a signal.
        pid = strangers[0].pid or 0
        prefix = processes.prefix_of(view, pid, {one.pid: one.command for one in view.processes()})
        command = f"kill {pid}" if prefix is None else commands.stop(view, prefix, pid)
        base = self.ports[0]
        try:
            free = next_free(view, base + 1, lambda port: (one - base + port for one in self.ports))
        except StepFailed:
            return f"`--free-port` stops it, or: `{command}`; no higher port is free, `--port` names a lower one"
        return f"`--free-port` stops it, `--port auto` takes the next free one ({free}), or: `{command}`"


def needed(derived: Iterable[DerivedPort]) -> tuple[int, ...]:
    """The ports that all have to be free, the server's own first."""
    ranges = (range(one.first, one.last + 1) for one in derived if one.fixed)
    return tuple(dict.fromkeys(port for ports in ranges for port in ports))


def next_free(view: HostView, start: int, ports_of: Callable[[int], Iterable[int]]) -> int:
    """The first port from `start` on whose derived ports (`ports_of`) are free as well.

    Raises `StepFailed` where there is none, or where it cannot be told.
    """
    taken = {listener.port for listener in _listeners(view)}
    for port in range(start, HIGHEST + 1):
        wanted = set(ports_of(port)) | {port}
        if not wanted & taken and max(wanted) <= HIGHEST:
            return port
    raise StepFailed(f"no port from {start} on is free together with those derived from it")


def _listeners(view: HostView) -> tuple[Listener, ...]:
    try:
        return view.listeners()
    except ProbeError as error:
        hint = "with a port of your own choice, `--skip port` leaves it to the engine to find it taken"
        raise StepFailed(f"whether a port is free cannot be told: {error}", hint=hint) from error


def describe(listener: Listener, base: int) -> str:
    """Such as `port 30000 is taken by pid 4711, user root: python3 -m http.server 30000`, with secrets masked."""
    port = f"port {listener.port}" + (f" (derived from {base})" if listener.port != base else "")
    return f"{port} is taken by {owner(listener)}"


def owner(listener: Listener) -> str:
    """Such as `pid 4711, user root: python3 -m http.server 30000`, with secrets masked."""
    if listener.pid is None:
        return "a process that this user may not see"
    command = mask(listener.command or listener.process or "?")
    command = command if len(command) <= _SHOWN_COMMAND else command[:_SHOWN_COMMAND] + "…"
    return f"pid {listener.pid}, user {listener.user or '?'}: `{command}`"


def _refuse_untouchable(view: HostView, listener: Listener) -> None:
    """Raise `StepFailed` for a listener that is not ours to end, whatever the user asked for."""
    said = describe(listener, listener.port)
    if listener.pid is None:
        raise StepFailed(said, hint=f"`sudo ss -ltnp 'sport = :{listener.port}'` says who it is")
    name = "systemd" if listener.pid == 1 else listener.process or ""
    if instead := _UNTOUCHABLE.get(name):
        raise StepFailed(f"{said}; it is not stopped", hint=instead.format(port=listener.port))
    if listener.pid in _ancestors(view):
        # A notebook's terminal, for one: stopping it would end this very command.
        raise StepFailed(f"{said}; this command runs inside of it", hint="use another port: `--port auto`")


def _ancestors(view: HostView) -> frozenset[int]:
    """Ourselves and every process above."""
    parents = {process.pid: process.parent for process in view.processes()}
    found, pid = set[int](), os.getpid()
    while pid and pid not in found:
        found.add(pid)
        pid = parents.get(pid, 0)
    return frozenset(found)
