"""A lock that says whom it waits for, and gives up."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from provision.errors import StepFailed
from provision.host import locking

pytestmark = pytest.mark.usefixtures("real_machine")
HOLDING = """
import os, sys, time
from provision.host import locking
with locking.held(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), sys.argv[1], work="busy", patience_s=1):
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "lock")


@pytest.fixture
def other(path: str) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds the lock."""
    root = str(Path(locking.__file__).parents[2])
    with subprocess.Popen([sys.executable, "-c", HOLDING, path], env={"PYTHONPATH": root}, stdout=-1) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        yield process
        process.kill()


def opened(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT)


def take(path: str, *, patience_s: float, tell: Callable[[str], None] = lambda _: None) -> None:
    with locking.held(opened(path), path, work="busy", patience_s=patience_s, tell=tell):
        pass


def test_who_is_waited_for_is_said_once_and_then_given_up(path: str, other: subprocess.Popen[bytes]) -> None:
    told: list[str] = []
    with pytest.raises(StepFailed, match=rf"pid {other.pid}\) is busy") as caught:
        take(path, patience_s=0.4, tell=told.append)
    assert told == [f"waiting for another sgprov (pid {other.pid}), which is busy"]
    assert "run the same command again" in (caught.value.hint or "")


def test_a_holder_that_was_stopped_is_given_up_sooner(
    path: str, other: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "STOPPED_S", 0.2)
    os.kill(other.pid, signal.SIGSTOP)
    os.waitpid(other.pid, os.WUNTRACED)
    with pytest.raises(StepFailed, match="stopped by a signal") as caught:
        take(path, patience_s=60)
    assert f"kill -CONT {other.pid}" in (caught.value.hint or "")


def test_a_lock_ends_with_its_holder_and_a_child_holds_it_too(path: str, other: subprocess.Popen[bytes]) -> None:
    other.kill()
    other.wait()
    with locking.held(opened(path), path, work="busy", patience_s=5) as descriptor:
        child = os.dup(descriptor)
    probe = opened(path)
    assert locking.is_held(probe) and locking.holder(probe) == os.getpid()
    os.close(child)
    assert not locking.is_held(probe)
    os.close(probe)


def test_a_file_system_without_locks_is_used_as_it_is(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    take(path, patience_s=1)
