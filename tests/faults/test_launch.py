"""What servers leave behind that were killed, lost their record, or whose machine was booted; and why they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import FakeHost, answer

from provision import bootstrap
from provision.catalog.rows import Serve
from provision.config import Options
from provision.errors import StepFailed, UsageError
from provision.facts.model import Memory
from provision.host.local import LocalHost
from provision.report import Severity
from provision.serving import out_of_memory, processes, record, scratch, server
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
    deadline = time.monotonic() + 60
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
    host: LocalHost, servers: str, segment: str, how: str
) -> None:
    one = started(host, servers, segment)
    if how == "booted":
        # The pid is another's by now, of a process that runs.
        owner = Path(one.scratch, ".sgprov.json")
        owner.write_text(owner.read_text().replace(processes.boot_id(host), "another boot"))
    else:
        kill(host, one)
    if how == "lost record":
        Path(servers, "a", "server.json").unlink()
    other = f"{segment}b"
    try:
        two = started(host, servers, other, name="b")
        assert [path for path in left(one, segment) if how != "booted" or path.parent != SHARED] == []
        assert len(left(two, other)) == 2, "what a living server has stays"
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


@pytest.mark.tried("leftovers", "a start is killed before the server runs, or its program is not there")
def test_a_start_that_came_to_nothing_leaves_nothing(host: LocalHost, servers: str) -> None:
    marker = uuid.uuid4().hex
    code = f"""
import os, signal
from provision.host.local import LocalHost
from provision.serving import scratch
print(scratch.make(LocalHost({{}}), {marker!r}), flush=True)
scratch.sweep(LocalHost({{}}))
os.kill(os.getpid(), signal.SIGKILL)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    made = Path(ran.stdout.strip())
    assert made.name == f"sgprov-{marker}" and made.is_dir(), "its own is not swept"
    scratch.sweep(host)
    assert not made.exists()
    gone = Launch(engine="sglang", version="0.5.23", argv=("/no/engine",), url="http://127.0.0.1:31494", model="/m")
    with pytest.raises(StepFailed):
        server.start(host, servers, gone, name="a")
    left_behind = record.load(host, f"{servers}/a")
    assert left_behind and left_behind.scratch and not Path(left_behind.scratch).exists()


@contextmanager
def memory_group(mib: int) -> Iterator[Path]:
    """A control group of our own with that much memory, in either version."""
    base = Path("/sys/fs/cgroup/memory")
    old = base.is_dir()
    group = (base if old else base.parent) / f"sgprov-test-{uuid.uuid4().hex[:8]}"
    limit, swap = ("memory.limit_in_bytes", "memory.swappiness") if old else ("memory.max", "memory.swap.max")
    try:
        group.mkdir()
        (group / limit).write_text(str(mib << 20))
        (group / swap).write_text("0")
    except OSError as error:
        if group.exists():
            group.rmdir()
        pytest.skip(f"NOT RUN: a control group could not be made here: {error}")
    try:
        yield group
    finally:
        deadline = time.monotonic() + 10
        while (group / "cgroup.procs").read_text().split() and time.monotonic() < deadline:
            time.sleep(0.05)
        group.rmdir()


# It joins the group, and starts there what needs more than the group has.
STARTS = """
import json, os, sys
from pathlib import Path
group, servers, engine = sys.argv[1:]
Path(group, "cgroup.procs").write_text(str(os.getpid()))
from provision.errors import ServingFailed
from provision.host.local import LocalHost
from provision.serving import record, server, status
from provision.serving.failed_launch import diagnosed
from provision.serving.launch import Launch
host = LocalHost({"PATH": os.environ["PATH"]})
argv = (sys.executable, "-c", engine)
launch = Launch(engine="sglang", version="0.5.23", argv=argv, url="http://127.0.0.1:31496", model="/m")
one = server.start(host, servers, launch, name="a")
try:
    with diagnosed(one.log):
        server.wait_until_ready(host, one, timeout_s=30)
except ServingFailed as error:
    found = [finding.check for finding in error.findings]
    now = status.status(host, record.load(host, one.directory))
    print(json.dumps({"text": str(error), "hint": error.hint, "checks": found, "status": now.text, "log": one.log}))
"""
HOG = "held = [bytearray(8 << 20) for _ in range(100)]"
# The process that was started lives on without the one that was killed, and says so in its own words.
PARENT = f"""
import subprocess, sys
ended = subprocess.run([sys.executable, "-c", {HOG!r}]).returncode
sys.exit(f"a worker ended: {{ended}}")
"""


