"""Which processes belong to a server, told so that no stranger is ever taken for one of them.

A pid alone does not name a process: it is used again. The time it was started, in clock ticks since the machine
booted, does, and does not move when the clock is set.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from provision.host.view import HostView

# Every process of a server inherits these variables: the id of the start, the server's directory, and the record that
# was written at the start. By them a server is found whose record was lost.
MARKER = "SGPROV_SERVER"
DIRECTORY = "SGPROV_SERVER_DIRECTORY"
RECORD = "SGPROV_SERVER_RECORD"
# The streams that go into a server's log.
_OUTPUTS = (1, 2)
_BOOT = "/proc/sys/kernel/random/boot_id"
_HOSTNAME = "/proc/sys/kernel/hostname"
# The interpreter of an environment, such as `/srv/sgprov/environments/sglang-0.5.9-cp310-x86_64-012345/bin/python`.
_SERVER = re.compile(r"(/[^\n]{1,400})/servers/[^/\s]{1,63}")
_PREFIX = re.compile(r"(/\S{1,400}?)/environments/[^/\s]{1,200}/bin/")


# As in `Uid:\t1000\t1000\t1000\t1000`: the real one first (proc(5), /proc/pid/status).
_USER = re.compile(r"^Uid:\s+(\d+)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class ProcessStat:
    """One process. `started` is in clock ticks since boot, `session` the pid of the leader of its session.

    `threads` counts those that still run: the first may have ended before the others.
    """

    pid: int
    parent: int
    session: int
    started: int
    state: str
    threads: int = 1

    @property
    def alive(self) -> bool:
        """A zombie has ended and waits for its parent to ask how; unless one of its threads still holds GPU memory."""
        return self.state not in {"Z", "X"} or self.threads > 1


@dataclass(frozen=True, kw_only=True)
class Found:
    """The first process of a server, found by what it inherited: `record` is the text of its record at the start."""

    process: ProcessStat
    id: str
    directory: str
    record: str


def boot_id(host: HostView) -> str:
    """What changes with every boot of the machine; empty where that cannot be read."""
    return (host.read(_BOOT) or "").strip()


def machine_name(host: HostView) -> str:
    """The machine's own name: a home directory may be shared by many machines, and records lie in it."""
    return (host.read(_HOSTNAME) or "").strip()


def same_machine(host: HostView, *, boot: str, machine: str) -> bool:
    """Whether what was started in that boot, on the machine of that name, was started on this one since its last boot.

    The id of a boot is of one machine alone, whatever its name is by now.
    """
    here = boot_id(host)
    return boot == here if boot and here else machine == machine_name(host)


def user_of(host: HostView, pid: int) -> int | None:
    """Whose process it is: its real user, None where there is none (any more)."""
    found = _USER.search(host.read(f"/proc/{pid}/status") or "")
    return int(found[1]) if found else None


def is_callers(host: HostView, pid: int) -> bool:
    """Whether a process is this very user's: as root, that of no other user either."""
    return user_of(host, pid) == os.geteuid()


def parse_stat(text: str) -> ProcessStat | None:
    """Parse `/proc/<pid>/stat`, e.g. `4711 (python (a) b) S 1 4711 4711 0 -1 …`; field 22 is the start (man proc)."""
    head, separator, tail = text.rpartition(")")
    fields = tail.split()
    if not separator or len(fields) < 20:  # noqa: PLR2004  # up to field 22
        return None
    return ProcessStat(
        pid=int(head.split(" ", 1)[0]),
        parent=int(fields[1]),
        session=int(fields[3]),
        started=int(fields[19]),
        state=fields[0],
        threads=int(fields[17]),
    )


def find(host: HostView, pid: int) -> ProcessStat | None:
    """A process by pid; None where there is none or it is a zombie."""
    found = parse_stat(host.read(f"/proc/{pid}/stat") or "")
    return found if found and found.alive else None


def same(host: HostView, process: ProcessStat) -> bool:
    """Whether that very process is still alive."""
    found = find(host, process.pid)
    return found is not None and found.started == process.started


def tree(host: HostView, *, pid: int | None, started: int, marker: str) -> tuple[ProcessStat, ...]:
    """Everything alive of a server: the process that was started, first, and whatever came of it.

    Children that lost their parent are found by their session and by the marker in their environment. A process
    that writes a title over its environment (SGLang's workers do) has no readable marker, but keeps its session.
    """
    stats = (parse_stat(host.read(path) or "") for path in host.glob("/proc/[0-9]*/stat"))
    everyone = {stat.pid: stat for stat in stats if stat and stat.alive and stat.started >= started}
    everyone.pop(os.getpid(), None)
    leader, session = (everyone.get(pid), pid) if pid else (None, None)
    if leader and leader.started != started:
        # The pid is another process's by now, and so is a session of that number.
        leader = session = None
    found = {leader.pid: leader} if leader else {}
    for stat in everyone.values():
        marks = _environment(host, stat.pid)
        in_session = session is not None and stat.session == session and (leader is not None or not marks)
        if in_session or f"{MARKER}={marker}" in marks:
            found[stat.pid] = stat
    return tuple(_with_descendants(found, everyone.values()).values())


