"""A server that has much to do is not taken for one that is dead."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from faults import stand_in
from faults.stand_in import launch, started

from provision.catalog.engines import engine
from provision.host.local import LocalHost
from provision.serving import events, record, server, supervisor
from provision.serving.status import status
from provision.serving.supervisor import Patience

pytestmark = [pytest.mark.usefixtures("real_machine"), pytest.mark.fault]
KIND = "busy server"
STRICT = Patience(attempts=1, first_pause_s=0.05, check_s=0.1, unwell=2)


@pytest.fixture
def host() -> LocalHost:
    return stand_in.local_host()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[str]:
    tmp_path.chmod(0o700)
    yield f"{tmp_path}/servers"
    stand_in.end_all(str(tmp_path))


@pytest.mark.tried(KIND, "A health check that takes longer than before (10 s), and less than the engine's own limit")
def test_the_limit_is_the_engines() -> None:
    for name in ("sglang", "lmdeploy", "nim"):
        row = engine(name)
        assert all(probe.health_limit_s >= 30 for probe in row.probes)


@pytest.mark.tried(KIND, "A health check that says no while requests are worked on")
def test_who_works_is_well(host: LocalHost, servers: str) -> None:
    ready = started(host, servers, launch(stand_in.free_port(), "busy"))
    found = status(host, ready)
    assert found.health == "running" and "busy" in found.text
    assert status(host, ready, timeout_s=1.0).health == "running", "and also where it gives no answer in time"


@pytest.mark.tried(KIND, "A server that hangs, and works on nothing")
def test_who_hangs_is_not_well(host: LocalHost, servers: str) -> None:
    ready = started(host, servers, launch(stand_in.free_port(), "hangs"))
    assert status(host, ready, timeout_s=1.0).health == "unhealthy"


@pytest.mark.tried(KIND, "A supervisor that asks a busy server many times")
def test_a_busy_server_is_not_started_again(host: LocalHost, servers: str) -> None:
    ready = started(host, servers, launch(stand_in.free_port(), "busy"))
    record.save(host, msgspec.structs.replace(ready, supervised=True))
    thread = threading.Thread(
        target=supervisor.supervise, args=(host, servers), kwargs={"name": "a", "patience": STRICT}, daemon=True
    )
    thread.start()
    time.sleep(8)
    assert thread.is_alive() and events.events(host, ready) == ()
    assert server.known(host, servers, name="a").pid == ready.pid
    server.stop(host, servers, name="a", grace_s=1)
    thread.join(20)
    assert not thread.is_alive()
