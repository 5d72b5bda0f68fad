"""Who has a port is named before anything is done about it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from fakes import FakeHost

from provision.errors import ProbeError, StepFailed
from provision.facts import gather
from provision.host import Listener, Process
from provision.host.local import LocalHost
from provision.serving.ports import DerivedPort
from provision.steps.base import Progress
from provision.steps.port import Port, needed, next_free


def ear(port: int = 30000, pid: int | None = 4711, name: str = "python3") -> Listener:
    command = f"{name} -m http.server --api-key hunter2hunter2"
    if pid is None:
        return Listener(port=port, address="0.0.0.0")
    return Listener(port=port, address="127.0.0.1", pid=pid, process=name, command=command, user="ada")


def machine(*ears: Listener) -> FakeHost:
    host = FakeHost()
    host.ears = list(ears)
    return host


def failure(host: FakeHost, step: Port) -> StepFailed:
    assert not step.satisfied(host)
    with pytest.raises(StepFailed) as caught:
        step.apply(host, lambda _: None)
    return caught.value


def test_free() -> None:
    assert Port(ports=(30000, 30001)).satisfied(machine(ear(29999), ear(30002)))


class Blind(FakeHost):
    """A machine that does not show its sockets."""

    def listeners(self) -> tuple[Listener, ...]:
        raise ProbeError("who listens on this host cannot be told: no /proc/net")


def test_what_cannot_be_seen_is_not_taken_for_free() -> None:
    error = failure(Blind(), Port(ports=(30000,)))
    assert "whether a port is free cannot be told" in str(error) and "--skip port" in (error.hint or "")
    with pytest.raises(StepFailed, match="cannot be told"):
        next_free(Blind(), 30000, lambda port: (port,))
    assert [one.check for one in gather(Blind()).problems if one.check == "facts.listeners"] == ["facts.listeners"]


@pytest.mark.usefixtures("real_machine")
def test_sockets_that_psutil_cannot_read_are_no_free_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise PermissionError(13, "no")

    monkeypatch.setattr("psutil.net_connections", fail)
    with pytest.raises(ProbeError, match="cannot be told"):
        LocalHost({}).listeners()


def test_taken_names_who_and_what_helps() -> None:
    error = failure(machine(ear()), Port(ports=(30000,)))
    assert str(error) == ("port 30000 is taken by pid 4711, user ada: `python3 -m http.server --api-key ***`")
    assert error.hint == "`--free-port` stops it, `--port auto` takes the next free one (30001), or: `kill 4711`"


def test_a_server_of_another_prefix_is_stopped_by_its_own_command() -> None:
    host = machine(ear(pid=50))
    python = "/srv/other/environments/sglang-0.5.9-cp310-x86_64-012345/bin/python"
    for pid, parent, command in ((50, 40, "sglang::scheduler"), (40, 1, f"{python} -m sglang.launch_server")):
        host.running.append(Process(pid=pid, parent=parent, name="x", command=command, user="ada", started=0.0))
        host.files[f"/proc/{pid}/stat"] = f"{pid} (x) S {parent} 40 40 " + "0 " * 30
    host.files["/proc/40/environ"] = "PATH=/bin\0SGPROV_SERVER=abc\0"
    assert (failure(host, Port(ports=(30000,))).hint or "").endswith(
        ", or: `sgprov serve stop --all --prefix /srv/other`"
    )


def test_a_derived_port_is_told_from_the_servers_own() -> None:
    error = failure(machine(ear(30004), ear(30005)), Port(ports=(30000, 30004)))
    assert str(error).startswith("port 30004 (derived from 30000) is taken by pid 4711")
    assert "(30002)" in (error.hint or ""), "30001 would derive 30005, which is taken too"


def test_an_owner_that_cannot_be_seen() -> None:
    error = failure(machine(ear(pid=None)), Port(ports=(30000,), free=True))
    assert str(error) == "port 30000 is taken by a process that this user may not see"
    assert error.hint == "`sudo ss -ltnp 'sport = :30000'` says who it is"


def test_freed_after_it_was_named() -> None:
    host, told = machine(ear(), ear(30001, 4712), ear(8888, 99)), list[Progress]()

    def dies(pid: int, _number: int) -> None:
        assert len(told) == 2, "named first"
        host.ears = [one for one in host.ears if one.pid != pid]

    host.on_signal = dies
    step = Port(ports=(30000, 30001), free=True, patience_s=0)
    note = step.apply(host, told.append)
    assert sorted(host.signals) == [(4711, signal.SIGTERM), (4712, signal.SIGTERM)]
    assert "pid 4711" in told[0].text and all(one.milestone and one.stays for one in told), "no renderer drops it"
    stopped = "user ada: `python3 -m http.server --api-key ***`"
    assert note == f"stopped pid 4711, {stopped}; stopped pid 4712, {stopped}; port 30000 is free"
    assert step.satisfied(host)


def test_one_that_does_not_listen_to_reason_is_killed_and_one_that_comes_back_is_told() -> None:
    host = machine(ear())
    error = failure(host, Port(ports=(30000,), free=True, patience_s=0))
    assert host.signals == [(4711, signal.SIGTERM), (4711, signal.SIGKILL)]
    assert "came back" in str(error)


@pytest.mark.parametrize(
    ("listener", "said"),
    [
        (ear(pid=1, name="init"), "systemctl list-sockets"),
        (ear(name="sshd"), "choose another port"),
        (ear(8000, name="docker-proxy"), "docker ps --filter publish=8000"),
    ],
)
def test_what_is_never_stopped(listener: Listener, said: str) -> None:
    host = machine(listener)
    error = failure(host, Port(ports=(listener.port,), free=True))
    assert said in (error.hint or "") and not host.signals


def test_the_notebook_that_this_command_runs_in_is_not_stopped() -> None:
    host = machine(ear(8888, 50, "jupyter-lab"))
    for pid, parent in ((os.getpid(), 60), (60, 50), (50, 1)):
        host.running.append(Process(pid=pid, parent=parent, name="x", command="x", user="ada", started=0.0))
    error = failure(host, Port(ports=(8888,), free=True))
    assert "this command runs inside of it" in str(error) and not host.signals


def test_next_free_minds_the_derived_ports() -> None:
    host = machine(ear(30000), ear(30011))
    assert next_free(host, 30000, lambda port: (port, port + 10)) == 30002
    with pytest.raises(StepFailed, match="no port from 65530 on"):
        next_free(host, 65530, lambda port: (port + 10,))


def test_the_owner_of_the_last_port_is_named_although_no_other_follows() -> None:
    host = machine(ear(65535))
    with pytest.raises(StepFailed, match="port 65535 is taken by pid 4711") as caught:
        Port(ports=(65535,)).apply(host, lambda _: None)
    assert (
        caught.value.hint
        == "`--free-port` stops it, or: `kill 4711`; no higher port is free, `--port` names a lower one"
    )


def test_only_fixed_ports_are_needed() -> None:
    derived = (
        DerivedPort(name="http", first=30000, last=30000, fixed=True),
        DerivedPort(name="nccl", first=40000, last=40100, fixed=False),
        DerivedPort(name="ranks", first=30010, last=30012, fixed=True),
    )
    assert needed(derived) == (30000, 30010, 30011, 30012)


@pytest.mark.usefixtures("real_machine")
def test_a_real_listener_is_named_and_stopped() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        host, told = LocalHost({}), list[Progress]()
        deadline = time.monotonic() + 20
        while Port(ports=(port,)).satisfied(host) and time.monotonic() < deadline:
            time.sleep(0.05)
        with pytest.raises(StepFailed, match=f"port {port} is taken by pid {server.pid}, .*http.server"):
            Port(ports=(port,)).apply(host, told.append)
        assert server.poll() is None
        Port(ports=(port,), free=True).apply(host, told.append)
        assert server.wait(5) == -signal.SIGTERM
        assert f"pid {server.pid}" in told[0].text
    finally:
        server.kill()
        server.wait()
