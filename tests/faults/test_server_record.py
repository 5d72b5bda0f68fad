"""A server whose record was lost is found, stopped, replaced and told of all the same."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import stand_in
from faults.stand_in import launch, left_over, serves, started

from provision.cli import main
from provision.errors import UntrustedPath, UsageError
from provision.host.local import LocalHost
from provision.serving import processes, record, server
from provision.steps.server import StartServer

pytestmark = [pytest.mark.usefixtures("real_machine"), pytest.mark.fault]
KIND = "lost record"


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


def edited(**changes: Any) -> Callable[[Path], None]:
    return lambda path: write(path, json.dumps(json.loads(path.read_text()) | changes))


def write(path: Path, text: str) -> None:
    path.write_text(text)


# What is done to a record, by its name.
LOSSES: dict[str, Callable[[Path], object]] = {
    "cut short": lambda path: os.truncate(path, path.stat().st_size // 2),
    "cut to a byte": lambda path: os.truncate(path, 1),
    "empty": lambda path: os.truncate(path, 0),
    "blank": lambda path: write(path, "\n" * 100),
    "garbage": lambda path: path.write_bytes(os.urandom(2000)),
    "zeros": lambda path: path.write_bytes(b"\0" * 2000),
    "of another kind": lambda path: write(path, "[]"),
    "without its id": lambda path: write(path, '{"name": "a"}'),
    "missing": lambda path: path.unlink(),
    "missing with its directory": lambda path: shutil.rmtree(path.parent),
    "without a pid": edited(pid=None, started_ticks=0),
    "with another pid": edited(pid=4000000, started_ticks=1),
    "of an earlier start": edited(id="0" * 32, pid=4000000, started_ticks=1, state="ready"),
    "of an earlier start that was stopped": edited(id="0" * 32, pid=4000000, started_ticks=1, state="stopped"),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.tried(KIND, "`serve status` and `serve stop` of a server whose record was lost in one of 14 ways")
def test_it_is_seen_and_stopped(host: LocalHost, servers: str, port: int, loss: str) -> None:
    ready = started(host, servers, launch(port))
    LOSSES[loss](Path(ready.directory, record.FILE))
    assert record.names(host, servers) == ("a",)
    known = server.known(host, servers, name="a")
    assert known.pid == ready.pid and known.argv == ready.argv
    assert serves(host, servers)
    ended = server.stop(host, servers, name="a", grace_s=2)
    assert ended and ended.processes >= 1
    assert left_over(servers) == []
    assert processes.find(host, ready.pid or 0) is None


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.tried(
    KIND, "A run that wants the same server, whose record was lost: it goes on, and its record is made anew"
)
def test_its_record_is_made_anew_and_it_goes_on(host: LocalHost, servers: str, port: int, loss: str) -> None:
    ready = started(host, servers, launch(port))
    LOSSES[loss](Path(ready.directory, record.FILE))
    told: list[str] = []
    step = StartServer(servers=servers, name="a", launch=launch(port), tested=False)
    if not step.satisfied(host):
        step.apply(host, lambda progress: told.append(progress.text))
        assert any("was made anew" in text for text in told)
    now = record.load(host, ready.directory)
    assert now and now.pid == ready.pid, "the very same server"
    assert step.satisfied(host) and record.damage(host, ready.directory) is None
    aside = Path(ready.directory, f"{record.FILE}.damaged")
    assert aside.exists() == (
        loss not in {"missing", "missing with its directory", "without a pid", "with another pid"}
    )


@pytest.mark.parametrize("loss", ["cut short", "empty", "missing", "without a pid", "of an earlier start"])
@pytest.mark.tried(KIND, "A run that wants another server in place of one whose record was lost")
def test_it_is_replaced(host: LocalHost, servers: str, port: int, loss: str) -> None:
    ready = started(host, servers, launch(port))
    LOSSES[loss](Path(ready.directory, record.FILE))
    StartServer(servers=servers, name="a", launch=launch(port, "serves", "x"), tested=False).apply(host, lambda _: None)
    now = server.known(host, servers, name="a")
    assert now.argv[-1] == "x" and serves(host, servers)
    assert processes.find(host, ready.pid or 0) is None


@pytest.mark.parametrize("loss", ["cut short", "empty", "garbage"])
@pytest.mark.tried(KIND, "A damaged record of which nothing runs: told, removed on request, no obstacle for a start")
def test_of_what_is_gone_it_is_told_and_it_is_forgotten(
    host: LocalHost, servers: str, port: int, loss: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ready = started(host, servers, launch(port))
    os.kill(ready.pid or 0, 9)
    while processes.find(host, ready.pid or 0):
        time.sleep(0.01)
    path = Path(ready.directory, record.FILE)
    LOSSES[loss](path)
    prefix = ("--prefix", servers.removesuffix("/servers"))
    assert main(["serve", "status", *prefix, "--json"]) == 6
    (row,) = json.loads(capsys.readouterr().out)["servers"]
    assert row["health"] == "lost" and str(path) in row["text"] and "serve remove a" in row["text"]
    assert main(["serve", "stop", "a", *prefix]) == 2
    assert "serve remove a" in capsys.readouterr().err
    if loss == "empty":
        assert main(["serve", "remove", "a", *prefix]) == 0
        assert not path.parent.exists()
    else:
        started(host, servers, launch(port))
        assert serves(host, servers)


@pytest.mark.tried(KIND, "The host has another name than when the server was started, in the same boot")
def test_another_host_name_is_no_other_machine(host: LocalHost, servers: str, port: int) -> None:
    ready = started(host, servers, launch(port))
    edited(machine="the-name-before")(Path(ready.directory, record.FILE))
    assert serves(host, servers)
    assert StartServer(servers=servers, name="a", launch=launch(port)).satisfied(host)
    assert server.stop(host, servers, name="a", grace_s=2)
    assert left_over(servers) == []


@pytest.mark.tried(KIND, "A server of a machine that is gone, whose directory another machine has now")
def test_what_ran_on_a_machine_that_is_gone_can_be_forgotten(host: LocalHost, servers: str, port: int) -> None:
    ready = started(host, servers, launch(port))
    server.stop(host, servers, name="a", grace_s=2)
    edited(machine="the-pod-before", boot="another-boot", state="ready")(Path(ready.directory, record.FILE))
    for attempt in (
        lambda: server.stop(host, servers, name="a"),
        lambda: server.start(host, servers, launch(port), name="a", replacing=True),
    ):
        with pytest.raises(UsageError, match="the-pod-before") as refused:
            attempt()
        assert "sgprov serve remove a" in (refused.value.hint or "")
    server.remove(host, servers, name="a")
    started(host, servers, launch(port))
    assert serves(host, servers)


@pytest.mark.tried(KIND, "`serve remove` of a server that runs, with and without a record")
def test_what_runs_is_not_forgotten(host: LocalHost, servers: str, port: int) -> None:
    ready = started(host, servers, launch(port))
    for loss in (None, "empty"):
        if loss:
            LOSSES[loss](Path(ready.directory, record.FILE))
        with pytest.raises(UsageError, match="runs"):
            server.remove(host, servers, name="a")
        assert serves(host, servers)


@pytest.mark.parametrize("what", ["directory", "pipe", "link"])
@pytest.mark.tried(KIND, "A directory, a pipe or a link in the place of the record: named, with the command that helps")
def test_what_is_no_file_is_named(
    host: LocalHost, servers: str, port: int, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ready = started(host, servers, launch(port))
    path = Path(ready.directory, record.FILE)
    path.unlink()
    if what == "directory":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("elsewhere.json")
    prefix = ("--prefix", servers.removesuffix("/servers"))
    assert main(["serve", "stop", "a", *prefix, "--json"]) == UntrustedPath.exit_status
    told = json.loads(capsys.readouterr().out)["error"]
    assert str(path) in told["text"] and f"mv {path}" in told["hint"]
    path.rename(f"{path}.untrusted")  # as the hint has it
    assert main(["serve", "stop", "a", *prefix]) == 0
    assert left_over(servers) == []


@pytest.mark.tried(
    KIND, "`serve start` of a server that runs, and `serve stop --all` beside one of which only that is left"
)
def test_commands_go_on_beside_it(host: LocalHost, servers: str, port: int, capsys: pytest.CaptureFixture[str]) -> None:
    ready = started(host, servers, launch(port))
    LOSSES["empty"](Path(ready.directory, record.FILE))
    prefix = ("--prefix", servers.removesuffix("/servers"))
    assert main(["serve", "start", "a", *prefix]) == 0
    assert "was made anew" in capsys.readouterr().err
    now = record.written(host, ready.directory)
    assert now and now.pid == ready.pid, "it goes on"
    lost = Path(servers, "0", record.FILE)
    lost.parent.mkdir(mode=0o700)
    lost.touch()
    assert main(["serve", "stop", "--all", *prefix]) == 2
    assert left_over(servers) == []
