"""Who keeps a server up survives what its server, its disk and its files go through; and it is told where nobody does."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from faults import stand_in
from faults.stand_in import launch, left_over, serves, started

from provision.cli import main
from provision.errors import ServingFailed
from provision.host.local import LocalHost
from provision.serving import processes, record, server, supervisor, watchman
from provision.serving.record import Server
from provision.serving.supervisor import Patience
from provision.steps.server import StartServer

pytestmark = [pytest.mark.usefixtures("real_machine"), pytest.mark.fault]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT RUN: needs root, to mount a file system of its own")
KIND = "lost keeper"
QUICK = Patience(attempts=4, first_pause_s=0.05, longest_pause_s=0.2, check_s=60, ready_timeout_s=20)


@pytest.fixture
def host() -> LocalHost:
    return stand_in.local_host()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[str]:
    tmp_path.chmod(0o700)
    yield f"{tmp_path}/servers"
    end(str(tmp_path))


@pytest.fixture
def port() -> int:
    return stand_in.free_port()


def end(directory: str) -> None:
    """End what a test left: supervisors first, or they would start servers again."""
    for lock in Path(directory).glob(f"servers/*/{watchman.LOCK}"):
        pid = lock.read_text().strip()
        if watchman.is_at_work(str(lock.parent)) and pid.isdecimal() and int(pid) != os.getpid():
            os.kill(int(pid), signal.SIGKILL)
    stand_in.end_all(directory)


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def kept_up(host: LocalHost, servers: str, port: int) -> tuple[Server, threading.Thread]:
    """A server that is ready, and its supervisor in a thread."""
    ready = started(host, servers, launch(port))
    ready = record.save(host, msgspec.structs.replace(ready, supervised=True))
    thread = threading.Thread(
        target=supervisor.supervise, args=(host, servers), kwargs={"name": "a", "patience": QUICK}, daemon=True
    )
    thread.start()
    until(lambda: watchman.is_at_work(ready.directory))
    return ready, thread


def killed_and_back(host: LocalHost, servers: str, before: Server) -> Server:
    os.kill(before.pid or 0, signal.SIGKILL)
    until(lambda: (now := record.load(host, before.directory)) and now.id != before.id and now.state == "ready")
    assert serves(host, servers)
    return server.known(host, servers, name="a")


RUINED: dict[str, Callable[[Path], object]] = {
    "garbage record": lambda directory: (directory / record.FILE).write_bytes(os.urandom(500)),
    "empty record": lambda directory: os.truncate(directory / record.FILE, 0),
    "missing record": lambda directory: (directory / record.FILE).unlink(),
    "cut events": lambda directory: (directory / "events.jsonl").write_text('{"time": 1, "event": "di'),
    "events of another kind": lambda directory: (directory / "events.jsonl").write_text('[1]\n"x"\n{"event": 3}\n{}\n'),
    "garbage events": lambda directory: (directory / "events.jsonl").write_bytes(os.urandom(500)),
    "events that are a directory": lambda directory: (directory / "events.jsonl").mkdir(),
}


@pytest.mark.parametrize("what", RUINED)
@pytest.mark.tried(KIND, "The record or the events are damaged while a server is kept up, and then it is killed")
def test_it_survives_what_happens_to_its_files(host: LocalHost, servers: str, port: int, what: str) -> None:
    ready, thread = kept_up(host, servers, port)
    RUINED[what](Path(ready.directory))
    again = killed_and_back(host, servers, ready)
    assert again.argv == ready.argv and again.restarts == 1
    assert server.stop(host, servers, name="a", grace_s=2)
    thread.join(20)
    assert not thread.is_alive() and left_over(servers) == []


@pytest.mark.parametrize("what", ["garbage record", "missing record"])
@pytest.mark.tried(KIND, "The record is damaged at the very moment at which the server dies")
def test_it_remembers_what_it_keeps_up(host: LocalHost, servers: str, port: int, what: str) -> None:
    ready, thread = kept_up(host, servers, port)
    os.kill(ready.pid or 0, signal.SIGKILL)
    RUINED[what](Path(ready.directory))
    until(lambda: (now := record.load(host, ready.directory)) and now.id != ready.id and now.state == "ready")
    assert serves(host, servers)
    server.stop(host, servers, name="a", grace_s=2)
    thread.join(20)
    assert not thread.is_alive()


@needs_root
@pytest.mark.tried(KIND, "The disk is full when a server that is kept up dies, and has room again later")
def test_it_waits_for_room(host: LocalHost, tmp_path: Path, port: int) -> None:
    with stand_in.small_disk(tmp_path / "disk") as disk:
        servers = f"{disk}/servers"
        ready, thread = kept_up(host, servers, port)
        ballast = stand_in.fill(disk)
        os.kill(ready.pid or 0, signal.SIGKILL)
        time.sleep(3)
        assert thread.is_alive() and not serves(host, servers)
        ballast.unlink()
        until(lambda: serves(host, servers))
        ballast = stand_in.fill(disk)
        assert server.stop(host, servers, name="a", grace_s=2)
        ballast.unlink()
        thread.join(20)
        assert not thread.is_alive() and left_over(servers) == []


@pytest.mark.tried(KIND, "A supervisor that was killed: `serve status` says so")
def test_that_nobody_keeps_it_up_is_said(
    host: LocalHost, servers: str, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    ready = started(host, servers, launch(port))
    watchman.start(host, ready)
    prefix = ("--prefix", servers.removesuffix("/servers"))
    until(lambda: watchman.is_at_work(ready.directory))
    assert main(["serve", "status", "a", *prefix, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["servers"]
    assert row["kept_up"] is True and row["port"] == port and row["restarts"] == 0
    pid = int(Path(ready.directory, watchman.LOCK).read_text())
    assert b"supervise" in Path(f"/proc/{pid}/cmdline").read_bytes()
    os.kill(pid, signal.SIGKILL)
    until(lambda: not watchman.is_at_work(ready.directory))
    assert main(["serve", "status", "a", *prefix, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["servers"]
    assert row["health"] == "running" and row["kept_up"] is False and "nobody keeps it up" in row["text"]


@pytest.mark.parametrize("other", [False, True], ids=["the same", "another"])
@pytest.mark.tried(KIND, "A supervisor that was killed: the next run, for the same server or another, brings one back")
def test_a_run_brings_it_back(host: LocalHost, servers: str, port: int, other: bool) -> None:
    ready = started(host, servers, launch(port))
    record.save(host, msgspec.structs.replace(ready, supervised=True))
    wanted = launch(port, "serves", *(["other"] if other else []))
    step = StartServer(servers=servers, name="a", launch=wanted, timeout_s=20, tested=False)
    assert not step.satisfied(host)
    note = step.apply(host, lambda _: None).note
    assert "kept up like the one before" not in note and "supervised by" in note
    until(lambda: watchman.is_at_work(ready.directory))
    assert step.satisfied(host)
    now = server.known(host, servers, name="a")
    assert (now.id == ready.id) == (not other)
    killed_and_back(host, servers, now)
    server.stop(host, servers, name="a", grace_s=2)
    until(lambda: not watchman.is_at_work(ready.directory))


@pytest.mark.tried(KIND, "A server that is stopped although that cannot be written down: its supervisor ends, too")
def test_a_stop_that_cannot_be_written_down_ends_the_supervisor(
    host: LocalHost, servers: str, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = started(host, servers, launch(port))
    watchman.start(host, ready)
    until(lambda: watchman.is_at_work(ready.directory))
    from provision.errors import StepFailed  # noqa: PLC0415

    def refuse(*_: object) -> None:
        raise StepFailed("no room")

    monkeypatch.setattr(record, "save", refuse)
    assert server.stop(host, servers, name="a", grace_s=2)
    until(lambda: not watchman.is_at_work(ready.directory))
    time.sleep(1.5)
    assert left_over(servers) == []
    assert processes.find(host, ready.pid or 0) is None


def wait(host: LocalHost, one: Server) -> None:
    """Until it is ready, or was stopped before."""
    with suppress(ServingFailed):
        server.wait_until_ready(host, one)


@pytest.mark.tried(KIND, "A server is stopped at the very moment at which it is ready: nobody starts it again")
def test_what_is_stopped_when_it_is_ready_stays_stopped(host: LocalHost, servers: str, port: int) -> None:
    for _ in range(5):
        one = server.start(host, servers, launch(port), name="a")
        waiting = threading.Thread(target=wait, args=(host, one))
        waiting.start()
        until(lambda one=one: "ready to roll" in Path(one.log).read_text())  # type: ignore[misc]
        server.stop(host, servers, name="a", grace_s=1)
        waiting.join(20)
        now = record.written(host, one.directory)
        assert now and now.state in {"stopped", "failed"} and left_over(servers) == []
