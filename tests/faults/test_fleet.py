"""What goes wrong on the way to many hosts, or on the controller itself: every host's end is told, and none is lost."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fleets import KNOWN, VERSION, Local, StubAnsible

from provision.bundle import own
from provision.errors import ProvisionError, StepFailed
from provision.fleet import memory, run, supplies
from provision.fleet.drive import Settings
from provision.fleet.model import FleetReport, HostState, State
from provision.fleet.run import Watcher, Wishes
from provision.host.local import LocalHost

ROOT = Path(__file__).parents[2]
HOST, CONTROLLER = "fleet: a host", "fleet: the controller"
FAILS = {"failed": True, "msg": "the disk is full", "rc": 5, "finished": True}
# A command of sgprov whose Ansible is scripted, in a process of its own.
PROGRAM = """
import json, os, signal, sys
if os.environ.get("CLOSED"):
    os.close(1)
from fleets import VERSION, StubAnsible
from provision.bundle import own
from provision.cli import main
from provision.fleet import run

class Killed(StubAnsible):
    def _usual(self, name, stage):
        if stage == "apply" and name == os.environ.get("KILLED_AT"):
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._usual(name, stage)

run.Workshop = lambda *_: Killed(json.loads(os.environ["SAYS"]))
own.wheel_digest = lambda: VERSION
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    def started(
        *arguments: str, says: dict[str, Any], stdout: Any = subprocess.PIPE, **more: str
    ) -> subprocess.Popen[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SGPROV_", "XDG_"))}
        environment = {
            **kept,
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
            "HOME": str(tmp_path),
            "SAYS": json.dumps(says),
            **more,
        }
        command = [sys.executable, "-c", PROGRAM, "fleet", *arguments, "-i", str(tmp_path / "inventory.yml")]
        return subprocess.Popen(
            command, env=environment, cwd=tmp_path, stdout=stdout, stderr=subprocess.PIPE, text=True
        )

    return started


@pytest.fixture
def controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FleetReport]:
    monkeypatch.setattr(own, "wheel_digest", lambda: VERSION)

    def carried_out(
        ansible: StubAnsible, *, watcher: Watcher | None = None, cache: str = "", **wishes: Any
    ) -> FleetReport:
        monkeypatch.setattr(run, "Workshop", lambda *_: ansible)
        host = LocalHost({"HOME": str(tmp_path), "PATH": "", **({"XDG_CACHE_HOME": cache} if cache else {})})
        asked = Wishes(settings=Settings(inventory=str(tmp_path / "i")), **{"wheels_from": "index", **wishes})
        return run.carry_out(host, "bootstrap", asked, watcher or Watcher())

    return carried_out


def states(report: FleetReport) -> dict[str, str]:
    return {host.name: host.state.value for host in report.hosts}


def kept(tmp_path: Path) -> dict[str, str]:
    found = list((tmp_path / ".local" / "state" / "sgprov" / "fleets").glob("*.json"))
    return dict(json.loads(found[0].read_text())["hosts"]) if found else {}


@pytest.mark.usefixtures("real_machine")
@pytest.mark.tried(CONTROLLER, "killed (kill -9) while one host is at work, and run again with `--failed`")
def test_a_controller_that_is_killed(start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    says: dict[str, Any] = {"a": {}, "b": {}, "c": {}}
    arguments = ("bootstrap", "--wheels", "index", "--batch", "100%", "--json")
    killed = start(*arguments, says=says, KILLED_AT="b")
    killed.communicate(timeout=60)
    assert killed.returncode == -9
    assert kept(tmp_path) in ({"a": "ok", "b": "not-reached", "c": "not-reached"}, dict.fromkeys("abc", "not-reached"))
    again = start(*arguments, "--failed", says=says)
    out, told = again.communicate(timeout=60)
    assert again.returncode == 0, told
    assert {"b", "c"} <= {host["host"] for host in json.loads(out)["hosts"]}
    assert set(kept(tmp_path).values()) == {"ok"}


@pytest.mark.usefixtures("real_machine")
@pytest.mark.tried(CONTROLLER, "output to /dev/full, to a pipe that nobody reads any more, and to none")
@pytest.mark.parametrize("where", ["/dev/full", "pipe", "closed"])
@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
def test_output_that_goes_nowhere(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path, where: str, form: tuple[str, ...]
) -> None:
    says: dict[str, Any] = {"a": {}, "b": {}}
    reading, writing = os.pipe()
    if where == "/dev/full":
        writing = os.open(where, os.O_WRONLY)
    os.close(reading)
    arguments = ("bootstrap", "--wheels", "index", *form)
    process = start(*arguments, says=says, stdout=writing, CLOSED="1" if where == "closed" else "")
    os.close(writing)
    _, told = process.communicate(timeout=60)
    assert "Traceback" not in told
    assert kept(tmp_path) == {"a": "ok", "b": "ok"}, "the work ends as it would have"


@pytest.mark.tried(CONTROLLER, "whoever looks on fails in the middle of the run")
@pytest.mark.parametrize(
    "error", [BrokenPipeError(), OSError(28, "No space left on device"), ValueError("closed file")]
)
def test_a_watcher_that_fails(controller: Callable[..., FleetReport], error: Exception) -> None:
    class Fails(Watcher):
        def changed(self, host: HostState) -> None:
            raise error

        def say(self, text: str) -> None:
            raise error

    assert states(controller(StubAnsible({"a": {}, "b": {}}), watcher=Fails())) == {"a": "ok", "b": "ok"}


def _directory(path: Path) -> None:
    path.mkdir()


def _link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def _pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.tried(CONTROLLER, "a directory, a link or a pipe in place of what is remembered of the last run")
@pytest.mark.parametrize("make", [_directory, _link, _pipe])
def test_a_memory_of_another_kind(
    controller: Callable[..., FleetReport], tmp_path: Path, make: Callable[[Path], None]
) -> None:
    controller(StubAnsible({"a": {}}))
    path = next((tmp_path / ".local" / "state" / "sgprov" / "fleets").iterdir())
    path.unlink()
    make(path)
    ansible = StubAnsible({"a": {}})
    with pytest.raises(ProvisionError) as caught:
        controller(ansible)
    assert str(path) in str(caught.value) and str(path) in str(caught.value.hint)
    assert ansible.played == [], "said before anything is done"


@pytest.mark.tried(CONTROLLER, "what is remembered is empty, cut short, garbage, or of another shape")
@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", '{"hosts": []}', "\x00\xff", '{"inventory": "i", "command": "x", "hosts": {"a": 1}}'],
)
def test_a_memory_that_is_damaged(controller: Callable[..., FleetReport], tmp_path: Path, text: str) -> None:
    controller(StubAnsible({"a": {}}))
    path = next((tmp_path / ".local" / "state" / "sgprov" / "fleets").iterdir())
    path.write_text(text, encoding="latin-1")
    assert states(controller(StubAnsible({"a": {}}))) == {"a": "ok"}
    assert kept(tmp_path) == {"a": "ok"}


