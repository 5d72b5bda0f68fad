"""A server that dies is started again; one that dies again and again is given up, with the reason."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from provision.errors import ServingFailed
from provision.host.local import LocalHost
from provision.serving import record, server, supervisor, watchman
from provision.serving.launch import Launch
from provision.serving.record import Server
from provision.serving.status import status
from provision.serving.supervisor import Patience
from provision.steps.server import StartServer

pytestmark = pytest.mark.usefixtures("real_machine")
QUICK = Patience(attempts=3, fast_s=60, first_pause_s=0.05, longest_pause_s=0.1, check_s=60, ready_timeout_s=30)
# A server as small as can be: it says what SGLang says when it is ready, and answers every question.
SERVER = """
import http.server, sys
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"{}")
    def log_message(self, *_): pass
s = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), H)
print("The server is fired up and ready to roll!", flush=True)
s.serve_forever()
"""


@pytest.fixture
def host() -> LocalHost:
    return LocalHost({"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/root")})


@pytest.fixture
def servers(tmp_path: Path, host: LocalHost) -> Iterator[str]:
    yield str(tmp_path)
    for name in record.names(host, str(tmp_path)):
        server.stop(host, str(tmp_path), name=name, grace_s=0.5)


def launch(code: str, port: int) -> Launch:
    argv = (sys.executable, "-c", code, str(port))
    return Launch(engine="sglang", version="0.5.23", argv=argv, url=f"http://127.0.0.1:{port}", model="m")


def free_port() -> int:
    import socket  # noqa: PLC0415

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(seen: str, host: LocalHost, directory: str, count: int = 1) -> None:
    deadline = time.monotonic() + 30
    known = record.load(host, directory)
    assert known
    while sum(one["event"] == seen for one in supervisor.events(host, known)) < count:
        assert time.monotonic() < deadline, supervisor.events(host, known)
        time.sleep(0.02)


def test_killed_and_started_again_until_it_is_stopped(host: LocalHost, servers: str) -> None:
    first = server.wait_until_ready(host, server.start(host, servers, launch(SERVER, free_port()), name="a"))
    thread = threading.Thread(
        target=supervisor.supervise, args=(host, servers), kwargs={"name": "a", "patience": QUICK}
    )
    thread.start()
    assert first.pid
    killed = time.time()
    os.kill(first.pid, signal.SIGKILL)
    until("ready", host, first.directory)
    events = supervisor.events(host, first)
    assert [one["event"] for one in events] == ["died", "started", "ready"]
    assert events[0]["time"] - killed < 1.0, "noticed within a second"
    again = server.known(host, servers, name="a")
    assert again.pid != first.pid and status(host, again).health == "running"
    assert server.stop(host, servers, name="a", grace_s=2)
    thread.join(10)
    assert not thread.is_alive(), "it ends with its server"
    assert status(host, server.known(host, servers, name="a")).health == "stopped"


def at_work(directory: str) -> bool:
    """Whether a supervisor holds its lock there."""
    with Path(directory, "supervisor.lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


@pytest.fixture
def supervised(host: LocalHost, servers: str) -> Iterator[Server]:
    """A server `a` that is ready, with a supervisor in a thread, which ends with it."""
    ready = server.wait_until_ready(host, server.start(host, servers, launch(SERVER, free_port()), name="a"))
    known = record.save(host, msgspec.structs.replace(ready, supervised=True))
    thread = threading.Thread(
        target=supervisor.supervise, args=(host, servers), kwargs={"name": "a", "patience": QUICK}
    )
    thread.start()
    deadline = time.monotonic() + 10
    while not at_work(known.directory):
        assert time.monotonic() < deadline, "the supervisor does not begin"
        time.sleep(0.02)
    yield known
    server.stop(host, servers, name="a", grace_s=0.5)
    thread.join(20)
    assert not thread.is_alive(), "it ends with its server"


def killed_and_back(host: LocalHost, servers: str) -> None:
    known = server.known(host, servers, name="a")
    assert known.pid and known.supervised
    os.kill(known.pid, signal.SIGKILL)
    until("ready", host, known.directory)
    assert status(host, server.known(host, servers, name="a")).health == "running"
    assert [one["event"] for one in supervisor.events(host, known)] == ["died", "started", "ready"]


def test_a_server_that_takes_its_place_is_kept_up_as_well(host: LocalHost, servers: str, supervised: Server) -> None:
    step = StartServer(servers=servers, name="a", launch=launch(SERVER, free_port()), tested=False)
    assert step.apply(host, lambda _: None).note.endswith(", kept up like the one before")
    assert server.known(host, servers, name="a").id != supervised.id
    killed_and_back(host, servers)


def test_one_that_was_gone_back_to_is_kept_up_as_well(host: LocalHost, servers: str, supervised: Server) -> None:
    with pytest.raises(ServingFailed, match="the server that served before was started again"):
        StartServer(servers=servers, name="a", launch=launch("raise SystemExit(1)", free_port())).apply(
            host, lambda _: None
        )
    assert server.known(host, servers, name="a").argv == supervised.argv
    killed_and_back(host, servers)


def test_a_second_supervisor_leaves_it_to_the_first(
    host: LocalHost, servers: str, supervised: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_ENDING_S", 0.2)
    second = threading.Thread(
        target=supervisor.supervise,
        args=(host, servers),
        kwargs={"name": supervised.name, "patience": QUICK},
        daemon=True,
    )
    second.start()
    second.join(10)
    assert not second.is_alive(), "it ends, and the first goes on"
    assert status(host, server.known(host, servers, name="a")).health == "running"


def test_given_up_with_the_reason(host: LocalHost, servers: str) -> None:
    broken = "import sys; sys.exit('torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB')"
    started = server.start(host, servers, launch(broken, free_port()), name="b")
    started = record.save(host, msgspec.structs.replace(started, supervised=True))
    with pytest.raises(ServingFailed, match="gave up on `b` after 3 fast failures in a row") as caught:
        supervisor.supervise(host, servers, name="b", patience=QUICK)
    assert caught.value.findings and "the GPU has too little free memory" in str(caught.value)
    assert [one["event"] for one in supervisor.events(host, started)].count("died") == 3
    now = status(host, server.known(host, servers, name="b"))
    assert now.health == "dead" and now.text.startswith("was given up after 3 fast failures")


def test_pauses_double_and_end() -> None:
    patience = Patience(first_pause_s=1, longest_pause_s=60)
    assert [patience.pause_s(failures) for failures in (1, 2, 3, 6, 7, 50)] == [1, 2, 4, 32, 60, 60]


def test_a_unit_for_systemd(host: LocalHost, servers: str) -> None:
    started = server.start(host, servers, launch(SERVER, free_port()), name="c")
    text = watchman.render_unit(started, ["/opt/a b/python", "-m", "provision", "serve", "supervise", "c"])
    assert 'ExecStart="/opt/a b/python" "-m" "provision" "serve" "supervise" "c"\n' in text
    assert "WorkingDirectory=/\n" in text and "UMask=0077\n" in text
    odd = watchman.render_unit(started, ["/opt/%h/$HOME/a\\'\"b"])
    assert 'ExecStart="/opt/%%h/$$HOME/a\\\\\'\\"b"\n' in odd, "systemd would put something else in its place"
    assert "Restart=on-failure" in text and "KillMode=process" in text
