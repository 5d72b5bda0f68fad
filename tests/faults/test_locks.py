"""Who waits for another run says for which, and gives up in time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import stand_in
from faults.stand_in import launch, serves, started

from provision.cli import main
from provision.errors import StepFailed
from provision.host import locking
from provision.host.local import LocalHost
from provision.serving import lock, server
from provision.steps.base import Progress
from provision.steps.server import StartServer

pytestmark = [pytest.mark.usefixtures("real_machine"), pytest.mark.fault]
KIND = "held lock"
HOLDING = """
import sys, time
from provision.host.local import LocalHost
from provision.serving.lock import alone
with alone(LocalHost({}), sys.argv[1]):
    print("ready", flush=True)
    time.sleep(120)
"""


@pytest.fixture
def host() -> LocalHost:
    return stand_in.local_host()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[str]:
    tmp_path.chmod(0o700)
    yield f"{tmp_path}/servers"
    stand_in.end_all(str(tmp_path))


@pytest.fixture
def holder(host: LocalHost, servers: str) -> Iterator[subprocess.Popen[bytes]]:
    """Another run, which is at work on the server `a`, that serves."""
    started(host, servers, launch(stand_in.free_port()))
    variables = {"PYTHONPATH": str(stand_in.ROOT)}
    with subprocess.Popen([sys.executable, "-c", HOLDING, f"{servers}/a"], env=variables, stdout=-1) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        yield process
        process.kill()


@pytest.mark.parametrize("stopped", [False, True], ids=["at work", "stopped"])
@pytest.mark.tried(KIND, "`serve stop`, `restart` and a run behind one that holds the lock, or was stopped with it")
def test_it_says_for_whom_and_gives_up(  # noqa: PLR0917
    host: LocalHost,
    servers: str,
    holder: subprocess.Popen[bytes],
    stopped: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(lock, "PATIENCE_S", 60.0 if stopped else 0.5)
    monkeypatch.setattr(locking, "STOPPED_S", 0.5)
    if stopped:
        os.kill(holder.pid, signal.SIGSTOP)
        os.waitpid(holder.pid, os.WUNTRACED)
    prefix = ("--prefix", servers.removesuffix("/servers"))
    for command in ("stop", "restart"):
        begun = time.monotonic()
        assert main(["serve", command, "a", *prefix]) == StepFailed.exit_status
        said = capsys.readouterr().err
        assert f"waiting for another sgprov (pid {holder.pid}" in said and time.monotonic() - begun < 20
        if stopped:
            assert f"kill -CONT {holder.pid}" in said
    told: list[Progress] = []
    step = StartServer(servers=servers, name="a", launch=launch(stand_in.free_port()), tested=False)
    with pytest.raises(StepFailed, match=str(holder.pid)):
        step.apply(host, told.append)
    assert any(f"waiting for another sgprov (pid {holder.pid}" in one.text and one.milestone for one in told)
    assert serves(host, servers), "nothing was ended for that"


@pytest.mark.tried(KIND, "The holder is killed while another run waits for it")
def test_it_goes_on_when_the_holder_ends(host: LocalHost, servers: str, holder: subprocess.Popen[bytes]) -> None:
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        holder.kill()

    assert server.stop(host, servers, name="a", grace_s=2, tell=tell)
    assert f"pid {holder.pid}" in told[0]
