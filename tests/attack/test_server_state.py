"""What stands in the state of a server makes nobody's process end, nothing run, and nothing be written elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from provision.cli import main
from provision.errors import NotPermitted, ProvisionError, StepFailed, UntrustedPath, UsageError
from provision.host.local import LocalHost
from provision.serving import processes, record, server, supervisor, watchman
from provision.serving.launch import Launch
from provision.serving.record import Server

pytestmark = pytest.mark.usefixtures("real_machine")

KIND = "hostile server state"
STRANGER = 54321
SLEEP = (sys.executable, "-c", "import time; time.sleep(120)")


@pytest.fixture
def host() -> LocalHost:
    return LocalHost({"PATH": os.environ["PATH"], "HOME": "/nonexistent"})


@pytest.fixture
def servers(tmp_path: Path, host: LocalHost) -> Iterator[str]:
    directory = tmp_path / "servers"
    directory.mkdir(mode=0o700)
    yield str(directory)
    for found in processes.starts(host):
        if found.directory.startswith(str(directory)):
            os.kill(found.process.pid, 9)


def launch(*argv: str) -> Launch:
    return Launch(engine="sglang", version="0.5.23", argv=argv or SLEEP, url="http://127.0.0.1:9", model="/m")


def made(host: LocalHost, servers: str, **changes: Any) -> Server:
    """A server that runs, with a record in which something is changed."""
    started = server.start(host, servers, launch(), name="a")
    path = Path(started.directory, record.FILE)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return started


class Victim(AbstractContextManager["Victim"]):
    """A process that is no server's: of this user, or of another one."""

    def __init__(self, uid: int | None = None, **variables: str) -> None:
        self._process = subprocess.Popen(
            ["/bin/sleep", "120"], user=uid, env=variables, start_new_session=True, cwd="/"
        )
        self.pid = self._process.pid
        deadline = time.monotonic() + 10
        # Until it is the program: before, its environment is that of the test.
        while b"sleep" not in Path(f"/proc/{self.pid}/cmdline").read_bytes() and time.monotonic() < deadline:
            time.sleep(0.01)
        stat = processes.parse_stat(Path(f"/proc/{self.pid}/stat").read_text())
        assert stat
        self.ticks = stat.started

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def lives(self) -> bool:
        return self._process.poll() is None


@pytest.mark.tried(KIND, "A record that names a process of this user which is no server's")
def test_a_process_without_the_marker_gets_no_signal(host: LocalHost, servers: str) -> None:
    with Victim() as victim:
        ours = made(host, servers, pid=victim.pid, started_ticks=victim.ticks)
        server.stop(host, servers, name="a", grace_s=0.5)
        assert victim.lives
        assert processes.find(host, ours.pid or 0) is None, "its own process was found all the same"


@pytest.mark.attack
@pytest.mark.parametrize("marked", [False, True], ids=["unmarked", "marked"])
@pytest.mark.tried(KIND, "A record that names a process of another user, which may carry the marker of the server")
def test_a_process_of_another_user_gets_no_signal(host: LocalHost, servers: str, marked: bool) -> None:
    ours = server.start(host, servers, launch(), name="a")
    marks = record.marks(ours) if marked else {}
    with Victim(STRANGER, **marks) as victim:
        path = Path(ours.directory, record.FILE)
        document = json.loads(path.read_text())
        path.write_text(json.dumps(document | {"pid": victim.pid, "started_ticks": victim.ticks}))
        server.stop(host, servers, name="a", grace_s=0.5)
        assert victim.lives and processes.find(host, ours.pid or 0) is None
        path.unlink()
        assert record.load(host, ours.directory) is None, "its record was not believed"
        assert record.names(host, servers) == ()


@pytest.mark.attack
@pytest.mark.parametrize("theirs", ["record", "directory", "servers"])
@pytest.mark.tried(KIND, "A record, its directory, or that of all servers which another user made")
def test_what_another_user_made_is_not_believed(host: LocalHost, servers: str, theirs: str, tmp_path: Path) -> None:
    flag = tmp_path / "ran"
    with Victim() as victim:
        argv = (sys.executable, "-c", f"open({str(flag)!r}, 'w')")
        ours = made(host, servers, argv=argv, pid=victim.pid, started_ticks=victim.ticks, state="ready")
        os.kill(ours.pid or 0, 9)
        path = {"record": f"{ours.directory}/{record.FILE}", "directory": ours.directory, "servers": servers}[theirs]
        os.chown(path, STRANGER, STRANGER)
        for attempt in (
            lambda: server.stop(host, servers, name="a"),
            lambda: server.restart(host, servers, name="a"),
            lambda: server.remove(host, servers, name="a"),
            lambda: supervisor.supervise(host, servers, name="a"),
        ):
            with pytest.raises(UntrustedPath) as refused:
                attempt()
            assert "54321" in str(refused.value) and path in str(refused.value)
        assert victim.lives and not flag.exists()


@pytest.mark.parametrize("name", ["lock", watchman.LOCK, "events.jsonl", "server.log", "server.log.next", "api-key"])
@pytest.mark.tried(KIND, "A link to another file in the place of a lock, the log, the events or the key")
def test_a_link_makes_nothing_be_written_elsewhere(host: LocalHost, servers: str, tmp_path: Path, name: str) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious\n")
    directory = Path(servers, "a")
    directory.mkdir(mode=0o700)
    (directory / name).symlink_to(precious)
    wanted = Launch(**{**launch().__dict__, "key_file": f"{directory}/api-key"})
    said = ""
    try:
        started = server.start(host, servers, wanted, name="a", key="k" * 20)
        supervisor.note(host, started, "died")
        watchman.end(host, started.directory)
        server.stop(host, servers, name="a", grace_s=0.5)
    except ProvisionError as error:
        said = f"{error} {error.hint}"
    assert precious.read_text() == "precious\n"
    assert not said or f"mv {directory / name}" in said, "refused by its name, with what helps"


