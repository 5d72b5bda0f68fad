"""What is remembered of a server that was started: one small file, so that any later run can find it again."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from provision.errors import UsageError
from provision.host.view import Host, HostView
from provision.secrets import mask
from provision.serving import processes
from provision.serving.launch import Inside
from provision.serving.processes import ProcessStat

State = Literal["starting", "ready", "failed", "stopped"]
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """One start of a server. `pid` is None until it runs, `started_ticks` names its process beyond doubt.

    `argv` is what restart needs, unmasked, in a file that only its owner reads; show `public()` instead.
    """

    id: str
    name: str
    directory: str
    engine: str
    version: str
    stack: str | None
    model: str
    url: str
    argv: tuple[str, ...]
    variables: dict[str, str]
    log: str
    started: str
    machine: str
    boot: str
    state: State = "starting"
    pid: int | None = None
    started_ticks: int = 0
    ready_after_s: float | None = None
    container: Inside | None = None
    supervised: bool = False
    schema: int = 1

    def public(self) -> dict[str, object]:
        """What a report may hold of it."""
        shown = ("name", "engine", "version", "stack", "model", "url", "log", "started", "pid", "ready_after_s")
        container = {"container": self.container.name} if self.container else {}
        return {name: getattr(self, name) for name in shown} | container | {"command": mask(" ".join(self.argv))}


def directory_of(servers: str, name: str) -> str:
    """Where the server of that name keeps its record and log. Raises `UsageError` for what is no plain name."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"`{name}` cannot name a server", hint="use small letters, digits, `.`, `_` and `-`, at most 63 of them"
        )
    return f"{servers}/{name}"


def load(host: HostView, directory: str) -> Server | None:
    """The record of the last start, or None where nothing (readable) was ever started there."""
    text = host.read(f"{directory}/server.json")
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=Server)
    except msgspec.MsgspecError:
        return None


def save(host: Host, server: Server) -> Server:
    """Write the record, readable by its owner only; the same server, for chaining."""
    text = msgspec.json.format(msgspec.json.encode(server), indent=2).decode()
    host.write(f"{server.directory}/server.json", text + "\n", mode=0o600)
    return server


def members(host: HostView, server: Server) -> tuple[ProcessStat, ...]:
    """The server's living processes, the one that was started first; none after a reboot or on another machine."""
    if server.boot != processes.boot_id(host) or server.machine != processes.machine_name(host):
        return ()
    return processes.tree(host, pid=server.pid, started=server.started_ticks, marker=server.id)


def names(host: HostView, servers: str) -> tuple[str, ...]:
    """The names of all servers that were ever started there."""
    return tuple(path.split("/")[-2] for path in host.glob(f"{servers}/*/server.json"))
