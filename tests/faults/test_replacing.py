"""What serves is ended for nothing less than its successor: whatever happens meanwhile, one of the two serves."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from faults import stand_in
from faults.stand_in import launch, left_over, serves, started

from provision.cli import main
from provision.errors import ProvisionError, ServingFailed, StepFailed
from provision.host.local import LocalHost
from provision.serving import record, server
from provision.serving.record import Server
from provision.steps.base import Progress
from provision.steps.server import StartServer

pytestmark = [pytest.mark.usefixtures("real_machine"), pytest.mark.fault]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT RUN: needs root, to mount a file system of its own")
KIND = "ended for nothing"


@pytest.fixture
def host() -> LocalHost:
    return stand_in.local_host()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[str]:
    tmp_path.chmod(0o700)
    yield f"{tmp_path}/servers"
    stand_in.end_all(str(tmp_path))


@pytest.fixture
def port() -> int:
    return stand_in.free_port()


def replacing(servers: str, port: int, how: str = "serves") -> StartServer:
    return StartServer(servers=servers, name="a", launch=launch(port, how, "other"), timeout_s=20, tested=False)


def still(host: LocalHost, servers: str, before: Server) -> None:
    """It serves on, and is the very process that it was."""
    assert server.known(host, servers, name="a").pid == before.pid
    assert serves(host, servers)


def back(host: LocalHost, servers: str, before: Server) -> None:
    """It serves again, with what it was started with, and nothing else is left."""
    now = server.wait_until_ready(host, server.known(host, servers, name="a"), timeout_s=20)
    assert now.argv == before.argv and serves(host, servers)
    assert set(left_over(servers)) == {one.pid for one in record.members(host, now)}


@pytest.mark.parametrize("problem", [BrokenPipeError, OSError, ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.tried(
    KIND, "The output breaks, or anything else is raised, at some point of a launch that replaces a server"
)
def test_an_exception_brings_back_what_was_replaced(
    host: LocalHost, servers: str, port: int, problem: type[BaseException], at: int
) -> None:
    before = started(host, servers, launch(port))
    told = 0

    def tell(_: Progress) -> None:
        nonlocal told
        told += 1
        if told == at:
            raise problem

    try:
        replacing(servers, port).apply(host, tell)
    except problem:
        back(host, servers, before)
    else:
        assert told < at and serves(host, servers), "it was told less often than that"


class Refusing(LocalHost):
    """A machine that refuses the Nth change of a file: a full disk, or one that became read-only."""

    def __init__(self, after: int) -> None:
        super().__init__({"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/root")})
        self.left = after

    def _count(self, path: str) -> None:
        self.left -= 1
        if self.left < 0:
            raise StepFailed(f"`{path}` could not be written: No space left on device")

    def write(self, path: str, text: str, *, mode: int = 0o644) -> None:
        self._count(path)
        super().write(path, text, mode=mode)

    def open_state(self, path: str, flags: int, *, mode: int = 0o600) -> int:
        if flags & os.O_CREAT:
            self._count(path)
        return super().open_state(path, flags, mode=mode)

    def start(self, argv: Sequence[str], *, log: str, variables: Mapping[str, str | None] | None = None) -> int:
        return LocalHost({"PATH": os.environ["PATH"]}).start(argv, log=log, variables=variables)


@pytest.mark.parametrize("after", range(8))
@pytest.mark.tried(KIND, "The disk takes no file any more from the Nth one of a launch on that replaces a server")
def test_a_disk_that_takes_nothing_more_leaves_one_that_serves(
    host: LocalHost, servers: str, port: int, after: int
) -> None:
    before = started(host, servers, launch(port))
    try:
        replacing(servers, port).apply(Refusing(after), lambda _: None)
    except StepFailed:
        still(host, servers, before)
    else:
        assert server.known(host, servers, name="a").argv[-1] == "other" and serves(host, servers)
    assert left_over(servers)


@needs_root
@pytest.mark.parametrize("how", ["serves", "breaks"])
@pytest.mark.parametrize("room", [0, 1500, 5000, 9000, 20000])
@pytest.mark.tried(KIND, "A disk that is full, or nearly so, while a server is replaced by one that serves or does not")
def test_a_full_disk_leaves_one_that_serves(host: LocalHost, tmp_path: Path, port: int, room: int, how: str) -> None:
    with stand_in.small_disk(tmp_path / "disk") as disk:
        servers = f"{disk}/servers"
        before = started(host, servers, launch(port))
        ballast = stand_in.fill(disk)
        os.truncate(ballast, max(0, ballast.stat().st_size - room))
        try:
            replacing(servers, port, how).apply(host, lambda _: None)
        except ProvisionError:
            now = server.known(host, servers, name="a")
            assert now.argv == before.argv and serves(host, servers)
        else:
            assert how == "serves" and serves(host, servers)
        server.stop(host, servers, name="a", grace_s=2)
        assert left_over(servers) == [], "a full disk is no obstacle for a stop"


@needs_root
@pytest.mark.tried(KIND, "A disk without inodes while a server is replaced, restarted and stopped")
def test_a_disk_without_inodes_leaves_one_that_serves(host: LocalHost, tmp_path: Path, port: int) -> None:
    with stand_in.small_disk(tmp_path / "disk", inodes=40) as disk:
        servers = f"{disk}/servers"
        before = started(host, servers, launch(port))
        for number in range(100):
            try:
                Path(disk, str(number)).touch()
            except OSError:
                break
        with pytest.raises(StepFailed):
            replacing(servers, port).apply(host, lambda _: None)
        still(host, servers, before)
        assert server.stop(host, servers, name="a", grace_s=2)
        assert left_over(servers) == []


def gone(python: Path) -> None:
    python.unlink()


def not_to_be_run(python: Path) -> None:
    python.chmod(stat.S_IMODE(python.stat().st_mode) & ~0o111)


def another_file(python: Path) -> None:
    python.unlink()
    python.mkdir()


@pytest.mark.parametrize("what", [gone, not_to_be_run, another_file])
@pytest.mark.tried(KIND, "`serve restart` of a server whose Python is gone, or cannot be run any more")
def test_a_restart_without_its_python_leaves_what_serves(host: LocalHost, servers: str, port: int, what: Any) -> None:
    python = Path(servers).parent / "python"
    python.symlink_to(sys.executable) if what is gone else shutil.copy2(os.path.realpath(sys.executable), python)
    wanted = launch(port)
    wanted = replace(wanted, argv=(str(python), *wanted.argv[1:]))
    before = started(host, servers, wanted)
    what(python)
    prefix = servers.removesuffix("/servers")
    assert main(["serve", "restart", "a", "--prefix", prefix]) == ServingFailed.exit_status
    still(host, servers, before)


@pytest.mark.parametrize("module", ["raise SystemExit(1)", "import no_such_module", "def broken(:"])
@pytest.mark.tried(KIND, "`serve restart` of a server whose engine cannot be imported any more")
def test_a_restart_whose_engine_crashes_leaves_what_serves(
    host: LocalHost, servers: str, port: int, module: str, tmp_path: Path
) -> None:
    engine = tmp_path / "stand_in_engine.py"
    engine.write_text(stand_in.CODE)
    wanted = launch(port)
    wanted = replace(
        wanted,
        argv=(sys.executable, "-m", "stand_in_engine", str(port), "serves"),
        variables={"PYTHONPATH": str(tmp_path)},
        python=sys.executable,
    )
    before = started(host, servers, wanted)
    engine.write_text(module)
    with pytest.raises(ServingFailed, match="stand_in_engine"):
        server.restart(host, servers, name="a")
    still(host, servers, before)


@pytest.mark.tried(KIND, "`serve restart` with other settings that does not start: the server before serves again")
def test_a_restart_that_fails_goes_back(
    host: LocalHost, servers: str, port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = started(host, servers, launch(port))
    monkeypatch.setattr("provision.serving.relaunch.launch_of", lambda *_: (launch(port, "breaks"), None))
    prefix = servers.removesuffix("/servers")
    assert main(["serve", "restart", "a", "--prefix", prefix, "--json"]) == ServingFailed.exit_status
    found = json.loads(capsys.readouterr().out)
    assert any(one["check"] == "server-restored" for one in found["findings"])
    back(host, servers, before)


@pytest.mark.parametrize("how", ["read-only lock", "no lock", "lock is gone with its directory"])
@pytest.mark.tried(KIND, "`serve stop` where the lock cannot be written")
def test_a_stop_needs_no_lock(host: LocalHost, servers: str, port: int, how: str) -> None:
    ready = started(host, servers, launch(port))
    lock = Path(ready.directory, "lock")
    if how == "read-only lock":
        lock.chmod(0o400)
    elif how == "no lock":
        lock.unlink()
    else:
        shutil.rmtree(ready.directory)
    stopped = server.stop(
        Refusing(0) if how != "lock is gone with its directory" else host, servers, name="a", grace_s=2
    )
    assert stopped and left_over(servers) == []
