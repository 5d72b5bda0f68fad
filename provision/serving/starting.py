"""Start the process or container of a server, in the place of another: its record and log are written before."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from provision.environments.layout import BYTECODE
from provision.errors import ProvisionError, UsageError
from provision.host.view import Host
from provision.serving import contained, inherited, log, out_of_memory, processes, record, scratch
from provision.serving.launch import Launch
from provision.serving.record import Server


def new(
    host: Host, directory: str, launch: Launch, *, stack: str | None, supervised: bool = False, proved: bool = False
) -> Server:
    """The record of a start that is about to be. Raises `UsageError` where there is nothing to start."""
    if not launch.argv:
        raise UsageError(
            f"the record in `{directory}` holds no command",
            hint="`sgprov serve start --target NAME` starts it with one",
        )
    return Server(
        id=uuid.uuid4().hex,
        name=directory.rpartition("/")[2],
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
        log=f"{directory}/{record.LOG}",
        started=now(),
        machine=processes.machine_name(host),
        boot=processes.boot_id(host),
        container=launch.container,
        kills=out_of_memory.kills(host),
        supervised=supervised,
        proved=proved,
    )


def like(host: Host, server: Server, *, restarts: int = 0) -> Server:
    """Start a server with what another was started with. Does not wait."""
    again = new(
        host,
        server.directory,
        server.launch,
        stack=server.stack,
        supervised=server.supervised,
        proved=server.proved or server.state == "ready",
    )
    with prepared(host, msgspec.structs.replace(again, restarts=restarts)) as ready_to_start:
        return launched(host, ready_to_start)


@contextmanager
def prepared(host: Host, server: Server) -> Iterator[Server]:
    """The record, the log and the directory of a start are made: the block need not. They are removed where it fails.

    The record says where the directory is.
    """
    try:
        server = _with_scratch(host, server)
        record.prepare(host, server)
        log.prepare(host, server.log)
        yield server
    except BaseException:
        with suppress(ProvisionError):
            log.drop_prepared(host, server.log)
            if record.drop_prepared(host, server.directory):
                scratch.remove(host, server.scratch)
        raise


def launched(host: Host, server: Server, *, prepared: bool = True) -> Server:
    """Start the process. Its record is in force before: killed between the two, its id still finds the process."""
    log.begin(host, server.log)
    if prepared:
        record.put_in_force(host, server.directory)
    else:
        server = _with_scratch(host, server)
    try:
        if server.container:
            pid = contained.start(host, server, server.container)
        else:
            own = {"TMPDIR": server.scratch, "PYTHONPYCACHEPREFIX": _bytecode(server), **record.marks(server)}
            variables = {**inherited.withheld(host.environment()), **server.variables, **_asks_itself(host), **own}
            pid = host.start(server.argv, log=server.log, variables=variables)
    except ProvisionError:
        record.note(host, msgspec.structs.replace(server, state="failed"))
        scratch.remove(host, server.scratch)
        raise
    process = processes.find(host, pid)
    # The pid of what has ended already is kept, too: it is no other's.
    ticks = process.started if process else 0
    server = msgspec.structs.replace(server, pid=pid or None, started_ticks=ticks)
    note_scratch(host, server)
    if server.pid:
        log.keep(host, server.log, pid=server.pid, started=ticks)
    return record.note(host, server)


def _with_scratch(host: Host, server: Server) -> Server:
    if server.container:
        return server
    scratch.sweep(host)
    return msgspec.structs.replace(server, scratch=scratch.make(host, server.id))


def note_scratch(host: Host, server: Server) -> None:
    """Write down which temporary files a server has by now, so that none stays when it has ended."""
    if server.pid and server.scratch:
        scratch.note(host, server.scratch, pid=server.pid, started=server.started_ticks)


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _bytecode(server: Server) -> str:
    """Where Python keeps its bytecode: not in the environment, which stays as it was stamped."""
    return f"{Path(server.directory).parents[1]}/{BYTECODE}"


def _asks_itself(host: Host) -> dict[str, str]:
    """The engine asks itself over HTTP before it is ready. A company's proxy would answer in its place, and a login in
    ~/.netrc would go to it in place of the server's key.
    """
    given = host.variable("NO_PROXY") or host.variable("no_proxy") or ""
    entries = ",".join(dict.fromkeys([*filter(None, given.split(",")), "127.0.0.1", "localhost", "::1"]))
    return {"NO_PROXY": entries, "no_proxy": entries, "NETRC": os.devnull}
