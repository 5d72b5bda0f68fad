"""Wait until a server that was just started is ready, or tell at once why it never will be."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from provision.catalog.engines import Probe
from provision.errors import ServingFailed
from provision.host.view import Host
from provision.http_client import NoAnswer
from provision.serving import contained, log, out_of_memory, processes
from provision.serving.client import Client
from provision.serving.listening import check_owner, client
from provision.serving.phases import LaunchLog, Phase
from provision.serving.record import Server

# The engine's ready line is to be noticed within 0.25 s.
POLL_S = 0.1
# Without the ready line (a log level that hides it), readiness is asked for; such a request may cost a token. The
# line has a moment to come after the first yes: it is the engine's last word.
_ASK_EVERY_S = 1.0
_LINE_S = 2.0
_ASK_TIMEOUT_S = 5.0
_AT_ONCE_S = 0.05
# How often a phase that lasts is told again, so that an output without a clock shows that all is well.
_TELL_EVERY_S = 15.0
# After a line that says that the server is lost, the reason still follows.
_LAST_WORDS_S = 1.0


@dataclass
class Wait:
    """One wait for one server. `tell` gets each phase, and a long one every 15 s, with the seconds since its begin."""

    host: Host
    server: Server
    watch: LaunchLog
    probe: Probe
    timeout_s: float
    tell: Callable[[Phase, float], None] = lambda _phase, _seconds: None
    _start: float = field(default_factory=time.monotonic)
    _asked: float = 0.0
    _said_yes: float | None = None
    _told: float = 0.0
    _question: _Question | None = None
    # How it ended, where it did.
    ending: str = ""

    def run(self) -> float:
        """Seconds until it was ready. Raises `ServingFailed` with the end of the log; the server is not stopped."""
        tail = log.Tail(self.server.log)
        self._tell()
        while True:
            alive = self._alive()
            if not alive:
                contained.settle(self.host, self.server)
            self._read(tail.lines() if alive else tail.remaining())
            if self.watch.death:
                self._hear_out(tail)
                raise self._failed("gave up")
            if not alive:
                raise self._failed("ended")
            if self._is_ready():
                check_owner(self.host, self.server)
                return self._seconds
            if self._seconds > self.timeout_s:
                raise self._failed(f"was not ready after {self.timeout_s:.0f} s: it was")
            time.sleep(POLL_S)

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._start

    def _alive(self) -> bool:
        process = processes.find(self.host, self.server.pid) if self.server.pid else None
        return process is not None and process.started == self.server.started_ticks

    def _read(self, lines: list[str]) -> None:
        for line in lines:
            if self.watch.feed(line):
                self._tell()
        if self._seconds - self._told >= _TELL_EVERY_S:
            self._tell()

    def _tell(self) -> None:
        self._told = self._seconds
        self.tell(self.watch.phase, self._told)

    def _is_ready(self) -> bool:
        if self.watch.ready:
            # A server with a key is asked nothing while somebody else has its port; others are looked at in the end.
            if self.server.key_file and self._question is None:
                check_owner(self.host, self.server)
            return self._answers(self.probe.answers) is True
        if self.probe.ready is None or (self._question is None and self._seconds - self._asked < _ASK_EVERY_S):
            return False
        answer = self._answers(self.probe.ready)
        if answer is None:
            return False
        self._asked = self._seconds
        if not answer:
            self._said_yes = None
        elif self._said_yes is None:
            self._said_yes = self._seconds
        return self._said_yes is not None and self._seconds - self._said_yes >= _LINE_S

    def _answers(self, path: str) -> bool | None:
        """Whether the server answers there; None as long as it is busy with the question."""
        # What was asked before the ready line may hang for good; the line is a reason to ask anew.
        if self._question is None or self._question.early != (not self.watch.ready):
            self._question = _Question(self._client, path, early=not self.watch.ready)
        answer = self._question.answer()
        if answer is not None:
            self._question = None
        return answer

    def _client(self) -> Client:
        return client(self.host, self.server, timeout_s=_ASK_TIMEOUT_S)

    def _hear_out(self, tail: log.Tail) -> None:
        until = self._seconds + _LAST_WORDS_S
        while self._seconds < until and self._alive():
            self._read(tail.lines())
            time.sleep(POLL_S)
        self._read(tail.remaining())

    def _failed(self, what: str) -> ServingFailed:
        lines = log.last_lines(self.server.log)
        end = "\n".join(f"  {line}" for line in lines) or "  (it wrote nothing)"
        status = self.host.exit_status(self.server.pid or 0)
        killed = out_of_memory.finding(self.host, self.server.kills, killed=status == -signal.SIGKILL)
        how = contained.ending(self.host, self.server) or _ending(status)
        self.ending = how + (f": {killed.text}" if killed else "")
        after = f"while {self.watch.phase}, after {self._seconds:.0f} s"
        return ServingFailed(
            f"the server `{self.server.name}` {what}{self.ending} {after}; the end of `{self.server.log}`:\n{end}",
            hint=killed.fix[0] if killed else f"`sgprov diagnose {self.server.log}` names the cause where it is known",
            findings=(killed,) if killed else (),
        )


def _ending(status: int | None) -> str:
    """Such as ` (killed by signal 9)`; empty where it did not end, or somebody else started it."""
    if status is None:
        return ""
    return f" (killed by signal {-status})" if status < 0 else f" (it exited {status})"


class _Question:
    """One request, in a thread of its own: a server that takes a connection and is silent must not hold up the wait."""

    def __init__(self, client: Callable[[], Client], path: str, *, early: bool) -> None:
        self.early = early
        self._client, self._path = client, path
        self._said: bool | None = None
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def answer(self) -> bool | None:
        """What it says, or None where nothing has come yet; most answers come at once and are waited for."""
        self._thread.join(_AT_ONCE_S)
        return self._said

    def _ask(self) -> None:
        try:
            self._said = self._client().get(self._path).ok
        except NoAnswer:
            self._said = False
