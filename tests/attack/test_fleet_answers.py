"""What a host says is decoded or refused, whatever it is; and what is shown of it is plain text."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.cli import fleet_table, main
from provision.cli.screen import Screen
from provision.fleet import answers, events, page
from provision.fleet.answers import BadAnswer
from provision.fleet.grouping import group
from provision.fleet.model import FleetReport, HostState, State
from provision.output import json_text

ASKED = {"arch": "x86_64", "home": "/root", "tool": "abc", "needs_tool": False, "running": False}
REPORT = {
    "ok": True,
    "changed": True,
    "stack": "sglang-0.5.23",
    "lock": "sglang-0.5.23.cp312.x86_64",
    "python": "3.12",
    "steps": [{"step": "environment", "status": "would", "seconds": 0.1}],
    "findings": [{"check": "disk", "severity": "warning", "text": "small", "fix": ["more"]}],
    "machine": {"arch": "x86_64", "os": "debian 12", "glibc": "2.36", "driver": None, "gpus": []},
}
GOOD: dict[str, Any] = {"finished": True, "rc": 0, "changed": True, "report": REPORT, **ASKED}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def ok(result: Any, host: str = "evil") -> dict[str, Any]:
    return {"event": "runner_on_ok", "event_data": {"host": host, "task_action": "sgprov", "res": result}}


def told(result: Any) -> dict[str, HostState]:
    """Two hosts: one says this, the other what a good one says."""
    hosts = {name: HostState(name=name) for name in ("evil", "good")}
    events.take(hosts, ok(result))
    events.take(hosts, ok({key: value for key, value in GOOD.items() if key not in ASKED}, "good"))
    return hosts


def shown(hosts: dict[str, HostState]) -> str:
    """Everything that a person or a program gets to see of them."""
    known = tuple(hosts.values())
    report = FleetReport(command="bootstrap", hosts=known, groups=group(known), seconds=1.0)
    screen = Screen(file=io.StringIO(), width=200, force_terminal=True, color_system=None)
    fleet_table.show(report, screen)
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue() + page.render(report) + json_text(fleet_table.data(report), "utf-8")


def changed(path: str, value: Any) -> dict[str, Any]:
    """The good answer, with another value at `path`."""
    result = copy.deepcopy(GOOD)
    *way, last = path.split(".")
    at: Any = result
    for name in way:
        at = at[int(name)] if name.isdigit() else at[name]
    at[last] = value
    return result


def test_a_good_answer_is_one() -> None:
    said = answers.answer(GOOD)
    assert said.asked and said.asked.home == "/root" and said.report and said.report.lock == REPORT["lock"]
    assert said.report.whole == REPORT, "all of it is kept for programs"


@pytest.mark.tried("hostile host", "values that no answer can have, one at a time, in each field that is used")
@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("arch", "../../../tmp/x"),
        ("arch", "ppc64le"),
        ("arch", ["x86_64"]),
        ("home", "relative"),
        ("home", "/root/{{ 1 }}"),
        ("home", "/root\n/etc"),
        ("home", "/\\1"),
        ("home", "/" + "x" * 300),
        ("home", None),
        ("tool", "../x"),
        ("tool", 5),
        ("needs_tool", "yes"),
        ("running", 1),
        ("finished", "no"),
        ("rc", "0"),
        ("rc", -1),
        ("rc", 1 << 80),
        ("rc", 0.5),
        ("report", []),
        ("report", "ok"),
        ("report.changed", "yes"),
        ("report.lock", "../../etc/passwd"),
        ("report.lock", {"a": 1}),
        ("report.stack", "{{ x }}"),
        ("report.python", 3.1),
        ("report.endpoint", ["x"]),
        ("report.machine", "x86_64"),
        ("report.machine.gpus", "A40"),
        ("report.machine.gpus", ["A40"] * 1000),
        ("report.machine.arch", "a/b"),
        ("report.steps", {"a": 1}),
        ("report.steps", [1]),
        ("report.steps", [{"step": "server"}]),
        ("report.steps.0.status", "fine"),
        ("report.findings", [None]),
        ("report.findings.0.severity", "panic"),
        ("report.findings.0.text", "x" * 200_000),
        ("report.servers", [{"name": "x"}]),
        ("report.servers", {"name": "x"}),
        ("report.more", float("nan")),
        ("report.more", 10**400),
        ("report.more", ["x"] * 100_000),
        ("report.more", "x" * 5_000_000),
    ],
)
def test_what_cannot_be_is_that_hosts_failure(path: str, value: Any) -> None:
    hosts = told(changed(path, value))
    assert (hosts["evil"].state, hosts["evil"].exit_status) == (State.FAILED, 5)
    assert hosts["evil"].finding and len(hosts["evil"].finding) < 200
    assert hosts["good"].state is State.OK
    assert "evil" in shown(hosts)


@pytest.mark.tried("hostile host", "an answer nested a thousand times")
def test_a_deep_answer() -> None:
    deep: Any = []
    for _ in range(1000):
        deep = [deep]
    assert told(changed("report.more", deep))["evil"].state is State.FAILED


@pytest.mark.tried("hostile host", "answers of any shape at all, from a generator")
@given(
    JSON, st.sampled_from(["", "report", "report.steps", "report.findings", "report.machine", "report.servers", "rc"])
)
def test_no_answer_is_a_traceback(value: Any, path: str) -> None:
    hosts = told(changed(path, value) if path else value)
    assert hosts["good"].state is State.OK
    assert shown(hosts)


@pytest.mark.tried("hostile host", "events whose parts are of any shape")
@given(
    JSON,
    st.sampled_from(["runner_on_start", "runner_retry", "runner_on_failed", "runner_on_unreachable", "runner_on_ok"]),
)
def test_no_event_is_a_traceback(value: Any, kind: str) -> None:
    hosts = {"evil": HostState(name="evil")}
    events.take(hosts, {"event": kind, "event_data": {"host": "evil", "task_action": "sgprov", "res": value}})
    events.take(hosts, {"event": kind, "event_data": value})
    events.take(hosts, {"event": value, "event_data": {"host": value}})
    assert shown(hosts)


@pytest.mark.tried(
    "control characters", "escapes, C1, bidi marks and markup of a host in the table, the page and the JSON"
)
@pytest.mark.parametrize("kind", ["runner_on_failed", "runner_on_unreachable", "runner_retry", "runner_on_ok"])
def test_what_is_shown_is_plain_text(kind: str) -> None:
    evil = "\ud800\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp\u2066\x00[bold red]x[/]\r<script>"
    hosts = {"evil": HostState(name="evil")}
    start = {"event": "runner_on_start", "event_data": {"host": "evil", "task_action": "sgprov"}}
    result = changed("report.findings", [{"check": evil, "severity": "error", "text": evil}])
    result = {key: value for key, value in result.items() if key not in ASKED} | {
        "msg": evil,
        "progress": f"model: {evil}",
    }
    result["report"] = {**result["report"], evil: evil}
    result["machine"] = {"driver": evil, "gpus": [evil], "os": evil}
    events.take(hosts, start)
    events.take(hosts, {"event": kind, "event_data": {"host": "evil", "task_action": "sgprov", "res": result}})
    text = shown(hosts)
    assert not [sign for sign in "\x1b\x07\x9b\u202e\u2066\x00\r" if sign in text]
    assert "[bold red]" in text or kind in {"runner_on_unreachable", "runner_retry"}, "markup is text"
    assert "<script>" not in page.render(FleetReport(command="b", hosts=tuple(hosts.values()), groups=(), seconds=1))


@pytest.mark.tried("hostile host", "a good answer after a bad one, in the same play")
def test_what_failed_stays_so_until_the_next_play() -> None:
    hosts = {"evil": HostState(name="evil")}
    events.take(hosts, ok({**GOOD, "rc": "x"}))
    events.take(hosts, {"event": "runner_on_start", "event_data": {"host": "evil"}})
    events.take(hosts, ok({key: value for key, value in GOOD.items() if key not in ASKED}))
    assert hosts["evil"].state is State.FAILED


@pytest.mark.tried(
    "the user's own values", "a key with a second line, which would be a variable of its own on every host"
)
def test_a_key_of_two_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_x\nLD_PRELOAD=/tmp/x.so")
    assert main(["fleet", "bootstrap", "-i", "hosts.yml", "--send-keys"]) == 2
    assert "`HF_TOKEN`" in capsys.readouterr().err


def test_a_missing_field_is_named() -> None:
    with pytest.raises(BadAnswer, match="`finished` is missing"):
        answers.answer({"rc": 0})
