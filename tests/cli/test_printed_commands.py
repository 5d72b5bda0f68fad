"""Commands that are printed run as they are printed, in the state that prints them: keyed, one of two, stopped, killed.

The engine is a stand-in that asks for a key and answers in milliseconds; the commands are run by a shell that has no
environment activated.
"""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from provision import bootstrap
from provision.cli import endpoint, program
from provision.cli.screen import Screen
from provision.config import Options
from provision.host.local import LocalHost
from provision.report import Report
from provision.serving import keys, processes, record, server
from provision.serving.launch import Launch
from provision.serving.ports import DerivedPort

pytestmark = pytest.mark.usefixtures("real_machine")
KEY = "k3y-" + "0123456789abcdef" * 2
ENGINE = """
import http.server, json, sys
key, port = sys.argv[1].partition("=")[2], int(sys.argv[2])
class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def say(self, status, body):
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)
    def do_GET(self):
        well = self.headers.get("Authorization") == f"Bearer {key}"
        self.say(200 if well else 401, {"object": "list", "data": [{"id": "m", "object": "model"}]})
    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        well = self.headers.get("Authorization") == f"Bearer {key}"
        self.say(200 if well else 401, {"choices": [{"message": {"content": "Hello"}}]})
    def log_message(self, *_):
        pass
serving = http.server.ThreadingHTTPServer(("127.0.0.1", port), Answers)
print("The server is fired up and ready to roll!", flush=True)
serving.serve_forever()
"""


@dataclass(frozen=True)
class Machine:
    """A prefix with two servers, `one` and `two`, and what is printed and run beside them."""

    prefix: str
    host: LocalHost

    @property
    def variables(self) -> dict[str, str]:
        return {"PATH": "/usr/bin:/bin", "HOME": f"{self.prefix}/home", "LANG": "C.UTF-8"}

    def sgprov(self, *words: str) -> tuple[int, str]:
        return self._ran([sys.executable, "-m", "provision", *words])

    def shell(self, command: str) -> tuple[int, str]:
        return self._ran(["bash", "-c", command])

    def _ran(self, words: list[str]) -> tuple[int, str]:
        ran = subprocess.run(words, env=self.variables, capture_output=True, text=True, timeout=120, check=False)
        return ran.returncode, ran.stdout + ran.stderr

    def start(self, name: str) -> record.Server:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        directory = f"{self.prefix}/servers/{name}"
        words = (f"{directory}/{keys.SCRIPT}", f"{directory}/{keys.FILE}", "-m", "stand_in", str(port))
        launch = Launch(
            engine="sglang",
            version="0.5.23",
            argv=(sys.executable, *words),
            variables={"PYTHONPATH": f"{self.prefix}/modules"},
            url=f"http://127.0.0.1:{port}",
            model="/m",
            ports=(DerivedPort(name="http", first=port, last=port, fixed=True),),
            key_file=f"{directory}/{keys.FILE}",
        )
        one = server.start(self.host, f"{self.prefix}/servers", launch, name=name, key=KEY)
        return server.wait_until_ready(self.host, one, timeout_s=30)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    tmp_path.chmod(0o700)
    (tmp_path / "modules").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "modules" / "stand_in.py").write_text(ENGINE)
    host = LocalHost({"PATH": os.environ["PATH"]})
    made = Machine(str(tmp_path), host)
    for name in ("one", "two"):
        made.start(name)
    yield made
    for name in record.names(host, f"{tmp_path}/servers"):
        server.stop(host, f"{tmp_path}/servers", name=name, grace_s=1)


def quoted(text: str) -> list[str]:
    """Commands of sgprov in backticks, each once."""
    return list(dict.fromkeys(re.findall(r"`(\S*sgprov [^`]+)`", text)))


def test_what_bootstrap_prints_at_its_end(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    one = record.load(machine.host, f"{machine.prefix}/servers/one")
    assert one
    wishes = Options(target="cpu", prefix=machine.prefix, name="one")
    plan = bootstrap.make_plan(machine.host, wishes, bootstrap.Manner(api_key=KEY), assumed="target")
    plan = replace(plan, launch=replace(plan.launch, key_file=one.key_file))
    report = Report(host="h", command="bootstrap", data={"endpoint": f"{one.url}/v1"})
    out = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "/usr/bin:/bin")
        program.program.cache_clear()
        endpoint.show(Screen(file=out), report, plan, name="one", place=f" --prefix {machine.prefix}")
    program.program.cache_clear()
    assert KEY not in out.getvalue()
    printed = [
        line.strip() for line in out.getvalue().splitlines() if line.startswith("  ") and "key is in" not in line
    ]
    assert len(printed) == 5 and printed[0].startswith("curl ") and printed[-1].split()[1:3] == ["serve", "stop"]
    for command in printed:
        status, said = machine.shell(command)
        # The stand-in is no model: that is what smoke says of it.
        assert status == (6 if " smoke " in command else 0), (command, said)
        if command.startswith("curl"):
            assert '"choices"' in said and '"error"' not in said
        assert "several servers" not in said and "wants a login" not in said
    assert record.load(machine.host, f"{machine.prefix}/servers/one").state == "stopped"  # type: ignore[union-attr]


