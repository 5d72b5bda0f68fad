"""What live tests share: the real command, and one installation of the `cpu` target for all of them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import hosts, small
from live.hosts import Hosts
from live.real_command import sgprov
from live.small import Small


@pytest.fixture(scope="session")
def cpu_prefix(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A prefix in which the `cpu` target is installed, by sgprov itself. SGPROV_TEST_PREFIX names a kept one."""
    prefix = os.environ.get("SGPROV_TEST_PREFIX") or str(tmp_path_factory.mktemp("sgprov"))
    ran = sgprov("bootstrap", "--target", "cpu", "--prefix", prefix, "--no-smoke", "--json")
    assert ran.rc == 0, ran.out + ran.err
    return prefix


@pytest.fixture(scope="session")
def engine_python(cpu_prefix: str) -> str:
    """The interpreter of the environment in use there."""
    return str(Path(cpu_prefix, "current", "bin", "python"))


@pytest.fixture
def unused_port(real_machine: None) -> int:  # noqa: ARG001  # it lets sockets through
    """A TCP port that is free now, outside the range that the system hands out by itself."""
    return _unused_port()


def _unused_port() -> int:
    for port in range(21000, 21900, 37):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    pytest.fail("no port is free")


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    pytest.importorskip("ansible_runner", reason="NOT RUN: ansible-runner is not installed")
    made = small.make(tmp_path_factory.mktemp("small"))
    server = made.index.serve()
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Hosts]:
    made = hosts.make(tmp_path / "hosts")
    yield made
    made.close()
