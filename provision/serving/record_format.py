"""What a server's record holds, and what a text must be to be one: what stands in it is started, asked and stopped."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from provision.catalog.engines import engine
from provision.catalog.rows import Serve
from provision.documents import decode_json
from provision.errors import ProvisionError
from provision.secrets import mask
from provision.serving import keys
from provision.serving.launch import Asked, Inside, Launch
from provision.serving.out_of_memory import Kills
from provision.serving.ports import DerivedPort

LOG = "server.log"
# Many times what any command line and its settings take.
_MOST_CHARACTERS = 1024 * 1024
# As container engines have it.
_CONTAINER = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,200}")

State = Literal["starting", "ready", "failed", "stopped"]
Id = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z]{1,64}\Z")]
# 0 and 1 are nobody's server, and a negative one is a whole group, or everybody.
Pid = Annotated[int, msgspec.Meta(gt=1, lt=2**31)]
Ticks = Annotated[int, msgspec.Meta(ge=0)]


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """One start of a server. `pid` is None until it runs, `started_ticks` names its process beyond doubt.

    `argv` is what restart needs, unmasked, in a file that only its owner reads; show `public()` instead. `serve`,
    `python` and `given` are what the command was rendered from: with them it can be rendered for another environment.
    `scratch` is where its temporary files are, empty where they are in its container. `kills` is what the kernel had
    killed before it, `ending` how one that failed did. `restarts` is how often a
    supervisor has started it again. `asked` is what the user asked for: it holds again until
    something else is asked for. `proved` is one that was ready before, with the same settings: it is worth going back
    to before it is ready again.
    `name`, `directory`, `log` and `key_file` are what the place of the record makes them, whatever stands in it.
    """

    id: Id
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
    pid: Pid | None = None
    started_ticks: Ticks = 0
    ready_after_s: float | None = None
    container: Inside | None = None
    scratch: str = ""
    kills: Kills | None = None
    ending: str = ""
    supervised: bool = False
    restarts: int = 0
    proved: bool = False
    schema: int = 1

    @property
    def target(self) -> str | None:
        """The target that it was started as, where its record says so."""
        return self.asked.settings.get("target") if self.asked else None

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


def parse(text: str, directory: str) -> Server:
    """The record that was found in `directory`. Raises `ValueError` for what cannot be one."""
    if not text.strip():
        raise ValueError("it is empty")
    if len(text) > _MOST_CHARACTERS:
        raise ValueError("it is larger than any record")
    server = decode_json(text, Server)
    if problem := _objection(server):
        raise ValueError(problem)
    return msgspec.structs.replace(
        server,
        name=directory.rpartition("/")[2],
        directory=directory,
        log=f"{directory}/{LOG}",
        key_file=f"{directory}/{keys.FILE}" if server.key_file is not None else None,
    )


def encode(server: Server) -> str:
    return msgspec.json.encode(server).decode()


def _objection(server: Server) -> str | None:
    """Why what has the right types cannot be a record all the same."""
    try:
        engine(server.engine).probe(server.version)
        parts = urlsplit(server.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or not parts.port:
            return f"`{server.url[:80]}` is not the address of a server"
    except (ProvisionError, ValueError, IndexError) as error:
        return str(error)
    texts = (*server.argv, *server.variables, *server.variables.values())
    if server.argv[:1] == ("",) or any("\0" in text for text in texts) or any("=" in name for name in server.variables):
        return "its command cannot be started"
    if server.container and not _CONTAINER.fullmatch(server.container.name):
        return f"`{server.container.name[:80]}` cannot name a container"
    return None
