"""What becomes of servers that replace one another, fail, are interrupted, or find a stranger on their port.

The engine is a stand-in of a few lines that takes milliseconds to be ready; its processes, ports and log are real.
"""

from __future__ import annotations

import http.server
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from provision.cli import main
from provision.errors import ServingFailed
from provision.host import Host
from provision.host.local import LocalHost
from provision.report import Severity
from provision.serving import record, server, status
from provision.serving.launch import Asked, Launch
from provision.serving.ports import DerivedPort
from provision.serving.record import Server
from provision.steps.base import Progress
from provision.steps.server import StartServer
from provision.steps.smoke import Smoke

pytestmark = pytest.mark.usefixtures("real_machine")

STAND_IN = """
import http.server, sys, threading, time
port, how = int(sys.argv[1]), sys.argv[2]
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if how == "hangs":
            time.sleep(60)
        well = self.path in ("/ready", "/health")
        self.send_response(200 if well else 500)
        self.end_headers()
    def log_message(self, *_):
        pass
if how == "breaks":
    sys.exit("unrecognized arguments: --no-such-flag")
if how != "deaf":
    serving = http.server.ThreadingHTTPServer(("127.0.0.1", port), Answers)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
if how == "hangs":
    time.sleep(2.5)
    print("last words", flush=True)
    sys.exit(3)
print("The server is fired up and ready to roll!", flush=True)
time.sleep(600)
"""


@pytest.fixture
def host() -> LocalHost:
    return LocalHost({"PATH": os.environ["PATH"]})


@pytest.fixture
def servers(tmp_path: Path, host: LocalHost) -> Iterator[str]:
    directory = str(tmp_path / "servers")
    yield directory
    for name in record.names(host, directory):
        server.stop(host, directory, name=name, grace_s=1.0)


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


def launch(port: int, how: str = "serves", *more: str) -> Launch:
    return Launch(
        engine="sglang",
        version="0.5.23",
        argv=(sys.executable, "-c", STAND_IN, str(port), how, *more),
        url=f"http://127.0.0.1:{port}",
        model="/m",
        ports=(DerivedPort(name="http", first=port, last=port, fixed=True),),
    )


def step(servers: str, wanted: Launch, *, tested: bool = True) -> StartServer:
    return StartServer(servers=servers, name="a", launch=wanted, timeout_s=20, tested=tested)


def known(host: Host, servers: str) -> Server:
    return server.known(host, servers, name="a")


def runs(host: Host, servers: str) -> Server:
    """The record of the server, which is seen to run."""
    found = known(host, servers)
    assert status.status(host, found).health == "running"
    return found


class Stranger:
    """Somebody else who answers 200 to everything."""

    def __init__(self, port: int) -> None:
        class Yes(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Yes)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_a_launch_that_fails_brings_back_what_it_replaced(host: LocalHost, servers: str, port: int) -> None:
    step(servers, launch(port)).apply(host, lambda _: None)
    before = runs(host, servers)
    with pytest.raises(ServingFailed, match="no-such-flag") as caught:
        step(servers, launch(port, "breaks")).apply(host, lambda _: None)
    assert f"was started again, and serves at http://127.0.0.1:{port}" in str(caught.value)
    assert f"the end of `{before.log}.1`" in str(caught.value)
    assert "no-such-flag" in Path(f"{before.log}.1").read_text()
    finding = caught.value.findings[-1]
    assert (finding.check, finding.severity) == ("server-restored", Severity.INFO)
    assert runs(host, servers).argv == before.argv
    assert record.replaced(host, before.directory) is None


