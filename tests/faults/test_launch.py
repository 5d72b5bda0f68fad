"""What servers leave behind that were killed, lost their record, or whose machine was booted: nothing."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.host.local import LocalHost
from provision.serving import processes, record, scratch, server
from provision.serving.launch import Launch
from provision.serving.record import Server

pytestmark = pytest.mark.usefixtures("real_machine")
SHARED = Path(scratch.SHARED)
# It leaves what engines leave: a socket's file, a directory, a segment that is mapped.
ENGINE = """
import mmap, os, pathlib, sys, tempfile, time
tempfile.mkdtemp()
tempfile.NamedTemporaryFile(delete=False)
with open("/dev/shm/" + sys.argv[1], "w+b") as segment:
    segment.truncate(4096)
    kept = mmap.mmap(segment.fileno(), 4096)
print("The server is fired up and ready to roll!", flush=True)
time.sleep(60)
"""


@pytest.fixture
def host() -> LocalHost:
    return LocalHost({"PATH": os.environ["PATH"]})


@pytest.fixture
def servers(tmp_path: Path, host: LocalHost) -> Iterator[str]:
    tmp_path.chmod(0o700)
    yield f"{tmp_path}/servers"
    for name in record.names(host, f"{tmp_path}/servers"):
        server.stop(host, f"{tmp_path}/servers", name=name, grace_s=1.0)


def started(host: LocalHost, servers: str, segment: str, *, name: str = "a") -> Server:
    launch = Launch(
        engine="sglang",
        version="0.5.23",
        argv=(sys.executable, "-c", ENGINE, segment),
        url="http://127.0.0.1:21997",
        model="/m",
    )
    one = server.start(host, servers, launch, name=name)
    deadline = time.monotonic() + 20
    while "fired up" not in Path(one.log).read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    # What `wait_until_ready` does of a server that answers.
    scratch.note(host, one.scratch, pid=one.pid or 0, started=one.started_ticks)
    return one


def left(one: Server, segment: str) -> list[Path]:
    return [path for path in (Path(one.scratch), SHARED / segment) if path.exists()]


def kill(host: LocalHost, one: Server) -> None:
    os.kill(one.pid or 0, signal.SIGKILL)
    while processes.find(host, one.pid or 0):
        time.sleep(0.01)


@pytest.fixture
def segment() -> Iterator[str]:
    name = f"sgprov_test_{uuid.uuid4().hex[:12]}"
    yield name
    (SHARED / name).unlink(missing_ok=True)


@pytest.mark.tried("leftovers", "a server is stopped: its files in TMPDIR and its segments of shared memory")
def test_a_server_that_is_stopped_leaves_nothing(host: LocalHost, servers: str, segment: str) -> None:
    one = started(host, servers, segment)
    assert len(left(one, segment)) == 2
    assert server.stop(host, servers, name="a", grace_s=2)
    assert left(one, segment) == []


@pytest.mark.tried(
    "leftovers", "a server is killed, with its record there, lost, or from before a boot; the next one starts"
)
@pytest.mark.parametrize("how", ["killed", "lost record", "booted"])
def test_what_a_killed_server_left_goes_with_the_next_start(
    host: LocalHost, servers: str, segment: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = started(host, servers, segment)
    if how == "booted":
        # The pid is another's by now, of a process that runs.
        monkeypatch.setattr(processes, "boot_id", lambda _: "another boot")
    else:
        kill(host, one)
    if how == "lost record":
        Path(servers, "a", "server.json").unlink()
    other = f"{segment}b"
    try:
        two = started(host, servers, other, name="b")
        assert [path for path in left(one, segment) if how != "booted" or path.parent != SHARED] == []
        assert len(left(two, other)) == 2, "what a living server has stays"
        monkeypatch.undo()
        if how == "booted":
            kill(host, one)
    finally:
        server.stop(host, servers, name="b", grace_s=1)
        (SHARED / other).unlink(missing_ok=True)


@pytest.mark.tried("leftovers", "two servers use one segment, and one of them ends")
def test_a_segment_that_somebody_uses_stays(host: LocalHost, servers: str, segment: str) -> None:
    one, two = started(host, servers, segment), started(host, servers, segment, name="b")
    server.stop(host, servers, name="a", grace_s=1)
    assert left(one, segment) == [SHARED / segment]
    server.stop(host, servers, name="b", grace_s=1)
    assert left(two, segment) == []


@pytest.mark.tried("leftovers", "others have directories of such a name: a link, a file, or one that says nothing yet")
def test_what_is_not_a_dead_servers_stays(host: LocalHost, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("x")
    names = [Path(tempfile.gettempdir(), f"sgprov-{uuid.uuid4().hex}") for _ in range(3)]
    link, file, new = names
    link.symlink_to(tmp_path / "kept")
    file.write_text("x")
    new.mkdir()
    try:
        scratch.sweep(host)
        assert link.is_symlink() and file.exists() and new.exists() and (tmp_path / "kept" / "file").exists()
        os.utime(new, (0, 0))
        scratch.sweep(host)
        assert not new.exists() and link.is_symlink()
    finally:
        link.unlink()
        file.unlink()
        if new.exists():
            new.rmdir()
