"""What live tests share: the real command, and one installation of the `cpu` target for all of them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

INSTALL_S = 1800


@dataclass(frozen=True)
class Ran:
    """What a run of `sgprov` came to."""

    rc: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout."""
        found: dict[str, Any] = json.loads(self.out)
        return found


def sgprov(*arguments: str, timeout_s: float = INSTALL_S, **variables: str) -> Ran:
    """Run the real command in a process of its own."""
    ran = subprocess.run(
        [sys.executable, "-m", "provision", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, **variables},
        check=False,
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)


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


@pytest.fixture(scope="module")
def module_port() -> Callable[[], int]:
    return _unused_port


def _unused_port() -> int:
    for port in range(21000, 21900, 37):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    pytest.fail("no port is free")