def is_provably(host: HostView, process: ProcessStat, *, marker: str, directory: str) -> bool:
    """Whether a process of a server's tree may be sent a signal: it is the caller's, and proves whose it is.

    By its marker, its parents' marker, or by writing into the server's log, where a title took the marker's place. A
    record alone proves nothing: whoever wrote it may have written any pid into it.
    """
    if not same(host, process) or not is_callers(host, process.pid):
        return False
    if not _environment(host, process.pid) and _writes_into(process.pid, directory):
        return True
    seen = set[int]()
    pid = process.pid
    while pid > 1 and pid not in seen and pid != os.getpid():
        if f"{MARKER}={marker}" in _environment(host, pid):
            return True
        seen.add(pid)
        stat = parse_stat(host.read(f"/proc/{pid}/stat") or "")
        pid = stat.parent if stat else 0
    return False


def _writes_into(pid: int, directory: str) -> bool:
    """Whether its output goes into a log there."""
    for number in _OUTPUTS:
        with suppress(OSError):
            if Path(f"/proc/{pid}/fd/{number}").readlink().parent == Path(directory):
                return True
    return False


def starts(host: HostView, *, directory: str | None = None) -> tuple[Found, ...]:
    """The servers of the caller that run, by what their first processes inherited; those of one directory, or all."""
    found = []
    for path in host.glob("/proc/[0-9]*/environ"):
        variables = dict(entry.split("=", 1) for entry in _environment(host, int(path.split("/")[2])))
        if not {MARKER, DIRECTORY, RECORD} <= variables.keys():
            continue
        if directory is not None and not is_one_place(directory, variables[DIRECTORY]):
            continue
        stat = find(host, int(path.split("/")[2]))
        if stat and stat.session == stat.pid and is_callers(host, stat.pid):
            found.append(
                Found(process=stat, id=variables[MARKER], directory=variables[DIRECTORY], record=variables[RECORD])
            )
    return tuple(sorted(found, key=lambda one: one.process.started))


def is_one_place(one: str, other: str) -> bool:
    """Whether two names, perhaps through links, are of one directory, there or not."""
    return one == other or Path(one).resolve() == Path(other).resolve()


def prefix_of(host: HostView, pid: int, commands: Mapping[int, str]) -> str | None:
    """The prefix of the sgprov server that a process belongs to, empty where it cannot be told; None for a stranger's.

    `commands` are the command lines of all processes. A worker may have written its title over its environment: then
    its parents are asked, up to the one that was started, which has the marker.
    """
    seen = set[int]()
    marked, prefix = False, ""
    while pid > 1 and pid not in seen:
        seen.add(pid)
        inherited = _environment(host, pid)
        marked = marked or any(entry.startswith(f"{MARKER}=") for entry in inherited)
        place = next((entry for entry in inherited if entry.startswith(f"{DIRECTORY}=/")), "")
        if found := _SERVER.fullmatch(place.partition("=")[2]) or _PREFIX.search(commands.get(pid, "")):
            prefix = found[1]
        stat = parse_stat(host.read(f"/proc/{pid}/stat") or "")
        pid = stat.parent if stat else 0
    return prefix if marked else None


def of_others(host: HostView) -> tuple[tuple[int, str, str], ...]:
    """(pid, user, prefix) of the servers that other users run, by the interpreter that everybody sees them run."""
    found = dict[tuple[str, str], int]()
    for one in host.processes():
        place = _PREFIX.match(one.command)
        if place and user_of(host, one.pid) not in {None, os.geteuid()}:
            found.setdefault((one.user, place[1]), one.pid)
    return tuple((pid, user, prefix) for (user, prefix), pid in found.items())


def _with_descendants(found: dict[int, ProcessStat], everyone: Iterable[ProcessStat]) -> dict[int, ProcessStat]:
    growing = True
    while growing:
        new = {stat.pid: stat for stat in everyone if stat.parent in found and stat.pid not in found}
        found |= new
        growing = bool(new)
    return found


def _environment(host: HostView, pid: int) -> frozenset[str]:
    """The variables a process was started with, as `NAME=value`; none where unreadable or overwritten."""
    text = host.read(f"/proc/{pid}/environ") or ""
    return frozenset(entry for entry in text.split("\0") if "=" in entry)