def test_what_an_interruption_brought_back_is_worth_going_back_to_at_once(
    host: LocalHost, servers: str, port: int
) -> None:
    step(servers, launch(port)).apply(host, lambda _: None)
    before = runs(host, servers)
    told: list[str] = []

    def interrupting(progress: Progress) -> None:
        told.append(progress.text)
        if len(told) == 2:  # after it has said what it replaces
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        step(servers, launch(port, "deaf")).apply(host, interrupting)
    assert told[-1] == "the server that served before is starting again"
    assert (known(host, servers).argv, known(host, servers).state) == (before.argv, "starting"), "nobody waited for it"
    with pytest.raises(ServingFailed, match="no-such-flag") as caught:
        step(servers, launch(port, "breaks")).apply(host, lambda _: None)
    assert f"was started again, and serves at http://127.0.0.1:{port}" in str(caught.value)
    assert runs(host, servers).argv == before.argv


def test_a_smoke_test_that_fails_brings_back_what_was_replaced(host: LocalHost, servers: str, port: int) -> None:
    step(servers, launch(port), tested=False).apply(host, lambda _: None)
    before = runs(host, servers)
    wanted = launch(port, "serves", "otherwise")
    step(servers, wanted).apply(host, lambda _: None)
    assert runs(host, servers).argv == wanted.argv
    with pytest.raises(ServingFailed, match="does not serve rightly") as caught:
        Smoke(servers=servers, name="a", launch=wanted).apply(host, lambda _: None)
    assert caught.value.findings[-1].check == "server-restored"
    assert f"{before.log}.1" in (caught.value.hint or "")
    assert runs(host, servers).argv == before.argv
    # A first server has nothing to go back to, and stays up to be looked at.
    with pytest.raises(ServingFailed) as caught:
        Smoke(servers=servers, name="a", launch=before.launch).apply(host, lambda _: None)
    assert "it is still up" in (caught.value.hint or "")
    runs(host, servers)


def test_without_a_smoke_test_being_ready_is_proof_enough(host: LocalHost, servers: str, port: int) -> None:
    step(servers, launch(port)).apply(host, lambda _: None)
    step(servers, launch(port, "serves", "otherwise"), tested=False).apply(host, lambda _: None)
    assert record.replaced(host, known(host, servers).directory) is None


def test_nothing_is_taken_down_for_a_launch_whose_port_is_taken(host: LocalHost, servers: str, port: int) -> None:
    step(servers, launch(port)).apply(host, lambda _: None)
    before = runs(host, servers)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ServingFailed, match=r"is taken by .*pid"):
            step(servers, launch(taken.getsockname()[1])).apply(host, lambda _: None)
    assert runs(host, servers).pid == before.pid


def test_what_cannot_be_brought_back_is_said(host: LocalHost, servers: str, port: int, tmp_path: Path) -> None:
    flag = tmp_path / "once"
    code = f"import pathlib, sys\np = pathlib.Path({str(flag)!r})\nif p.exists(): sys.exit(1)\np.touch()\n{STAND_IN}"
    first = replace(launch(port), argv=(sys.executable, "-c", code, str(port), "serves"))
    step(servers, first).apply(host, lambda _: None)
    with pytest.raises(ServingFailed, match="could not be started again") as caught:
        step(servers, launch(port, "breaks")).apply(host, lambda _: None)
    assert caught.value.findings[-1].fix == ("`sgprov serve start a`",)
    assert known(host, servers).argv == first.argv, "what served before is what `serve start` tries again"


def test_the_engine_asks_itself_without_a_proxy_and_without_a_login_of_the_users(
    host: LocalHost, servers: str, port: int
) -> None:
    step(servers, launch(port)).apply(host, lambda _: None)
    given = Path(f"/proc/{runs(host, servers).pid}/environ").read_text(encoding="utf-8").split("\0")
    assert "NETRC=/dev/null" in given
    assert any(line.startswith("NO_PROXY=") and "127.0.0.1" in line for line in given)


def test_an_interrupted_replacement_starts_what_served_before(host: LocalHost, servers: str, port: int) -> None:
    step(servers, launch(port)).apply(host, lambda _: None)
    before = runs(host, servers)

    def interrupt(_: object) -> None:
        if known(host, servers).argv != before.argv:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        step(servers, launch(port, "serves", "otherwise")).apply(host, interrupt)
    again = server.wait_until_ready(host, known(host, servers), timeout_s=20)
    assert again.argv == before.argv


