"""What is remembered of a server that was started: one small file, so that any later run can find it again.

A record is believed where nobody else could have written it, and as far as it can be true: what is in it is started,
asked and stopped. One that was lost while its server runs is made anew from what the server's process inherited.
"""

from __future__ import annotations

import glob
import os
import re
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from provision.errors import ProvisionError, StepFailed, UsageError
from provision.host.view import Host, HostView
from provision.serving import keys, processes
from provision.serving.processes import ProcessStat
from provision.serving.record_format import LOG, Server, State, encode, parse

__all__ = ["FILE", "LOG", "Server", "State"]

FILE = "server.json"
_NEXT, _REPLACED, _ASIDE = f"{FILE}.next", f"{FILE}.previous", f"{FILE}.damaged"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def directory_of(servers: str, name: str) -> str:
    """Where the server of that name keeps its record and log. Raises `UsageError` for what is no plain name."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"`{name}` cannot name a server", hint="use small letters, digits, `.`, `_` and `-`, at most 63 of them"
        )
    return f"{servers}/{name}"


@dataclass(frozen=True, kw_only=True)
class Damage:
    """What is wrong with a record that is there and cannot be believed."""

    path: str
    reason: str

    @property
    def text(self) -> str:
        return f"the record `{self.path}` is damaged: {self.reason}"


def load(host: HostView, directory: str) -> Server | None:
    """The record of the last start, or None where nothing was ever started there.

    Where the record is lost and the server runs, the one that it was started with. Raises `UntrustedPath` where
    somebody else could have written it, and `NotPermitted` where it may not be read.
    """
    return _look(host, directory)[0]


def written(host: HostView, directory: str) -> Server | None:
    """The record as it is on the disk, without a look at processes; None where there is none that can be read."""
    found = _read(host, f"{directory}/{FILE}")
    return found if isinstance(found, Server) else None


def damage(host: HostView, directory: str) -> Damage | None:
    """What is wrong with the record there: it cannot be read as one, or is not that of the server that runs."""
    return _look(host, directory)[1]


def mend(host: Host, directory: str) -> str | None:
    """Put a damaged record aside, and the one of the server that runs in its place; what was done, in a sentence."""
    running, found = _look(host, directory)
    if found is None:
        return None
    aside = ""
    if host.stat(found.path) is not None:
        host.move(found.path, f"{directory}/{_ASIDE}")
        aside = f"; what was there is `{directory}/{_ASIDE}`"
    if running:
        save(host, running)
        return f"{found.text}. It was made anew from the server that runs (pid {running.pid}){aside}"
    return f"{found.text}. Nothing of its server runs{aside}"


def save(host: Host, server: Server) -> Server:
    """Write the record, readable by its owner only; the same server, for chaining."""
    path = f"{server.directory}/{FILE}"
    try:
        _write(host, path, server)
    except StepFailed:
        # A disk without room for another file takes what is no longer than what is there.
        if not _overwritten(host, path, encode(server).encode()):
            raise
    return server


def note(host: Host, server: Server) -> Server:
    """Write the record where that is possible: it says what can be found out without it."""
    with suppress(StepFailed):
        save(host, server)
    return server


def marks(server: Server) -> dict[str, str]:
    """What the processes of a server inherit, to be known by."""
    return {
        processes.MARKER: server.id,
        processes.DIRECTORY: str(Path(server.directory).resolve()),
        processes.RECORD: encode(server),
    }


def prepare(host: Host, server: Server) -> None:
    """Write the record of a start that is about to be, beside the one that is in force: so there is room for it."""
    _write(host, f"{server.directory}/{_NEXT}", server)


def put_in_force(host: Host, directory: str) -> None:
    """Make the record that was prepared the one in force. Nothing is written: a full disk is no obstacle."""
    host.move(f"{directory}/{_NEXT}", f"{directory}/{FILE}")


def drop_prepared(host: Host, directory: str) -> bool:
    """What was prepared is not going to be; whether it still was."""
    path = f"{directory}/{_NEXT}"
    was_there = host.stat(path) is not None
    host.remove(path)
    return was_there


def replaced(host: HostView, directory: str) -> Server | None:
    """The server that served before the one there is now, as long as that one has not proved itself."""
    found = _read(host, f"{directory}/{_REPLACED}")
    return found if isinstance(found, Server) else None


def remember_replaced(host: Host, server: Server) -> bool:
    """Keep the record of a server that is about to be replaced, as that of the start that would bring it back.

    False where one is kept already: that served last.
    """
    if replaced(host, server.directory) is not None:
        return False
    again = msgspec.structs.replace(
        server, id=uuid.uuid4().hex, pid=None, started_ticks=0, state="starting", ready_after_s=None, proved=True
    )
    try:
        keys.remember_replaced(host, server.directory)
        _write(host, f"{server.directory}/{_REPLACED}", again)
    except BaseException:
        with suppress(ProvisionError):
            keys.forget_replaced(host, server.directory)
        raise
    return True


def take_back_replaced(host: Host, directory: str) -> None:
    """It was not replaced after all."""
    keys.restore_replaced(host, directory)
    host.remove(f"{directory}/{_REPLACED}")


def bring_back_replaced(host: Host, directory: str) -> None:
    """Make the record of the server that was replaced the one in force. Nothing is written here either."""
    keys.restore_replaced(host, directory)
    host.move(f"{directory}/{_REPLACED}", f"{directory}/{FILE}")


def forget_replaced(host: Host, directory: str) -> None:
    """The server there is now has proved itself, or none is wanted any more."""
    host.remove(f"{directory}/{_REPLACED}")
    keys.forget_replaced(host, directory)


def _read(host: HostView, path: str) -> Server | Damage | None:
    try:
        text = host.read_state(path)
    except StepFailed as error:
        return Damage(path=path, reason=str(error))
    if text is None:
        return None
    try:
        return parse(text, str(Path(path).parent))
    except ValueError as error:
        return Damage(path=path, reason=str(error))


def _look(host: HostView, directory: str) -> tuple[Server | None, Damage | None]:
    """What is known of a server, by its record or else by its process; and what is wrong with the record."""
    path = f"{directory}/{FILE}"
    found = _read(host, path)
    if isinstance(found, Server) and (found.container or _process_lives(host, found)):
        return found, None
    running = _of_process(host, directory)
    if not isinstance(found, Server):
        if found is None and running is not None:
            found = Damage(path=path, reason=f"it is missing, and its server runs (pid {running.pid})")
        return running, found
    if running is None:
        return found, None
    if running.id == found.id:
        # Killed between its start and the next line, its pid was not written down.
        return msgspec.structs.replace(found, pid=running.pid, started_ticks=running.started_ticks), None
    return running, Damage(path=path, reason=f"it is of another start than the server that runs (pid {running.pid})")


def _overwritten(host: Host, path: str, content: bytes) -> bool:
    """Write a file in place, where it is as long as that already."""
    try:
        descriptor = host.open_state(path, os.O_RDWR)
    except (StepFailed, FileNotFoundError):
        return False
    try:
        size = os.fstat(descriptor).st_size
        return 0 < len(content) <= size and os.pwrite(descriptor, content.ljust(size), 0) == size
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _process_lives(host: HostView, server: Server) -> bool:
    found = processes.find(host, server.pid) if server.pid and _is_here(host, server) else None
    return found is not None and found.started == server.started_ticks and _may_be_mine(host, found.pid)


def _of_process(host: HostView, directory: str) -> Server | None:
    """The record that the server which runs for `directory` was started with, the latest of several."""
    for one in reversed(processes.starts(host, directory=directory)):
        try:
            server = parse(one.record, directory)
        except ValueError:
            continue
        if server.id != one.id:
            continue
        if server.container:
            # What was found copies its output; the container's own process is the engine's to name.
            return msgspec.structs.replace(server, state="ready", proved=True)
        return msgspec.structs.replace(
            server, pid=one.process.pid, started_ticks=one.process.started, state="starting", proved=True
        )
    return None


def _write(host: Host, path: str, server: Server) -> None:
    text = msgspec.json.format(encode(server), indent=2)
    host.write(path, text + "\n", mode=0o600)


def _is_here(host: HostView, server: Server) -> bool:
    return processes.same_machine(host, boot=server.boot, machine=server.machine)


def is_elsewhere(host: HostView, server: Server) -> bool:
    """Whether it was started on another machine, which shares the directory, and is not known to have ended there."""
    return (
        server.state in {"starting", "ready"}
        and not _is_here(host, server)
        and server.machine != processes.machine_name(host)
    )


def members(host: HostView, server: Server) -> tuple[ProcessStat, ...]:
    """The server's living processes, the one that was started first; none after a reboot or on another machine."""
    if not _is_here(host, server):
        return ()
    found = processes.tree(host, pid=server.pid, started=server.started_ticks, marker=server.id)
    # A container's may be anybody's: its engine says which they are.
    return found if server.container else tuple(one for one in found if _may_be_mine(host, one.pid))


def _may_be_mine(host: HostView, pid: int) -> bool:
    """Whether a process is the caller's, as far as the machine says whose it is."""
    return processes.user_of(host, pid) in {None, os.geteuid()}


def names(host: HostView, servers: str) -> tuple[str, ...]:
    """The names of all servers that were ever started there, and of those that run without a record.

    Raises `NotPermitted` and `UntrustedPath` where that is another user's.
    """
    if host.stat(servers) is None:
        return ()
    host.read_state(f"{servers}/{FILE}")  # nothing is there; whether it may be looked at is what this asks
    recorded = {path.split("/")[-2] for path in host.glob(f"{glob.escape(servers)}/*/{FILE}")}
    running = {one.directory.rpartition("/")[2] for one in processes.starts(host) if _lies_in(one.directory, servers)}
    return tuple(sorted(name for name in recorded | running if _NAME.fullmatch(name)))


def _lies_in(directory: str, servers: str) -> bool:
    return processes.is_one_place(directory.rpartition("/")[0], servers)
