"""Keep a server up: notice that it died, start it again after a pause, and give up loudly where that does not help.

It runs as a process of its own, under systemd where systemd runs. For containers their engine does the same.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import msgspec

from provision.errors import ProvisionError, ServingFailed, StepFailed
from provision.host import Host, HostView, locking
from provision.serving import processes, record, server, watchman
from provision.serving.events import events, note
from provision.serving.record import Server
from provision.serving.status import status

__all__ = ["Patience", "events", "note", "supervise"]

_POLL_S = 0.1
# A record and the first lines of a log need less; on a disk with less than that, a start would be wasted.
_ROOM_BYTES, _ROOM_INODES = 256 * 1024, 4
_ROOM_S = 1.0
# How long whoever started a server that failed may take to start the one before again, and a supervisor to end.
_GOING_BACK_S = 10.0
_ENDING_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to go on. A life shorter than `fast_s` is a fast failure; `attempts` of them in a row are the last.

    The pause before a start doubles from `first_pause_s` to `longest_pause_s`. Every `check_s` the server is asked
    whether it is well; after `unwell` times no in a row it is taken for dead.
    """

    attempts: int = 5
    fast_s: float = 60.0
    first_pause_s: float = 1.0
    longest_pause_s: float = 60.0
    check_s: float = 15.0
    unwell: int = 3
    ready_timeout_s: float = server.READY_TIMEOUT_S

    def pause_s(self, failures: int) -> float:
        return float(min(self.first_pause_s * 2 ** max(0, failures - 1), self.longest_pause_s))


class GaveUp(ServingFailed):
    """It died too often."""


@dataclass
class _Life:
    """What has happened so far: fast failures in a row, and why the last life ended."""

    failures: int = 0
    reason: str = ""


