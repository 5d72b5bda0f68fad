"""Requests that a server has taken are answered before it ends, and those that are not are counted."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import stand_in
from faults.stand_in import launch, left_over, serves, started

from provision.cli import main
from provision.host.local import LocalHost
from provision.serving import server
from provision.steps.server import StartServer

pytestmark = [pytest.mark.usefixtures("real_machine"), pytest.mark.fault]
KIND = "requests in flight"


@pytest.fixture
def host() -> LocalHost:
    return stand_in.local_host()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[str]:
    tmp_path.chmod(0o700)
    yield f"{tmp_path}/servers"
    stand_in.end_all(str(tmp_path))


class Clients:
    """Several requests at once that each take some seconds, and what became of them."""

    def __init__(self, url: str, *, count: int, seconds: float) -> None:
        self._ends: list[str] = []
        self._url = f"{url}/slow/{seconds}"
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()
        time.sleep(1.0)

    def _ask(self) -> None:
        try:
            with urllib.request.urlopen(self._url, timeout=60) as answer:  # noqa: S310  # our own server
                self._ends.append("answered" if answer.read() == b"{}" else "cut")
        except (OSError, urllib.error.URLError):
            self._ends.append("cut")

    def ends(self) -> tuple[int, int]:
        """How many were answered, and how many were cut."""
        for thread in self._threads:
            thread.join(60)
        return self._ends.count("answered"), self._ends.count("cut")


@pytest.mark.parametrize("lost", [False, True], ids=["with its record", "whose record was lost"])
@pytest.mark.tried(KIND, "`serve stop` while ten requests are worked on, each of which takes 4 s")
def test_a_stop_lets_them_end(host: LocalHost, servers: str, lost: bool) -> None:
    ready = started(host, servers, launch(stand_in.free_port()))
    if lost:
        Path(ready.directory, "server.json").write_text("")
    clients = Clients(ready.url, count=10, seconds=4)
    told: list[str] = []
    begun = time.monotonic()
    ended = server.stop(host, servers, name="a", tell=told.append)
    assert ended and ended.cut == 0 and time.monotonic() - begun < 15, "and no longer than they take"
    assert clients.ends() == (10, 0)
    assert any("10 requests in flight" in text for text in told)
    assert left_over(servers) == []


@pytest.mark.tried(KIND, "`serve stop` with a short `--grace`: those that are cut are counted")
def test_those_that_are_cut_are_counted(host: LocalHost, servers: str, capsys: pytest.CaptureFixture[str]) -> None:
    ready = started(host, servers, launch(stand_in.free_port()))
    clients = Clients(ready.url, count=5, seconds=30)
    prefix = servers.removesuffix("/servers")
    assert main(["serve", "stop", "a", "--grace", "2", "--prefix", prefix, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["stopped"] == ["a"] and found["cut"] == {"a": 5}
    assert clients.ends() == (0, 5) and left_over(servers) == []


@pytest.mark.parametrize("how", ["restart", "replace"])
@pytest.mark.tried(KIND, "`serve restart`, and a run that replaces the server, while ten requests are worked on")
def test_a_successor_waits_for_them(host: LocalHost, servers: str, how: str) -> None:
    port = stand_in.free_port()
    ready = started(host, servers, launch(port))
    clients = Clients(ready.url, count=10, seconds=3)
    if how == "restart":
        assert main(["serve", "restart", "a", "--prefix", servers.removesuffix("/servers"), "--json"]) == 0
    else:
        step = StartServer(servers=servers, name="a", launch=launch(port, "serves", "x"), timeout_s=20, tested=False)
        step.apply(host, lambda _: None)
    assert clients.ends() == (10, 0)
    assert serves(host, servers) and server.known(host, servers, name="a").pid != ready.pid


@pytest.mark.tried(KIND, "`serve stop` of a server that nobody asks anything")
def test_without_any_it_ends_at_once(host: LocalHost, servers: str) -> None:
    started(host, servers, launch(stand_in.free_port()))
    begun = time.monotonic()
    ended = server.stop(host, servers, name="a")
    assert ended and ended.cut == 0 and time.monotonic() - begun < 5