@pytest.mark.fault
@pytest.mark.tried(
    "out of memory", "a launch in a control group without enough memory: the engine or a worker is killed"
)
@pytest.mark.parametrize("engine", [HOG, PARENT], ids=["engine", "worker"])
def test_a_launch_that_runs_out_of_memory_says_so(tmp_path: Path, engine: str) -> None:
    tmp_path.chmod(0o700)
    with memory_group(160) as group:
        ran = subprocess.run(
            [sys.executable, "-c", STARTS, str(group), f"{tmp_path}/servers", engine],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    said = json.loads(ran.stdout)
    assert "for lack of memory, which is limited to 160 MiB" in said["text"]
    assert "out-of-memory" in said["checks"] and "--memory" in said["hint"]
    assert ("killed by signal 9" in said["text"]) == (engine is HOG)
    assert "for lack of memory" in said["status"]
    found = subprocess.run(
        [sys.executable, "-m", "provision", "diagnose", said["log"]], capture_output=True, text=True, check=True
    )
    assert "for lack of memory" in found.stdout and "nothing known" not in found.stdout


def counted(group: int, *, machine: int = 0, dmesg: str = "") -> FakeHost:
    host = FakeHost({"/proc/self/cgroup": "0::/pod/a\n", "/proc/vmstat": f"oom_kill {machine}\n"})
    host.files["/sys/fs/cgroup/pod/a/memory.events"] = f"low 0\noom 1\noom_kill {group}\n"
    host.files["/sys/fs/cgroup/pod/a/memory.max"] = "943718400\n"
    if dmesg:
        host.answers["dmesg"] = answer(dmesg)
    return host


def test_the_kernels_counts_are_compared_with_those_before_the_start() -> None:
    before = out_of_memory.kills(counted(3, machine=5))
    assert out_of_memory.finding(counted(3, machine=5), before, killed=True) is None
    line = "[12.3] Memory cgroup out of memory: Killed process 7 (python) total-vm:9kB"
    found = out_of_memory.finding(counted(5, machine=7, dmesg=f"[1] x\n{line}\n"), before, killed=False)
    assert found and found.text == (
        "the kernel killed 2 processes of its control group for lack of memory, which is limited to 900 MiB;"
        f" its log: `{line}`"
    )
    elsewhere = counted(3, machine=6)
    assert out_of_memory.finding(elsewhere, before, killed=False) is None, "it may have been any other's"
    assert out_of_memory.finding(elsewhere, before, killed=True)


@pytest.mark.tried(
    "out of memory", "a machine or a control group with less memory than an engine takes: plan, bootstrap"
)
@pytest.mark.parametrize(("available", "limit"), [(900, None), (64000, 900)])
def test_too_little_memory_is_said_before_anything_is_started(
    available: int, limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Memory(total_mib=64000, available_mib=available, limit_mib=limit)
    wishes = Options(target="cpu", prefix="/p")
    facts = replace(bootstrap.question(FakeHost(), wishes, assumed="target").facts, memory=memory)
    monkeypatch.setattr(bootstrap, "gather", lambda *_, **__: facts)
    found = bootstrap.make_plan(FakeHost(), wishes).decision.findings
    (short,) = [one for one in found if one.check == "memory-available"]
    assert "900 MiB" in short.text and short.severity is Severity.WARNING
    none = bootstrap.make_plan(FakeHost(), wishes, bootstrap.Manner(smoke=False)).decision.findings
    assert "memory-available" not in {one.check for one in none}, "nothing is launched"


@pytest.mark.tried("foreign address", "`--bind` with an address that this machine has not, or a name that nobody has")
@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_refused_before_anything_is_started(
    host: LocalHost, servers: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Launch(
        engine="sglang",
        version="0.5.23",
        argv=("never",),
        url="http://127.0.0.1:31495",
        model="/m",
        serve=Serve(host=address),
    )
    start = time.monotonic()
    with pytest.raises(UsageError, match="no server can listen on it"):
        server.start(host, servers, wanted, name="a")
    assert record.names(host, servers) == () and time.monotonic() - start < 10
    known = FakeHost()
    known.unbindable = {address: "is not an address of this machine"}
    for target in ("cpu", "a100"):
        facts = bootstrap.question(FakeHost(), Options(target=target), assumed="target").facts
        monkeypatch.setattr(bootstrap, "gather", lambda *_, facts=facts, **__: facts)
        with pytest.raises(UsageError, match="no server can listen on it"):
            bootstrap.make_plan(known, Options(target=target, prefix="/p", bind=address, model="/m"))


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::", "localhost"])
def test_addresses_that_this_machine_has(host: LocalHost, address: str) -> None:
    assert host.bind_problem(address) is None


@pytest.mark.tried("leftovers", "a run that sees the processes of another machine than the one whose files it sees")
def test_nothing_is_swept_for_processes_that_cannot_be_seen(host: LocalHost, servers: str, segment: str) -> None:
    one = started(host, servers, segment)
    scratch.sweep(FakeHost({"/proc/sys/kernel/random/boot_id": "another boot"}))
    assert len(left(one, segment)) == 2