def supervise(
    host: Host,
    servers: str,
    *,
    name: str,
    patience: Patience | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> None:
    """Until the server is stopped; one that is put in its place is kept up as well.

    Raises `ServingFailed` with a diagnosis when it gives up.
    """
    patience = patience or Patience()
    now: Server | None = server.known(host, servers, name=name)
    with _the_only_one(host, f"{servers}/{name}") as only:
        while only and now is not None:
            now = _kept_up_through_trouble(host, now, patience, tell)


def _kept_up_through_trouble(
    host: Host, known: Server, patience: Patience, tell: Callable[[str], None]
) -> Server | None:
    """As `_kept_up`: a full disk, or a lock whose holder was stopped, is nothing that a supervisor is to end of."""
    try:
        return _kept_up(host, known, patience, tell)
    except GaveUp:
        raise
    except (ProvisionError, OSError) as problem:
        tell(f"{known.name}: {problem}")
    return known if _paused(host, known, patience.longest_pause_s) else _successor(host, known)


def _kept_up(host: Host, known: Server, patience: Patience, tell: Callable[[str], None]) -> Server | None:
    """Until it is stopped (None), or replaced by another, which is returned. Raises `GaveUp`."""
    life = _Life()
    while True:
        reason, lived = _ready(host, known, patience), 0.0
        if reason is None:
            born = time.monotonic()
            reason = _watch(host, known, patience)
            lived = time.monotonic() - born
        if reason is None or not _still(host, known) or not server.died(host, known):
            return _successor(host, known)
        # What a full disk has to answer for says nothing of the server.
        if _has_room(host, known.directory):
            life.failures = life.failures + 1 if lived < patience.fast_s else 1
        life.reason = reason
        note(host, known, "died", reason=reason, failures=life.failures)
        tell(f"{known.name} {reason}")
        if life.failures >= patience.attempts:
            raise _given_up(host, known, life)
        if not _paused(host, known, patience.pause_s(life.failures)) or not _waited_for_room(host, known, tell):
            return _successor(host, known)
        again = server.revive(host, known)
        if again is None:
            return _successor(host, known)
        note(host, again, "started", failures=life.failures)
        tell(f"started {known.name} again (pid {again.pid})")
        known = again


def _now(host: Host, known: Server) -> Server | None:
    """The record as it is by now; one that was lost is what we know. None where the server was removed."""
    try:
        if host.stat(known.directory) is None:
            return None
        now = record.load(host, known.directory)
        if now is None:
            record.mend(host, known.directory)
            record.note(host, known)
    except ProvisionError:
        return known
    return now or known


def _still(host: Host, known: Server) -> bool:
    """Whether the server is the one that is supervised, and was not stopped."""
    now = _now(host, known)
    return now is not None and now.id == known.id and now.state != "stopped"


def _has_room(view: HostView, directory: str) -> bool:
    disk = view.disk(directory)
    if disk is None:
        return True
    return disk.free >= _ROOM_BYTES and (disk.inodes_free is None or disk.inodes_free >= _ROOM_INODES)


def _waited_for_room(host: Host, known: Server, tell: Callable[[str], None]) -> bool:
    """Wait until there is room on the disk for another start; False where it was stopped meanwhile."""
    told = False
    while not _has_room(host, known.directory):
        if not told:
            tell(f"the disk that holds `{known.directory}` is full: {known.name} is started again when there is room")
            told = True
        if not _paused(host, known, _ROOM_S):
            return False
    return True


def _successor(host: Host, known: Server) -> Server | None:
    """The server that took the place of one that is supervised, as soon as it is ready; None where none did.

    Whoever started it waits for it, and goes back to the one before where it fails: what it comes to is theirs to say.
    """
    until: float | None = None
    while True:
        now = _now(host, known)
        if now is None or now.id == known.id or not now.supervised or now.state == "stopped":
            return None
        if now.state == "ready":
            return now
        if now.state == "starting" and record.members(host, now):
            until = None
        elif until is None:
            until = time.monotonic() + _GOING_BACK_S
        elif time.monotonic() > until:
            # Nobody waits for it any more, or nothing came in its place.
            return now if now.state == "starting" else None
        time.sleep(_POLL_S)


@contextmanager
def _the_only_one(host: Host, directory: str) -> Iterator[bool]:
    """Two supervisors of one server would start it twice; the one before may be about to end."""
    path = f"{directory}/{watchman.LOCK}"
    descriptor = host.open_state(path, os.O_RDWR | os.O_CREAT)
    with ExitStack() as stack:
        try:
            stack.enter_context(locking.held(descriptor, path, work="supervising it", patience_s=_ENDING_S))
        except StepFailed:
            yield False
            return
        yield True


def _ready(host: Host, known: Server, patience: Patience) -> str | None:
    """Wait for a start; why it failed, or None when it is ready."""
    if known.state == "ready":
        return None
    try:
        ready = server.wait_until_ready(host, known, timeout_s=patience.ready_timeout_s)
    except ServingFailed as error:
        return str(error).partition("\n")[0]
    note(host, ready, "ready", after_s=ready.ready_after_s)
    return None


def _watch(host: Host, known: Server, patience: Patience) -> str | None:
    """Why its life ended; None where somebody stopped it, or it is another's now."""
    unwell, asked = 0, time.monotonic()
    while True:
        now = _now(host, known)
        if now is None or now.id != known.id or now.state == "stopped":
            return None
        process = processes.find(host, now.pid) if now.pid else None
        if process is None or process.started != now.started_ticks:
            return "ended by itself"
        if time.monotonic() - asked >= patience.check_s:
            asked, found = time.monotonic(), status(host, now)
            unwell = unwell + 1 if found.health == "unhealthy" else 0
            if unwell >= patience.unwell:
                return f"was not well {unwell} times: {found.text}"
        time.sleep(_POLL_S)


def _paused(host: Host, known: Server, seconds: float) -> bool:
    """Wait before the next start; False where it was stopped meanwhile."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not _still(host, known):
            return False
        time.sleep(_POLL_S)
    return True


def _given_up(host: Host, known: Server, life: _Life) -> GaveUp:
    from provision.diagnosis import diagnose_file  # noqa: PLC0415  # a second of patterns that a good server skips

    findings = diagnose_file(known.log)
    cause = next((finding.text for finding in findings), life.reason)
    note(host, known, "gave-up", failures=life.failures, reason=cause)
    record.note(host, msgspec.structs.replace(known, state="failed"))
    return GaveUp(
        f"gave up on `{known.name}` after {life.failures} fast failures in a row: {cause}",
        hint=f"`sgprov diagnose {known.log}`, then `sgprov serve start {known.name} --restart`",
        findings=findings,
    )