@pytest.mark.tried(CONTROLLER, "the disk is full when the run has ended: its end is told all the same")
def test_an_end_that_cannot_be_kept(controller: Callable[..., FleetReport], monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def remember(*_: Any) -> None:
        calls.append(1)
        if len(calls) > 1:
            raise StepFailed("`x` cannot be written: No space left on device")

    monkeypatch.setattr(memory, "remember", remember)
    report = controller(StubAnsible({"a": {}, "b": {"apply": FAILS}}), max_fail=100)
    assert states(report) == {"a": "ok", "b": "failed"}
    assert len(report.unkept) == 1 and "No space left" in report.unkept[0]


@pytest.mark.tried(CONTROLLER, "nothing can be written where runs are remembered: said before any host is asked")
def test_a_state_that_cannot_be_written(controller: Callable[..., FleetReport], tmp_path: Path) -> None:
    (tmp_path / ".local" / "state" / "sgprov").mkdir(parents=True)
    (tmp_path / ".local" / "state" / "sgprov" / "fleets").write_text("a file")
    ansible = StubAnsible({"a": {}})
    with pytest.raises(ProvisionError, match="fleets"):
        controller(ansible)
    assert ansible.played == []


@pytest.mark.tried(CONTROLLER, "a file in place of the cache: it is named, and no host was changed")
def test_a_cache_that_cannot_be_written(controller: Callable[..., FleetReport], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    ansible = StubAnsible(
        {"a": {"ask": {"finished": True, "rc": 0, "report": {}, **KNOWN, "tool": "", "needs_tool": True}}}
    )
    with pytest.raises(ProvisionError, match=str(tmp_path / "cache")):
        controller(ansible, cache=str(tmp_path / "cache"))
    assert [played.tags for played in ansible.played] == ["ask"]
    assert kept(tmp_path) == {"a": "not-reached"}


@pytest.mark.tried(CONTROLLER, "the wheels cannot be fetched: hosts that were asked are taken up by the next run")
def test_wheels_that_cannot_be_had(
    controller: Callable[..., FleetReport], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: Any) -> None:
        raise StepFailed("the index is gone")

    monkeypatch.setattr(supplies, "wheels", refuse)
    ansible = StubAnsible({"a": {}, "b": {}})
    with pytest.raises(StepFailed, match="the index is gone"):
        controller(ansible, wheels_from="controller")
    assert [played.tags for played in ansible.played] == ["ask"]
    assert kept(tmp_path) == {"a": "not-reached", "b": "not-reached"}


@pytest.mark.fault
@pytest.mark.tried(CONTROLLER, "its disk is full, or has a few kilobytes left: an error that says so, or all is done")
# ansible-runner leaves files open where it cannot write to them.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("left", [0, 4, 12, 40, 100])
def test_a_controller_whose_disk_is_full(tmp_path: Path, left: int) -> None:
    pytest.importorskip("ansible_runner", reason="NOT RUN: ansible-runner is not installed")
    fleet = Local(tmp_path)
    fleet.add("one")
    home = tmp_path / "home"
    home.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k,mode=755", "x", str(home)], check=False)
    if mounted.returncode:
        pytest.skip("NOT RUN: a tmpfs cannot be mounted here")
    try:
        (home / "filler").write_bytes(b"x" * (400 - left) * 1024 if left else b"")
        with contextlib.suppress(OSError), (home / "rest").open("wb") as rest:
            rest.write(b"x" * 500_000 if not left else b"")
        host = LocalHost({"HOME": str(home), "PATH": os.environ["PATH"]})
        wishes = Wishes(settings=Settings(inventory=fleet.inventory()))
        words = ""
        try:
            report = run.carry_out(host, "doctor", wishes, Watcher())
            words = "" if report.ok else f"{report.stopped} {report.hosts[0].finding}"
        except ProvisionError as error:
            words = str(error)
        assert not words or "No space left" in words, words
    finally:
        subprocess.run(["umount", "--lazy", str(home)], check=True)


@pytest.mark.tried(HOST, "the connection drops while it is at work: it is unreachable, and taken up again")
def test_a_connection_that_drops(controller: Callable[..., FleetReport]) -> None:
    report = controller(StubAnsible({"a": {}, "b": {"apply": "unreachable"}}), batch=("100%",))
    assert states(report) == {"a": "ok", "b": "unreachable"} and report.exit_status == 7
    ansible = StubAnsible({"a": {}, "b": {}})
    assert states(controller(ansible, only_failed=True)) == {"b": "ok"}
    assert ansible.played[-1].ssh_attempts > 0, "and it is tried more than once before"


@dataclass
class Troubled:
    fleet: Local
    report: FleetReport
    seconds: float

    def host(self, name: str) -> HostState:
        return next(host for host in self.report.hosts if host.name == name)


DIES = "#!/bin/sh\nkill -9 $$\n"
DIES_WITH_ALL = (
    '#!/bin/sh\ncase "$*" in *--dry-run*) exec {stub} "$@";; esac\nkill -9 -$(ps -o pgid= $$ | tr -d \' \')\n'
)
HALF = '#!/bin/sh\ncase "$*" in *--dry-run*) exec {stub} "$@";; esac\nprintf \'{{"ok": true, "chan\'\n'
GARBAGE = "#!/bin/sh\nhead -c 100000 /dev/urandom\n"


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Troubled]:
    """One bootstrap by the real Ansible of hosts in trouble, and of one that has none."""
    pytest.importorskip("ansible_runner", reason="NOT RUN: ansible-runner is not installed")
    root = tmp_path_factory.mktemp("fleet")
    fleet = Local(root)
    half = json.dumps({"finished": True, "rc": 0, "report": {}})[:-5]
    fleet.add("cut", {"sgprov": {"raw": half}})
    fleet.add("mute", {"sgprov": {"raw": ""}})
    fleet.add("hangs", {"sgprov": {"raw": ""}})
    hanging = fleet.folder("hangs") / "python3"
    hanging.write_text("#!/bin/sh\nexec sleep 120\n")
    fleet.add("well")
    for name, script in (("dies", DIES), ("dies-at-work", DIES_WITH_ALL), ("half", HALF), ("garbage", GARBAGE)):
        fleet.add(name)
        program = fleet.folder(name) / "versions" / VERSION / "sgprov"
        stub = program.with_name("stub")
        program.rename(stub)
        program.write_text(script.format(stub=stub))
        program.chmod(0o755)
    for variables in fleet.hosts.values():
        variables |= {"sgprov_host_question_timeout": 5, "sgprov_host_grace": 10, "sgprov_host_timeout": 30}
    wishes = Wishes(settings=Settings(inventory=fleet.inventory()), max_fail=100, batch=("100%",), wheels_from="index")
    host = LocalHost({"HOME": str(root), "PATH": os.environ["PATH"]})
    begun = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own, "wheel_digest", lambda: VERSION)
        yield Troubled(fleet, run.carry_out(host, "bootstrap", wishes, Watcher()), time.monotonic() - begun)


@pytest.mark.fault
@pytest.mark.tried(HOST, "its answer is cut off in the middle, empty, or garbage; it dies when it is asked")
@pytest.mark.parametrize("name", ["cut", "mute", "garbage", "dies"])
def test_an_answer_that_is_none(troubled: Troubled, name: str) -> None:
    host = troubled.host(name)
    assert host.state is State.FAILED and host.finding, name
    assert troubled.host("well").state is State.OK


@pytest.mark.fault
@pytest.mark.tried(HOST, "it is killed, or prints half of its report, while it is at work")
@pytest.mark.parametrize("name", ["dies-at-work", "half"])
def test_a_host_that_dies_at_work(troubled: Troubled, name: str) -> None:
    host = troubled.host(name)
    assert host.state is State.FAILED and host.finding
    assert kept(troubled.fleet.root)[name] == "failed"


@pytest.mark.fault
@pytest.mark.tried(HOST, "it hangs: it is given up in its time, and holds up nobody else")
def test_a_host_that_hangs(troubled: Troubled) -> None:
    assert troubled.host("hangs").state is State.FAILED
    assert troubled.seconds < 90
    assert troubled.host("well").state is State.OK