@pytest.mark.tried(KIND, "A record that says that it, its log and its key lie elsewhere, or that it has another name")
def test_where_a_record_lies_decides_what_is_its(host: LocalHost, servers: str, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    changes = {"directory": str(elsewhere), "log": f"{elsewhere}/log", "name": "../../b", "key_file": "/etc/shadow"}
    made(host, servers, **changes)
    known = server.known(host, servers, name="a")
    directory = f"{servers}/a"
    assert (known.name, known.directory, known.log) == ("a", directory, f"{directory}/server.log")
    assert known.key_file == f"{directory}/api-key"
    server.stop(host, servers, name="a", grace_s=0.5)
    server.remove(host, servers, name="a")
    assert list(elsewhere.iterdir()) == [] and not Path(directory).exists()


DAMAGED: dict[str, Any] = {
    "pid 0": {"pid": 0},
    "pid 1": {"pid": 1},
    "pid -1": {"pid": -1},
    "pid -2": {"pid": -2},
    "a pid that is none": {"pid": 2**40},
    "pid as text": {"pid": "1"},
    "pid as a fraction": {"pid": 4711.5},
    "ticks -1": {"started_ticks": -1},
    "an id of slashes": {"id": "../../x"},
    "an empty id": {"id": ""},
    "an empty program": {"argv": [""]},
    "a zero byte in the command": {"argv": ["/bin/sh", "a\0b"]},
    "a command that is text": {"argv": "rm -rf /"},
    "a command in a command": {"argv": [["/bin/sh"]]},
    "a variable with an equals sign": {"variables": {"A=B": "c"}},
    "an engine that is none": {"engine": "../evil"},
    "a version that is none": {"version": "{{ x }}"},
    "no address": {"url": "file:///etc/passwd"},
    "a port that is none": {"url": "http://127.0.0.1:99999999"},
    "a state that is none": {"state": "owned"},
    "an option for a container": {
        "container": {"program": "docker", "name": "--privileged", "port": 1, "address": "127.0.0.1"}
    },
    "a program for a container": {"container": {"program": "/bin/x", "name": "a", "port": 1, "address": "127.0.0.1"}},
}
TEXTS = {
    "empty": "",
    "blank": " \n",
    "cut short": '{"id": "00',
    "garbage": "\ufffd\0{]",
    "a list": "[1]",
    "null": "null",
    "deep": "[" * 200_000,
    "deeper": '{"given":' * 100_000,
    "huge": "[" + "1," * 5_000_000 + "1]",
}


@pytest.mark.parametrize("name", [*DAMAGED, *TEXTS])
@pytest.mark.tried(KIND, "A record that is cut short, garbage, huge, deep, or holds what none can hold")
def test_what_cannot_be_a_record_is_refused_by_its_name(host: LocalHost, servers: str, name: str) -> None:
    directory = Path(servers, "a")
    directory.mkdir(mode=0o700)
    path = directory / record.FILE
    sound = server.start(host, servers, launch(), name="b")
    sound_text = json.loads(Path(sound.directory, record.FILE).read_text())
    path.write_text(json.dumps(sound_text | DAMAGED[name]) if name in DAMAGED else TEXTS[name])
    with pytest.raises(UsageError) as refused:
        server.stop(host, servers, name="a")
    assert str(path) in str(refused.value) and len(str(refused.value)) < 1000
    found = record.damage(host, str(directory))
    assert found and found.path == str(path)
    assert record.names(host, servers) == ("a", "b"), "it is not kept quiet"
    server.remove(host, servers, name="a")
    assert not directory.exists() and processes.find(host, sound.pid or 0)


@pytest.mark.parametrize("pid", [1, 0, -1, -4711])
@pytest.mark.tried(KIND, "A signal to a process of the machine's own, or to a whole group")
def test_no_signal_goes_to_more_than_one_process(host: LocalHost, pid: int) -> None:
    with pytest.raises(StepFailed, match="never sent a signal"):
        host.signal(pid, 0)


@contextmanager
def as_stranger() -> Iterator[None]:
    os.seteuid(STRANGER)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.attack
@pytest.mark.parametrize("command", ["status", "stop", "logs", "restart"])
@pytest.mark.tried(KIND, 'Another user asks for a server under a prefix that is not theirs: not permitted, not "never"')
def test_another_user_is_told_that_it_is_not_theirs(
    host: LocalHost, servers: str, command: str, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    ours = server.start(host, servers, launch(), name="a")
    prefix = Path(servers).parent
    for place in (prefix, *prefix.parents[:-2]):
        request.addfinalizer(partial(place.chmod, place.stat().st_mode & 0o777))
        place.chmod(0o755)
    arguments = ["serve", command, "--prefix", str(prefix), "--json"]
    main(["serve", "status", "--prefix", str(prefix), "--json"])  # so that all is imported
    capsys.readouterr()
    with as_stranger():
        assert main(arguments) == NotPermitted.exit_status
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False and found["error"]["code"] == "not-permitted"
    assert processes.find(host, ours.pid or 0)
