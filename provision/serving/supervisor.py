"""Keep a server up: notice that it died, start it again after a pause, and give up loudly where that does not help.

It runs as a process of its own, under systemd where systemd runs. For containers their engine does the same.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from provision.errors import ServingFailed
from provision.host.view import Host, HostView
from provision.serving import processes, record, server
from provision.serving.record import Server
from provision.serving.status import status

EVENTS = "events.jsonl"
_POLL_S = 0.1
# How long whoever started a server that failed may take to start the one before again, and a supervisor to end.
_GOING_BACK_S = 10.0
_ENDING_S = 5.0
_KEPT_EVENTS = 200


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
    known: Server | None = server.known(host, servers, name=name)
    with _the_only_one(f"{servers}/{name}") as only:
        while only and known is not None:
            known = _kept_up(host, known, patience, tell)


def _kept_up(host: Host, known: Server, patience: Patience, tell: Callable[[str], None]) -> Server | None:
    """Until it is stopped (None), or replaced by another, which is returned. Raises `ServingFailed`."""
    life = _Life()
    while True:
        reason, lived = _ready(host, known, patience), 0.0
        if reason is None:
            born = time.monotonic()
            reason = _watch(host, known, patience)
            lived = time.monotonic() - born
        if reason is None or not server.died(host, known):
            return _successor(host, known)
        life.failures = life.failures + 1 if lived < patience.fast_s else 1
        life.reason = reason
        note(host, known, "died", reason=reason, failures=life.failures)
        tell(f"{known.name} {reason}")
        if life.failures >= patience.attempts:
            raise _given_up(host, known, life)
        if not _paused(host, known, patience.pause_s(life.failures)):
            return _successor(host, known)
        again = server.revive(host, known)
        if again is None:
            return _successor(host, known)
        note(host, again, "started", failures=life.failures)
        tell(f"started {known.name} again (pid {again.pid})")
        known = again


def _successor(view: HostView, known: Server) -> Server | None:
    """The server that took the place of one that is supervised, as soon as it is ready; None where none did.

    Whoever started it waits for it, and goes back to the one before where it fails: what it comes to is theirs to say.
    """
    until: float | None = None
    while True:
        now = record.load(view, known.directory)
        if now is None or now.id == known.id or not now.supervised or now.state == "stopped":
            return None
        if now.state == "ready":
            return now
        if now.state == "starting" and record.members(view, now):
            until = None
        elif until is None:
            until = time.monotonic() + _GOING_BACK_S
        elif time.monotonic() > until:
            # Nobody waits for it any more, or nothing came in its place.
            return now if now.state == "starting" else None
        time.sleep(_POLL_S)


@contextmanager
def _the_only_one(directory: str) -> Iterator[bool]:
    """Two supervisors of one server would start it twice; the one before may be about to end."""
    with Path(directory, "supervisor.lock").open("w") as stream:
        until = time.monotonic() + _ENDING_S
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    yield False
                    return
                time.sleep(_POLL_S)
            else:
                yield True
                return


def events(view: HostView, server_: Server) -> tuple[dict[str, Any], ...]:
    """What was noted of a server's lives, oldest first: `died`, `started`, `ready`, `gave-up`, with the time."""
    lines = (view.read(f"{server_.directory}/{EVENTS}") or "").splitlines()
    return tuple(json.loads(line) for line in lines if line.startswith("{"))


def note(host: Host, server_: Server, event: str, **more: Any) -> None:
    """Write an event down. `time` is in seconds since 1970, as the machine's clock has it."""
    kept = [json.dumps(one) for one in events(host, server_)][-_KEPT_EVENTS:]
    kept.append(json.dumps({"time": round(time.time(), 3), "event": event, "pid": server_.pid, **more}))
    host.write(f"{server_.directory}/{EVENTS}", "\n".join(kept) + "\n", mode=0o600)


def _ready(host: Host, known: Server, patience: Patience) -> str | None:
    """Wait for a start; why it failed, or None when it is ready."""
    if known.state == "ready":
        return None
    try:
        ready = server.wait_until_ready(host, known, timeout_s=patience.ready_timeout_s)
    except ServingFailed as error:
        return str(error).splitlines()[0]
    note(host, ready, "ready", after_s=ready.ready_after_s)
    return None


def _watch(host: HostView, known: Server, patience: Patience) -> str | None:
    """Why its life ended; None where somebody stopped it, or it is another's now."""
    unwell, asked = 0, time.monotonic()
    while True:
        now = record.load(host, known.directory)
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


def _paused(host: HostView, known: Server, seconds: float) -> bool:
    """Wait before the next start; False where it was stopped meanwhile."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        now = record.load(host, known.directory)
        if now is None or now.id != known.id or now.state == "stopped":
            return False
        time.sleep(_POLL_S)
    return True


def _given_up(host: Host, known: Server, life: _Life) -> ServingFailed:
    from provision.diagnosis import diagnose_file  # noqa: PLC0415  # a second of patterns that a good server skips

    findings = diagnose_file(known.log)
    cause = next((finding.text for finding in findings), life.reason)
    note(host, known, "gave-up", failures=life.failures, reason=cause)
    record.save(host, msgspec.structs.replace(known, state="failed"))
    return ServingFailed(
        f"gave up on `{known.name}` after {life.failures} fast failures in a row: {cause}",
        hint=f"`sgprov diagnose {known.log}`, then `sgprov serve start {known.name} --restart`",
        findings=findings,
    )
