"""What Ansible tells while it runs becomes the state of hosts: pure functions of events."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from provision.fleet import answers
from provision.fleet.answers import BadAnswer
from provision.fleet.model import HostState, State

_TASK_STEPS = (
    ("make the bundle", "preparing"),
    ("carry it to the host", "copying sgprov"),
    ("install it", "installing sgprov"),
    ("ask sgprov", "asking"),
    ("start bringing", "starting"),
    ("look for what", "examining"),
)
# The one module whose results are answers; Ansible says in an event which it was, not the host.
_MODULE = "sgprov"
_PROGRESS = re.compile(r"^(?P<step>[a-z-]{1,40}): (?P<text>.*)$")
_TEXT = 400
# What failed is told with the last words of what was run, and with the hint behind them.
_FAILURE = 4000
_STEP_FAILED = 5


def take(hosts: Mapping[str, HostState], event: Mapping[str, Any]) -> HostState | None:
    """Let one event have its effect; the host that it was about, or None.

    An answer that is none is the failure of the host that gave it. What has failed stays so until the next play.
    """
    kind, data = str(event.get("event", "")), _fields(event.get("event_data"))
    host = hosts.get(str(data.get("host", "")))
    if host is None or not kind.startswith("runner_") or host.state in {State.FAILED, State.UNREACHABLE}:
        return None
    try:
        _take(host, kind, data, _fields(data.get("res")))
    except BadAnswer as error:
        host.state, host.finding, host.exit_status = State.FAILED, str(error), _STEP_FAILED
    return host


def _fields(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _take(host: HostState, kind: str, data: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    ours = data.get("task_action") == _MODULE
    if kind == "runner_on_start":
        host.state, host.answered = State.WORKING, False
        host.step = _step_of(str(data.get("task", ""))) or host.step
    elif kind == "runner_retry":
        _progress(host, str(result.get("progress") or ""))
    elif kind == "runner_on_unreachable":
        host.state, host.finding = State.UNREACHABLE, _unreachable(result.get("msg", ""))
    elif kind == "runner_on_failed" and not data.get("ignore_errors"):
        host.state, host.exit_status, host.finding = State.FAILED, _STEP_FAILED, _failure(result)
        if ours and "finished" in result:
            _answer(host, result)
    elif kind == "runner_on_skipped" and ours:
        # Nothing that it is asked depends on what it says.
        raise BadAnswer("it gave no answer")
    elif kind == "runner_on_ok" and ours:
        _answer(host, result)
        # An answer to what would be done is not the end of it.
        if host.reported and "needs_tool" not in result:
            host.state = State.OK


def _answer(host: HostState, result: Mapping[str, Any]) -> None:
    said = answers.answer(result)
    host.asked = said.asked or host.asked
    host.machine = said.machine or (said.report and said.report.machine) or host.machine
    host.answered = said.finished
    if said.finished:
        host.exit_status = said.rc
    if said.finished and said.report:
        host.report, host.changed, host.progress, host.reported = said.report, said.report.changed, "", True


def _failure(result: Mapping[str, Any]) -> str:
    if words := str(result.get("module_stderr") or "").strip():
        return answers.text(words.splitlines()[-1], _TEXT)
    return answers.text(result.get("msg") or "", _FAILURE).strip() or "the task failed without a word"


def _progress(host: HostState, line: str) -> None:
    """Lines such as `environment: installing 207 wheels (3.19 GB)`."""
    if matched := _PROGRESS.match(answers.text(line, _TEXT)):
        host.step, host.progress = matched["step"], matched["text"]


def _step_of(task: str) -> str:
    name = task.rpartition(" : ")[2].lower()
    return next((step for start, step in _TASK_STEPS if name.startswith(start)), "")


def _unreachable(message: object) -> str:
    """ssh's own last words, without how Ansible introduces them."""
    lines = [line.strip() for line in answers.text(message, _FAILURE).replace("\\r", "").splitlines() if line.strip()]
    words = lines[-1] if lines else "no answer"
    for beginning in ("Failed to connect to the host via ssh: ", "can be reached over ssh: "):
        words = words.rpartition(beginning)[2]
    return words.removeprefix("ssh: ")[:_TEXT]
