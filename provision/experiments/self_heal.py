"""Kill a server for real, and measure how long it takes to notice, and to serve again."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from provision.containers import engine
from provision.containers.engine import Seen
from provision.errors import ServingFailed, StepFailed, UsageError
from provision.host import Host
from provision.http_client import NoAnswer
from provision.serving import listening, processes, record, supervisor
from provision.serving.client import Client
from provision.serving.record import Server
from provision.serving.smoke_model import describe
from provision.serving.status import status

_POLL_S = 0.02
_DETECT_S = 60.0
_TOKENS = 512
_FIRST_TOKENS_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Healing:
    """One death. `cold`: the files of the engine and the model were out of the page cache when it started again.

    `tokens_before` were received of the answer in flight; it was `lost` unless it came to its end.
    """

    cold: bool
    detect_s: float
    ready_s: float
    lost: bool
    tokens_before: int
    seen_by_client: str
    dropped_bytes: int = 0


@dataclass
class _Flight:
    """An answer on its way, in a thread of its own."""

    client: Client
    model: str
    tokens: int = 0
    ended: bool = False
    problem: str = ""
    started: threading.Event = field(default_factory=threading.Event)

    def fly(self) -> None:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": "Count as far as you can."}],
            "max_tokens": _TOKENS,
            "stream": True,
        }
        try:
            with self.client.events("/v1/chat/completions", body) as (answer, data):
                for _, text in data:
                    if text == "[DONE]":
                        self.ended = True
                        break
                    self.tokens += '"content"' in text
                    if self.tokens > 1:
                        self.started.set()
                if answer is not None:
                    self.problem = answer.said
        except (NoAnswer, OSError, ValueError) as error:
            self.problem = str(error)
        self.started.set()


def run(
    host: Host, server: Server, *, rounds: int = 2, ready_s: float = 900.0, tell: Callable[[str], None] = lambda _: None
) -> tuple[Healing, ...]:
    """One death a round, the first with a cold cache. Raises `UsageError` where nobody would start it again."""
    kept_up = server.container.restarts if server.container else server.supervised
    if not kept_up:
        raise UsageError(
            f"nobody starts `{server.name}` again when it dies", hint=f"`sgprov serve start {server.name} --restart`"
        )
    found = []
    for number in range(rounds):
        now = status(host, record.load(host, server.directory) or server)
        if now.health != "running":
            raise ServingFailed(
                f"`{server.name}` is not running: {now.text}", hint=f"`sgprov serve status {server.name}`"
            )
        tell(f"round {number + 1} of {rounds}: {'cold' if number == 0 else 'warm'} cache")
        found.append(_one(host, now.server, cold=number == 0, ready_s=ready_s, tell=tell))
    return tuple(found)


def _one(host: Host, server: Server, *, cold: bool, ready_s: float, tell: Callable[[str], None]) -> Healing:
    client = listening.client(host, server)
    flight = _Flight(client=client, model=_model(client, server))
    thread = threading.Thread(target=flight.fly, daemon=True)
    thread.start()
    if not flight.started.wait(_FIRST_TOKENS_S):
        raise ServingFailed(
            f"`{server.name}` gave no token in {_FIRST_TOKENS_S:.0f} s", hint=f"`sgprov smoke {server.name}`"
        )
    before, killed = flight.tokens, time.monotonic()
    _kill(host, server)
    # Pages in use cannot be dropped: so after the death, and before the pause of the supervisor is over.
    dropped = sum(map(_drop, _files(server))) if cold else 0
    detect = _detected(host, server, killed)
    tell(f"noticed after {detect:.2f} s")
    ready = _served_again(host, server, killed, ready_s)
    tell(f"ready again after {ready:.1f} s")
    thread.join(5)
    seen = "came to its end" if flight.ended else flight.problem or "the stream ended without its end"
    return Healing(
        cold=cold,
        detect_s=round(detect, 3),
        ready_s=round(ready, 2),
        lost=not flight.ended,
        tokens_before=before,
        seen_by_client=seen,
        dropped_bytes=dropped,
    )


def _model(client: Client, server: Server) -> str:
    model, _ = describe(client.get("/v1/models").body, None)
    return model.name if model else server.model


def _kill(host: Host, server: Server) -> None:
    if server.pid is None:
        raise ServingFailed(f"`{server.name}` has no process")
    try:
        host.signal(server.pid, signal.SIGKILL, only_if=lambda: _is_its(host, server))
    except StepFailed:
        # `docker kill` would not do: an engine does not start again what was killed through it.
        raise UsageError("the processes of this container belong to root", hint="run the experiment as root") from None


def _is_its(host: Host, server: Server) -> bool:
    process = processes.find(host, server.pid or 0)
    if process is None or process.started != server.started_ticks:
        return False
    # Whose a container's process is says its engine.
    return server.container is not None or processes.is_provably(
        host, process, marker=server.id, directory=server.directory
    )


def _detected(host: Host, server: Server, killed: float) -> float:
    """Seconds until whoever keeps it up knew."""
    deadline = time.monotonic() + _DETECT_S
    while time.monotonic() < deadline:
        if server.container:
            seen = engine.look(host, server.container.program, server.container.name)
            if isinstance(seen, Seen) and (not seen.runs or seen.pid != server.pid):
                return time.monotonic() - killed
        for event in supervisor.events(host, server):
            if event["event"] == "died" and event.get("monotonic", 0) >= killed - 0.001:
                return float(event["monotonic"]) - killed
        time.sleep(_POLL_S)
    raise ServingFailed(f"nobody noticed within {_DETECT_S:.0f} s that `{server.name}` died")


def _served_again(host: Host, server: Server, killed: float, ready_s: float) -> float:
    deadline = time.monotonic() + ready_s
    while time.monotonic() < deadline:
        known = record.load(host, server.directory)
        if known and (known.id != server.id or known.container):
            now = status(host, known)
            if now.health == "running" and now.server.pid != server.pid:
                return time.monotonic() - killed
            if "given up" in now.text:
                raise ServingFailed(f"`{server.name}` {now.text}")
        time.sleep(_POLL_S * 5)
    raise ServingFailed(f"`{server.name}` was not ready again after {ready_s:.0f} s")


def _files(server: Server) -> Iterator[Path]:
    """Everything the engine reads when it starts: its environment and its model."""
    python = next((word for word in server.argv if word.endswith("/bin/python")), None)
    places = [Path(python).parents[1]] if python else []
    if server.model.startswith("/"):
        places.append(Path(server.model))
    for place in places:
        for folder, _, names in os.walk(place):
            yield from (Path(folder, name) for name in names)


def _drop(path: Path) -> int:
    """Take a file out of the page cache; its size. Only what nobody maps goes, and nothing is changed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return 0
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
