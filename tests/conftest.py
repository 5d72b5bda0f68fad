"""Seals tests off from the machine they run on, and says loudly what was not run."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import settings
from tried import Tried

from provision import secrets

# Marks of tests that need a part that not every machine has, or minutes, each behind an option of its name.
PARTS = ("network", "engine", "container", "ansible", "long", "attack", "fault")

# A slow machine is no failure, and what failed once is to fail again.
settings.register_profile("sgprov", deadline=None, derandomize=os.environ.get("CI") == "true")
settings.load_profile("sgprov")


def pytest_addoption(parser: pytest.Parser) -> None:
    for part in PARTS:
        parser.addoption(f"--run-{part}", action="store_true", help=f"run the tests marked `{part}`")
    parser.addoption("--tried", metavar="FILE", help="write what was tried, and what held, into this page")


def pytest_configure(config: pytest.Config) -> None:
    # What whoever runs the tests has set for sgprov says nothing of it.
    for name in [name for name in os.environ if name.startswith("SGPROV_")]:
        del os.environ[name]
    # As where an environment is activated: what is printed names `sgprov` alone.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    if page := config.getoption("--tried"):
        config.pluginmanager.register(Tried(Path(page)))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for part in _parts(item):
            if not config.getoption(f"--run-{part}"):
                item.add_marker(pytest.mark.skip(reason=f"NOT RUN: needs --run-{part}"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that was asked for and skips itself because its part is missing has proved nothing: in CI it fails."""
    report = yield
    parts = _parts(item)
    # A test of several parts was asked for only where all of them were.
    asked_for = parts if all(item.config.getoption(f"--run-{part}") for part in parts) else []
    if report.skipped and asked_for and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"--run-{asked_for[0]} was given, and the test was skipped: {report.longrepr}"
    return report


def _parts(item: pytest.Item) -> list[str]:
    return [part for part in PARTS if item.get_closest_marker(part)]


@pytest.fixture(autouse=True)
def _environment_stays() -> Iterator[None]:
    """Fails a test that leaves the process's environment changed: the next one would run on another machine."""
    before, umask = dict(os.environ), os.umask(0o022)
    yield
    left = os.umask(umask)
    # What one test gave as a secret is a plain word in the next one.
    secrets._known.clear()
    after = dict(os.environ)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    changed -= {"PYTEST_CURRENT_TEST"}
    if changed:
        os.environ.clear()
        os.environ.update(before)
        pytest.fail(f"the test left the environment changed: {', '.join(sorted(changed))}")
    if left != 0o022:
        pytest.fail(f"the test left the umask changed: {left:03o}")


@pytest.fixture
def real_machine() -> None:
    """Lets a test start processes and open connections on this machine; say so with `usefixtures`."""


@pytest.fixture(autouse=True)
def _sealed(request: pytest.FixtureRequest, _environment_stays: None) -> Iterator[None]:
    """No test reaches the machine by accident, or it would pass here and nowhere else."""
    if "real_machine" in request.fixturenames or _parts(request.node):
        yield
        return

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("a unit test reached for the real machine: give it a machine folder, or `real_machine`")

    def refuse_connection(self: socket.socket, *_: Any) -> NoReturn:
        # Left open, it would be a second failure, somewhere else.
        self.close()
        refuse()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "__init__", refuse)
        patch.setattr(socket.socket, "connect", refuse_connection)
        patch.setattr(socket.socket, "connect_ex", refuse_connection)
        yield
