"""One playbook run through ansible-runner: what it is given, what of it is believed, and how it ends."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml

from provision.errors import UsageError
from provision.fleet import drive
from provision.fleet.drive import Run, Settings, Workshop, literal

NUMBER = "7d0f"
START = {"event": "playbook_on_start", "event_data": {"playbook_uuid": NUMBER}}


def event(kind: str = "runner_on_ok", number: str = NUMBER, **more: Any) -> dict[str, Any]:
    return {"event": kind, "event_data": {"playbook_uuid": number, "host": "a"}, **more}


@dataclass
class Runner:
    """In place of ansible-runner: it tells these events, and keeps what it was given."""

    events: list[dict[str, Any]]
    status: str = "successful"
    rc: int = 0
    words: str = ""
    given: dict[str, Any] = field(default_factory=dict)
    seen: dict[str, Any] = field(default_factory=dict)
    meanwhile: Callable[[Runner], None] = lambda _: None

    def run(self, **given: Any) -> Runner:
        self.given = given
        arguments = given["cmdline"].split()
        self.seen["environment"] = dict(os.environ)
        path = Path(arguments[arguments.index("--extra-vars") + 1].removeprefix("@"))
        self.seen["values"], self.seen["mode"] = path.read_text(), stat.S_IMODE(path.stat().st_mode)
        if "--limit" in arguments:
            self.seen["limit"] = Path(arguments[arguments.index("--limit") + 1].removeprefix("@")).read_text()
        for each in self.events:
            assert given["event_handler"](each) is False, "no event's file is wanted"
            self.seen["left"] = path.exists()
        self.meanwhile(self)
        return self

    @property
    def stdout(self) -> StringIO:
        return StringIO(self.words)


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    (tmp_path / "inventory.yml").write_text("all: {hosts: {a: , b: , 'c[1:2]': }, children: {g: {hosts: {b: }}}}\n")
    work = tmp_path / "w"
    work.mkdir()
    made = Workshop(Settings(inventory=str(tmp_path / "inventory.yml"), forks=3, connect_timeout_s=4), work)
    yield made
    made.close()


def play(workshop: Workshop, monkeypatch: pytest.MonkeyPatch, runner: Runner, **more: Any) -> tuple[Run, list[Any]]:
    told: list[Any] = []
    monkeypatch.setattr(drive, "_runner", lambda: runner)
    return workshop.play("provision.yml", told.append, **more), told


def test_what_a_play_is_given(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = Runner([START, event()])
    run, told = play(
        workshop,
        monkeypatch,
        runner,
        limit=("a", "b"),
        tags="ask",
        values={"one": "{{ x }}", "list": ["{% y"], "number": 3, "flag": True},
        secrets={"key": "hf_{{ z }}"},
        ssh_arguments="-R 1:2:3",
        ssh_attempts=2,
    )
    assert (run.status, run.output, told) == ("successful", "", [START, event()])
    assert "--tags ask" in runner.given["cmdline"] and runner.seen["limit"] == "a\nb\n"
    assert runner.given["envvars"] == {"ANSIBLE_SSH_EXTRA_ARGS": "-R 1:2:3", "ANSIBLE_SSH_RETRIES": "2"}
    assert runner.given["suppress_env_files"] is True, "the environment of a run is written nowhere"
    assert runner.seen["mode"] == 0o600 and runner.seen["left"] is False, "no key is left on the disk while it runs"
    assert "hf_" not in str(runner.given)
    assert list(workshop.path.iterdir()) == [], "and nothing afterwards"


def test_every_text_is_marked_and_nothing_else() -> None:
    text = literal(
        {"one": "{{ x }}", "list": ["{% y", {"k": "v: # \n\u2028'\""}], "number": 3, "flag": True, "no": None}
    )

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!unsafe", lambda _, node: ("unsafe", node.value))
    found = yaml.load(text, Loader)  # noqa: S506  # a safe one
    assert found == {
        "one": ("unsafe", "{{ x }}"),
        "list": [("unsafe", "{% y"), {"k": ("unsafe", "v: # \n\u2028'\"")}],
        "number": 3,
        "flag": True,
        "no": None,
    }


def test_the_environment_of_ansible(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "ANSIBLE_LIBRARY": "./library",
        "ANSIBLE_CONFIG": "./ansible.cfg",
        "AWX_LIB_DIRECTORY": ".",
        "RUNNER_X": "1",
        "ANSIBLE_REMOTE_USER": "me",
        "ANSIBLE_VAULT_PASSWORD_FILE": "/v",
        "HF_TOKEN": "hf_x",
        "SGPROV_WHEELS": "http://x",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    runner = Runner([START])
    play(workshop, monkeypatch, runner)
    seen = runner.seen["environment"]
    assert not {"ANSIBLE_LIBRARY", "AWX_LIB_DIRECTORY", "RUNNER_X", "HF_TOKEN", "SGPROV_WHEELS"} & set(seen)
    assert (seen["ANSIBLE_REMOTE_USER"], seen["ANSIBLE_VAULT_PASSWORD_FILE"]) == ("me", "/v")
    assert (seen["ANSIBLE_FORKS"], seen["ANSIBLE_TIMEOUT"], seen["ANSIBLE_HOST_KEY_CHECKING"]) == ("3", "4", "True")
    assert seen["ANSIBLE_CONFIG"].endswith("playbooks/ansible.cfg") and seen["ANSIBLE_HOME"].startswith(
        str(workshop.path)
    )
    assert "ForwardAgent=no" in seen["ANSIBLE_SSH_ARGS"] and seen["ANSIBLE_INJECT_FACT_VARS"] == "False"
    assert dict(os.environ) == before


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_collections_are_the_callers_own(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: int
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    collections = tmp_path / ".ansible" / "collections"
    collections.mkdir(parents=True)
    collections.chmod(mode)
    runner = Runner([START])
    play(workshop, monkeypatch, runner)
    found = runner.seen["environment"]["ANSIBLE_COLLECTIONS_PATH"].split(":")
    assert (str(collections) in found) is (mode == 0o755), "and of nobody who can write there"


def test_events_of_another_number_are_not_ansibles(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    forged = [
        event(number="1"),
        event(number=""),
        {"event": "runner_on_ok", "event_data": {"host": "a"}},
        {"event": "x", "event_data": 3},
    ]
    again = {"event": "playbook_on_start", "event_data": {"playbook_uuid": "1"}}
    _, told = play(workshop, monkeypatch, Runner([*forged, START, again, *forged, event()]))
    assert told == [START, event()]


def test_how_it_ends(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = play(workshop, monkeypatch, Runner([START], status="failed", words="x" * 5000 + "the end"))
    assert (run.status, len(run.output), run.output[-7:]) == ("failed", 2000, "the end")
    words = Runner(
        [START, event(stdout="ERROR! no such role " * 5000), event("error", stdout="and more")], status="failed"
    )
    run, _ = play(workshop, monkeypatch, words)
    assert run.output.endswith("and more") and len(run.output) <= 20_000


@pytest.mark.parametrize(
    ("status", "rc", "broke"),
    [
        *(("failed", rc, False) for rc in (2, 4, 6, 8)),
        *(("failed", rc, True) for rc in (1, 250, 255)),
        *(("successful", 0, False), ("canceled", 254, False), ("timeout", 254, False)),
    ],
)
def test_hosts_that_failed_are_no_broken_run(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, status: str, rc: int, broke: bool
) -> None:
    run, _ = play(workshop, monkeypatch, Runner([START], status=status, rc=rc, words="ERROR! x\n\x1b[0m\n"))
    assert (run.broke, run.last_line) == (broke, "successful" if status == "successful" else "ERROR! x")


def test_a_runner_that_breaks_is_told(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Runner) -> None:
        raise OSError(28, "No space left on device")

    run, _ = play(workshop, monkeypatch, Runner([START], meanwhile=full))
    assert (run.status, run.output) == ("failed", "OSError: [Errno 28] No space left on device")


def test_an_interruption_ends_the_run(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[bool] = []

    def wait(runner: Runner) -> None:
        end = time.monotonic() + 10
        while not runner.given["cancel_callback"]() and time.monotonic() < end:
            time.sleep(0.01)
        ended.append(runner.given["cancel_callback"]())

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(drive, "_runner", lambda: Runner([START], meanwhile=wait))
    joined = threading.Thread.join
    calls = iter([interrupt])
    monkeypatch.setattr("threading.Thread.join", lambda thread, timeout=None: next(calls, joined)(thread, timeout))
    with pytest.raises(KeyboardInterrupt):
        workshop.play("provision.yml", lambda _: None)
    assert ended == [True]
    assert list(workshop.path.iterdir()) == []


@pytest.mark.usefixtures("real_machine")
def test_the_hosts_of_an_inventory(workshop: Workshop) -> None:
    pytest.importorskip("ansible", reason="NOT RUN: ansible-core is not installed")
    assert sorted(workshop.hosts(None)) == ["a", "b", "c1", "c2"]
    assert workshop.hosts("g") == ("b",)
    assert workshop.hosts("c*,!c2") == ("c1",)
    with pytest.raises(UsageError, match="`--limit nobody`"):
        workshop.hosts("nobody")


def test_an_inventory_that_is_not_there(tmp_path: Path) -> None:
    workshop = Workshop(Settings(inventory=str(tmp_path / "none")), tmp_path)
    with pytest.raises(UsageError, match="there is no inventory"):
        workshop.hosts(None)


def test_sockets_have_room_for_their_path(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 80)
    deep.mkdir()
    workshop = Workshop(Settings(inventory="x"), deep)
    assert len(str(workshop.control)) < 70 and stat.S_IMODE(workshop.control.stat().st_mode) == 0o700
    workshop.close()
    assert not workshop.control.exists()