class Interrupted(LocalHost):
    """A machine where Ctrl-C comes right after the process was started, before anyone knows its pid."""

    def start(self, argv: Sequence[str], *, log: str, variables: Mapping[str, str | None] | None = None) -> int:
        super().start(argv, log=log, variables=variables)
        raise KeyboardInterrupt


def test_an_interruption_right_after_the_start_leaves_nothing_running(servers: str, port: int) -> None:
    host = Interrupted({"PATH": os.environ["PATH"]})
    with pytest.raises(KeyboardInterrupt):
        step(servers, launch(port)).apply(host, lambda _: None)
    left = known(host, servers)
    assert left.state == "stopped" and record.members(host, left) == ()


def test_a_restart_looks_whether_its_port_is_free(host: LocalHost, servers: str, port: int) -> None:
    step(servers, launch(port)).apply(host, lambda _: None)
    server.stop(host, servers, name="a")
    with Stranger(port), pytest.raises(ServingFailed, match=rf"port {port}, .* is taken by .*pid {os.getpid()}"):
        server.restart(host, servers, name="a")


def test_a_stranger_who_answers_is_not_taken_for_the_server(host: LocalHost, servers: str, port: int) -> None:
    with Stranger(port):
        started = server.start(host, servers, replace(launch(port, "deaf"), ports=()), name="a")
        with pytest.raises(ServingFailed, match=rf"does not listen on port {port}: .*pid {os.getpid()}"):
            server.wait_until_ready(host, started, timeout_s=20)
    assert known(host, servers).state == "failed"


def test_a_server_that_is_silent_does_not_hold_up_the_news_of_its_death(
    host: LocalHost, servers: str, port: int
) -> None:
    started = server.start(host, servers, launch(port, "hangs"), name="a")
    seen: list[float] = []

    def watch() -> None:
        while not seen:
            if "last words" in Path(started.log).read_text():
                seen.append(time.monotonic())
            time.sleep(0.005)

    threading.Thread(target=watch, daemon=True).start()
    with pytest.raises(ServingFailed, match=r"ended (\(it exited 3\) )?while"):
        server.wait_until_ready(host, started, timeout_s=20)
    assert time.monotonic() - seen[0] < 0.5, "0.25 s, and as much for a process of Python's to end"


@pytest.mark.parametrize("command", ["start", "restart"])
def test_a_server_that_does_not_start_again_says_why(
    host: LocalHost, servers: str, port: int, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ServingFailed):
        server.wait_until_ready(host, server.start(host, servers, launch(port, "breaks"), name="a"), timeout_s=20)
    arguments = ("serve", command, "a", "--prefix", servers.removesuffix("/servers"))
    assert main(arguments) == ServingFailed.exit_status
    said = capsys.readouterr().err
    assert "✗ " in said and said.index("→ ") < said.index("error: "), "cause and remedy, the error next to the prompt"
    main((*arguments, "--json"))
    assert json.loads(capsys.readouterr().out)["findings"][0]["severity"] == "error"


def test_what_is_asked_for_in_other_words_is_written_down_and_nothing_restarts(
    host: LocalHost, servers: str, port: int
) -> None:
    """Such as `--port N` for the port that it has: the next run has to know, and the server serves on."""
    first = replace(launch(port), asked=Asked(options={"name": "a"}))
    step(servers, first).apply(host, lambda _: None)
    before = runs(host, servers)
    again = step(servers, replace(first, asked=Asked(options={"name": "a", "port": str(port)})))
    assert not again.satisfied(host)
    again.apply(host, lambda _: None)
    after = runs(host, servers)
    assert (after.pid, after.id, after.asked) == (before.pid, before.id, again.launch.asked)
    assert again.satisfied(host) and record.replaced(host, after.directory) is None
