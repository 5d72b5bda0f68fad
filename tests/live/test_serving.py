"""The real engine on the CPU: started, ready, asked, broken, stopped."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.catalog.rows import Serve
from provision.errors import ServingFailed, UsageError
from provision.host.local import LocalHost
from provision.report import Severity
from provision.serving import processes, record, server, smoke, status, tiny_model
from provision.serving.launch import Launch, render
from provision.serving.phases import Phase
from provision.serving.record import Server

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("real_machine")]

VERSION = "0.5.23"
READY_S = 400.0
CPU = Serve(
    served_name=tiny_model.SERVED_NAME,
    device="cpu",
    mem_fraction=0.2,
    max_total_tokens=8192,
    attention_backend="torch_native",
    sampling_backend="pytorch",
    load_format="dummy",
    cuda_graph=False,
)


@pytest.fixture(scope="module")
def python(engine_python: str) -> str:
    return engine_python


@pytest.fixture(scope="module")
def host() -> LocalHost:
    kept = ("PATH", "HOME", "LANG")
    return LocalHost({name: os.environ[name] for name in kept if name in os.environ})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, host: LocalHost) -> str:
    directory = str(tmp_path_factory.mktemp("model"))
    tiny_model.write(host, directory)
    return directory


@pytest.fixture
def servers(tmp_path: Path, host: LocalHost) -> Iterator[str]:
    directory = str(tmp_path / "servers")
    yield directory
    for name in record.names(host, directory):
        server.stop(host, directory, name=name, grace_s=1.0)


def launch(python: str, model: str, port: int, *extra: str) -> Launch:
    serve = Serve(**{name: getattr(CPU, name) for name in CPU.__struct_fields__} | {"port": port, "extra": extra})
    return render("sglang", VERSION, serve, python=python, model_path=model)


def note_ready_line(path: str, written: list[float]) -> None:
    """The moment in which the engine's ready line is in its log."""
    while not written:
        if "fired up and ready" in Path(path).read_text(errors="replace"):
            written.append(time.monotonic())
        time.sleep(0.005)


def nothing_left(host: LocalHost, started: Server) -> bool:
    marked = f"{processes.MARKER}={started.id}"
    everyone = [path.split("/")[2] for path in host.glob("/proc/[0-9]*/environ") if marked in (host.read(path) or "")]
    return not record.members(host, started) and not everyone


def test_the_life_of_a_server(host: LocalHost, servers: str, python: str, model: str, unused_port: int) -> None:
    phases: list[str] = []
    command = launch(python, model, unused_port)
    started = server.start(host, servers, command)
    assert server.start(host, servers, command) == started, "starting it again is the same server"
    with pytest.raises(UsageError, match="runs already, with other settings"):
        server.start(host, servers, launch(python, model, unused_port, "--log-requests"))
    assert status.status(host, started).health == "starting"

    written: list[float] = []
    threading.Thread(target=note_ready_line, args=(started.log, written), daemon=True).start()
    ready = server.wait_until_ready(host, started, timeout_s=READY_S, tell=lambda phase, _: phases.append(phase.name))
    assert time.monotonic() - written[0] < 0.25, "noticed at once"
    assert list(dict.fromkeys(phases)) == ["imports", "workers", "parallel", "weights", "memory", "http", "warmup"]
    now = status.status(host, ready)
    assert now.health == "running" and len(now.pids) >= 3

    for _ in range(2):
        findings = {
            finding.check: finding
            for finding in smoke.run(ready.url, log=ready.log, version=VERSION, expect_model=tiny_model.SERVED_NAME)
        }
        assert {finding.severity for finding in findings.values()} == {Severity.OK}, findings
        assert len(findings) == 7
        assert findings["smoke-cache"].data["cached_tokens"] > 500
        assert findings["smoke-cache"].data["first_cached_tokens"] < 50, "each run begins cold"

    assert server.stop(host, servers)
    assert nothing_left(host, ready)
    assert status.status(host, server.known(host, servers)).health == "stopped"
    assert not server.stop(host, servers), "stopping it again changes nothing"


def test_a_worker_that_is_killed_is_noticed(
    host: LocalHost, servers: str, python: str, model: str, unused_port: int
) -> None:
    ready = server.wait_until_ready(
        host, server.start(host, servers, launch(python, model, unused_port)), timeout_s=READY_S
    )
    worker = next(
        pid for pid in status.status(host, ready).pids if "scheduler" in (host.read(f"/proc/{pid}/cmdline") or "")
    )
    os.kill(worker, signal.SIGKILL)
    start = time.monotonic()
    while (now := status.status(host, ready)).health == "running" and time.monotonic() - start < 30:
        time.sleep(0.1)
    assert now.health in {"unhealthy", "dead"} and time.monotonic() - start < 15
    again = server.start(host, servers, launch(python, model, unused_port))
    assert again.id != ready.id, "starting again is the repair"
    assert Path(f"{again.log}.1").exists(), "why the first one broke can still be read"
    server.stop(host, servers)
    assert nothing_left(host, ready) and nothing_left(host, again)


def test_a_wait_that_is_interrupted_leaves_nothing(
    host: LocalHost, servers: str, python: str, model: str, unused_port: int
) -> None:
    started = server.start(host, servers, launch(python, model, unused_port))

    def interrupt_with_workers(phase: Phase, _: float) -> None:
        if phase.name == "workers":
            threading.Timer(3.0, os.kill, (os.getpid(), signal.SIGINT)).start()

    with pytest.raises(KeyboardInterrupt):
        server.wait_until_ready(host, started, timeout_s=READY_S, tell=interrupt_with_workers)
    assert nothing_left(host, started)
    assert status.status(host, server.known(host, servers)).health == "stopped"


def test_a_launch_that_fails_says_why_at_once(
    host: LocalHost, servers: str, python: str, model: str, unused_port: int
) -> None:
    started = server.start(host, servers, launch(python, model, unused_port, "--no-such-flag"))
    with pytest.raises(ServingFailed, match="unrecognized arguments: --no-such-flag") as caught:
        server.wait_until_ready(host, started, timeout_s=READY_S)
    assert caught.value.exit_status == 6 and re.search(
        r"ended \(it exited 2\) while importing the engine, after \d+ s", str(caught.value)
    )
    assert status.status(host, server.known(host, servers)).health == "dead"
    assert Path(started.log).exists()
