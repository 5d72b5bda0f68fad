"""What Ansible tells while it runs becomes the state of hosts: pure functions of events."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from provision.fleet.model import HostState, State
from provision.secrets import mask

_TASK_STEPS = (
    ("make the bundle", "preparing"),
    ("carry it to the host", "copying sgprov"),
    ("install it", "installing sgprov"),
    ("ask sgprov", "asking"),
    ("start bringing", "starting"),
    ("look for what", "examining"),
)
_PROGRESS = re.compile(r"^(?P<step>[a-z-]+): (?P<text>.*)$")
_TEXT = 400
# What failed is told with the last words of what was run, and with the hint behind them.
_FAILURE = 4000


def take(hosts: Mapping[str, HostState], event: Mapping[str, Any]) -> HostState | None:
    """Let one event have its effect; the host that it was about, or None."""
    kind, data = event.get("event", ""), event.get("event_data") or {}
    host = hosts.get(data.get("host", ""))
    if host is None or not kind.startswith("runner_"):
        return None
    result = data.get("res") or {}
    if kind == "runner_on_start":
        host.state, host.step = State.WORKING, _step_of(data.get("task", "")) or host.step
    elif kind == "runner_retry":
        _progress(host, str(result.get("progress") or ""))
    elif kind == "runner_on_unreachable":
        host.state, host.finding = State.UNREACHABLE, _unreachable(str(result.get("msg", "")))
    elif kind == "runner_on_failed" and not data.get("ignore_errors"):
        host.state = State.FAILED
        host.finding = mask(str(result.get("msg") or "the task failed without a word"))[:_FAILURE]
        if result.get("module_stderr"):
            host.finding = mask(f"{result['module_stderr']}".strip().splitlines()[-1])[:_TEXT]
        _result(host, result)
        host.exit_status = result.get("rc") if isinstance(result.get("rc"), int) else 5
    elif kind == "runner_on_ok":
        _result(host, result)
        # An answer to what would be done is not the end of it.
        if result.get("finished") and result.get("report") and "needs_tool" not in result:
            host.state = State.OK
    return host


def _result(host: HostState, result: Mapping[str, Any]) -> None:
    if "needs_tool" in result:
        host.asked = {key: result.get(key) for key in ("arch", "tool", "needs_tool", "running", "home")}
    if "finished" not in result:
        return
    report = result.get("report") or {}
    machine = result.get("machine") or report.get("machine") or {}
    host.machine = {**host.machine, **machine}
    if result["finished"] and report:
        host.report = report
        host.exit_status = result.get("rc")
        host.changed = bool(report.get("changed"))
        host.progress = ""


def _progress(host: HostState, line: str) -> None:
    """Lines such as `environment: installing 207 wheels (3.19 GB)`."""
    if matched := _PROGRESS.match(line):
        host.step, host.progress = matched["step"], mask(matched["text"])[:_TEXT]


def _step_of(task: str) -> str:
    name = task.rpartition(" : ")[2].lower()
    return next((step for start, step in _TASK_STEPS if name.startswith(start)), "")


def _unreachable(message: str) -> str:
    """ssh's own last words, without how Ansible introduces them."""
    lines = [line.strip() for line in mask(message).replace("\\r", "").splitlines() if line.strip()]
    text = lines[-1] if lines else "no answer"
    for beginning in ("Failed to connect to the host via ssh: ", "can be reached over ssh: "):
        text = text.rpartition(beginning)[2]
    return text.removeprefix("ssh: ")[:_TEXT]
