"""Ansible's events become the state of hosts, and nothing that a host says is lost or shown unmasked."""

from __future__ import annotations

from typing import Any

from provision.fleet import events
from provision.fleet.model import HostState, State


def event(kind: str, host: str = "a", **data: Any) -> dict[str, Any]:
    return {"event": kind, "event_data": {"host": host, "task_action": "sgprov", **data}}


def taken(*told: dict[str, Any]) -> HostState:
    hosts = {"a": HostState(name="a")}
    for each in told:
        events.take(hosts, each)
    return hosts["a"]


def test_a_host_that_goes_well() -> None:
    host = taken(
        event("runner_on_start", task="sgprov_host : Start bringing the host to its target"),
        event("runner_retry", res={"progress": "environment: installing 207 wheels (3.19 GB)"}),
    )
    assert (host.state, host.step, host.progress) == (State.WORKING, "environment", "installing 207 wheels (3.19 GB)")
    report = {"changed": True, "stack": "s", "machine": {"gpus": ["NVIDIA A40", "NVIDIA A40"], "driver": "550.1"}}
    host = taken(event("runner_on_ok", res={"finished": True, "rc": 0, "report": report}))
    assert (host.changed, host.exit_status, host.gpu) == (True, 0, "2 x NVIDIA A40")


def test_failed_and_unreachable_are_two_things() -> None:
    failed = taken(
        event("runner_on_failed", res={"msg": "the disk is full\nhint: free space", "rc": 5, "finished": True})
    )
    assert (failed.state, failed.exit_status) == (State.FAILED, 5)
    assert failed.finding.startswith("the disk is full")
    message = "Task failed: Failed to connect to the host via ssh: ssh: connect to host 192.0.2.1 port 22: No route"
    unreachable = taken(event("runner_on_unreachable", res={"msg": message}))
    assert (unreachable.state, unreachable.exit_status) == (State.UNREACHABLE, None)
    assert unreachable.finding == "connect to host 192.0.2.1 port 22: No route"


def test_what_is_ignored_does_not_fail_a_host_and_other_hosts_are_not_ours() -> None:
    assert taken(event("runner_on_failed", ignore_errors=True, res={"msg": "no"})).state is State.WAITING
    assert events.take({"a": HostState(name="a")}, event("runner_on_ok", host="b", res={})) is None
    assert events.take({"a": HostState(name="a")}, {"event": "playbook_on_stats", "event_data": {}}) is None
    assert events.take({"a": HostState(name="a")}, {}) is None


def test_a_key_in_what_a_host_says_is_masked() -> None:
    secret = "hf_" + "a" * 30
    assert secret not in taken(event("runner_on_failed", res={"msg": f"denied for {secret}"})).finding
    assert secret not in taken(event("runner_retry", res={"progress": f"model: with {secret}"})).progress


def test_what_a_host_said_when_it_was_asked() -> None:
    said = {"arch": "aarch64", "tool": "", "needs_tool": True, "running": False, "home": "/root"}
    host = taken(event("runner_on_ok", res={"finished": True, "rc": 0, "report": {}, **said}))
    assert host.asked and host.asked.needs_tool and host.asked.arch == "aarch64"


def test_only_our_own_module_answers() -> None:
    """What a host says in another task's result is not asked for, and is no failure either."""
    start = event("runner_on_start", task="sgprov_install : Carry it to the host", task_action="ansible.builtin.copy")
    for said in ({"changed": True}, {"finished": True, "rc": 0, "report": {"stack": "s"}}, {"finished": "no"}):
        host = taken(start, event("runner_on_ok", task_action="ansible.builtin.copy", res=said))
        assert (host.state, host.answered, host.report, host.finding) == (State.WORKING, False, None, "")
    failed = {"msg": "no room", "finished": True, "rc": 0, "report": {"stack": "s"}}
    host = taken(start, event("runner_on_failed", task_action="ansible.builtin.copy", res=failed))
    assert (host.state, host.report, host.finding) == (State.FAILED, None, "no room")
    assert taken(start, event("runner_on_skipped", task_action="ansible.builtin.copy")).state is State.WORKING