def test_what_a_smoke_test_that_fails_prints(machine: Machine) -> None:
    status, said = machine.sgprov("smoke", "two", "--prefix", machine.prefix)
    assert status == 6
    commands = [one for one in quoted(said) if "export" not in one]
    assert commands, said
    for command in commands:
        assert machine.shell(command)[0] == 0, command


def test_what_a_stopped_server_prints_starts_it(machine: Machine) -> None:
    server.stop(machine.host, f"{machine.prefix}/servers", name="one")
    status, said = machine.sgprov("smoke", "one", "--prefix", machine.prefix)
    assert status == 6
    (command,) = quoted(said)
    assert machine.shell(command)[0] == 0, command
    found = machine.sgprov("serve", "status", "one", "--prefix", machine.prefix)
    assert found[0] == 0 and "running" in found[1]


def test_what_doctor_prints_of_stopped_servers_is_no_test_of_them(machine: Machine) -> None:
    for name in ("one", "two"):
        server.stop(machine.host, f"{machine.prefix}/servers", name=name, grace_s=1)
    _, said = machine.sgprov("doctor", "server-alive", "--target", "cpu", "--prefix", machine.prefix, "--json")
    assert json.loads(said)["next"].split()[1:4] == ["bootstrap", "--target", "cpu"]


def test_what_doctor_prints_of_a_killed_server(machine: Machine) -> None:
    one = record.load(machine.host, f"{machine.prefix}/servers/one")
    assert one and one.pid
    os.kill(one.pid, signal.SIGKILL)
    while processes.find(machine.host, one.pid):
        time.sleep(0.01)
    _, said = machine.sgprov("doctor", "server", "--target", "cpu", "--prefix", machine.prefix)
    commands = quoted(said)
    assert [command.split()[1] for command in commands] == ["diagnose", "serve"], said
    for command in commands:
        assert machine.shell(command)[0] == 0, command


def test_what_a_taken_port_prints_stops_the_server_of_another_prefix(machine: Machine, tmp_path: Path) -> None:
    one = record.load(machine.host, f"{machine.prefix}/servers/one")
    assert one
    port = one.url.rpartition(":")[2]
    where = ("--prefix", f"{tmp_path}/other", "--port", port, "--name", "three")
    status, said = machine.sgprov("bootstrap", "--target", "cpu", "--only", "port", *where)
    assert status == 4
    (command,) = [one for one in quoted(said) if " stop " in one]
    assert machine.shell(command)[0] == 0, command
    states = {name: record.load(machine.host, f"{machine.prefix}/servers/{name}") for name in ("one", "two")}
    assert {name: one.state for name, one in states.items() if one} == {"one": "stopped", "two": "ready"}


@pytest.mark.parametrize("words", [("serve", "logs"), ("smoke",), ("serve", "stop")])
def test_of_two_servers_one_is_to_be_named(machine: Machine, words: tuple[str, ...]) -> None:
    status, said = machine.sgprov(*words, "--prefix", machine.prefix)
    assert status == 2 and "`one`" in said and "`two`" in said


def test_it_is_called_by_the_word_that_starts_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ours = Path(sys.executable).with_name("sgprov")
    (tmp_path / "bin").mkdir()
    try:
        for path, word in (
            (str(ours.parent), "sgprov"),
            ("/nonexistent", str(ours)),
            (str(tmp_path / "bin"), str(ours)),
        ):
            monkeypatch.setenv("PATH", path)
            program.program.cache_clear()
            assert program.program() == word
            told = program.runnable("run `sgprov doctor` (sgprov does) on /x/sgprov plan, then sgprov bootstrap")
            assert told == f"run `{word} doctor` (sgprov does) on /x/sgprov plan, then {word} bootstrap"
            (tmp_path / "bin" / "sgprov").write_text("#!/bin/sh\n")
            (tmp_path / "bin" / "sgprov").chmod(0o755)
        (tmp_path / "bin" / "sgprov").unlink()
        (tmp_path / "bin" / "sgprov").symlink_to(ours)
        program.program.cache_clear()
        assert program.program() == "sgprov", "a link to ours is ours"
    finally:
        program.program.cache_clear()


def test_the_prefix_that_was_given_goes_along() -> None:
    program.remember_prefix(["serve", "logs", "--prefix", "/srv/a b"])
    try:
        told = program.runnable("`sgprov serve start x`, `sgprov diagnose f`, `sgprov smoke --prefix /y`")
    finally:
        program.remember_prefix([])
    assert told == "`sgprov serve start x --prefix '/srv/a b'`, `sgprov diagnose f`, `sgprov smoke --prefix /y`"
