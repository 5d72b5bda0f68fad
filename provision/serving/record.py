"""What is remembered of a server that was started: one small file, so that any later run can find it again."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from provision.catalog.rows import Serve
from provision.documents import decode_json
from provision.errors import UsageError
from provision.host.view import Host, HostView
from provision.secrets import mask
from provision.serving import keys, processes
from provision.serving.launch import Asked, Inside, Launch
from provision.serving.out_of_memory import Kills
from provision.serving.ports import DerivedPort
from provision.serving.processes import ProcessStat

State = Literal["starting", "ready", "failed", "stopped"]
_NOW, _REPLACED = "server.json", "server.json.previous"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """One start of a server. `pid` is None until it runs, `started_ticks` names its process beyond doubt.

    `argv` is what restart needs, unmasked, in a file that only its owner reads; show `public()` instead. `serve`,
    `python` and `given` are what the command was rendered from: with them it can be rendered for another environment.
    `asked` is what the user asked for: it holds again until something else is asked for.
    `scratch` is where its temporary files are, empty where they are in its container. `kills` is what the kernel had
    killed before it, `ending` how one that failed did. `proved` is one that was ready before, with the same settings:
    it is worth going back to before it is ready again.
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
    ports: tuple[DerivedPort, ...] = ()
    serve: Serve | None = None
    python: str | None = None
    given: dict[str, str] = {}
    key_file: str | None = None
    asked: Asked | None = None
    state: State = "starting"
    pid: int | None = None
    started_ticks: int = 0
    ready_after_s: float | None = None
    container: Inside | None = None
    scratch: str = ""
    kills: Kills | None = None
    ending: str = ""
    supervised: bool = False
    proved: bool = False
    schema: int = 1

    @property
    def launch(self) -> Launch:
        """What it was started with, to start it again."""
        return Launch(
            engine=self.engine,
            version=self.version,
            argv=self.argv,
            variables=self.variables,
            url=self.url,
            model=self.model,
            ports=self.ports,
            serve=self.serve,
            python=self.python,
            given=self.given,
            key_file=self.key_file,
            asked=self.asked,
            container=self.container,
        )

    def runs(self, launch: Launch) -> bool:
        """Whether it was started with that very launch."""
        return (self.argv, self.variables) == (launch.argv, launch.variables)

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
    return _read(host, f"{directory}/{_NOW}")


def save(host: Host, server: Server) -> Server:
    """Write the record, readable by its owner only; the same server, for chaining."""
    _write(host, f"{server.directory}/{_NOW}", server)
    return server


def replaced(host: HostView, directory: str) -> Server | None:
    """The server that served before the one there is now, as long as that one has not proved itself."""
    return _read(host, f"{directory}/{_REPLACED}")


def remember_replaced(host: Host, server: Server) -> None:
    """Keep the record of a server that is about to be replaced; one that is kept already served last."""
    if replaced(host, server.directory) is None:
        keys.remember_replaced(host, server.directory)
        _write(host, f"{server.directory}/{_REPLACED}", server)


def forget_replaced(host: Host, directory: str) -> None:
    """The server there is now has proved itself, or none is wanted any more."""
    host.remove(f"{directory}/{_REPLACED}")
    keys.forget_replaced(host, directory)


def _read(host: HostView, path: str) -> Server | None:
    text = host.read(path)
    if text is None:
        return None
    try:
        return decode_json(text, Server)
    except msgspec.MsgspecError:
        return None


def _write(host: Host, path: str, server: Server) -> None:
    text = msgspec.json.format(msgspec.json.encode(server), indent=2).decode()
    host.write(path, text + "\n", mode=0o600)


def members(host: HostView, server: Server) -> tuple[ProcessStat, ...]:
    """The server's living processes, the one that was started first; none after a reboot or on another machine."""
    if server.boot != processes.boot_id(host) or server.machine != processes.machine_name(host):
        return ()
    return processes.tree(host, pid=server.pid, started=server.started_ticks, marker=server.id)


def names(host: HostView, servers: str) -> tuple[str, ...]:
    """The names of all servers that were ever started there."""
    return tuple(path.split("/")[-2] for path in host.glob(f"{servers}/*/server.json"))
