"""A second `sgprov bootstrap` beside a server, and one that could not end well: what it does is what it says before."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import GIB
from served import HOME, Machine

from provision.cli import main
from provision.errors import CheckFailed
from provision.host import DiskSpace
from provision.host.local import LocalHost

AGAIN = "run again"
BEFORE = "told before"
ASKED: dict[str, Any] = {
    "port": "31000",
    "bind": "127.0.0.2",
    "python": "3.12",
    "model": "/srv/model",
    "served_model_name": "chat",
    "context_length": 512,
    "mem_fraction": 0.5,
    "model_directory": "/srv/models",
    "cache_directory": "/srv/cache",
    "extra": ("--log-requests", "--tp-size", "1"),
}
OTHER: dict[str, Any] = {
    "port": "31001",
    "bind": "127.0.0.3",
    "python": "3.13",
    "model": "/srv/another",
    "served_model_name": "talk",
    "context_length": 1024,
    "mem_fraction": 0.6,
    "cache_directory": "/srv/elsewhere",
    "extra": ("--tp-size", "2"),
}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path, "bare-no-gpu")


@pytest.mark.fault
@pytest.mark.parametrize("state", ["ready", "stopped"])
@pytest.mark.parametrize("again", [{}, {"target": "cpu"}, {"name": "cpu"}, {"prefix": HOME}], ids=str)
@pytest.mark.parametrize("option", [*ASKED, "all"])
@pytest.mark.tried(AGAIN, "A run without options beside a server that was asked for with one, or with all of them")
def test_a_run_without_options_changes_nothing(
    machine: Machine, option: str, again: dict[str, Any], state: str
) -> None:
    asked = ASKED if option == "all" else {option: ASKED[option]}
    first = machine.plan(target="cpu", **asked)
    machine.serve(first, alive=state == "ready", state=state)
    plan = machine.plan(**again)
    assert (plan.launch, plan.decision.lock, plan.replaced) == (first.launch, first.decision.lock, None)


@pytest.mark.parametrize("option", OTHER)
@pytest.mark.tried(
    AGAIN, "One option changed: the server that stops and that difference are named before, and no other"
)
def test_a_changed_option_is_named_and_nothing_else_changes(machine: Machine, option: str) -> None:
    machine.serve(machine.plan(target="cpu", **ASKED))
    plan = machine.plan(**{option: OTHER[option]})
    assert plan.replaced and plan.replaced.name == "cpu"
    changes = {one.setting: (one.old, one.new) for one in plan.replaced.changes}
    # Another Python is another environment.
    assert set(changes) == ({"python", "environment"} if option == "python" else {option})
    text = {key: " ".join(value) if isinstance(value, tuple) else str(value) for key, value in ASKED.items()}
    new = OTHER[option]
    assert changes[option] == (text[option], " ".join(new) if isinstance(new, tuple) else str(new))


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


@pytest.fixture
def bootstraps(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, dict[str, tuple[str, str]]]]:
    """What `plan`, `bootstrap --dry-run` and `bootstrap` have against it: step to (error, remedy)."""

    def run(*arguments: str) -> dict[str, Any]:
        status = main([*arguments, "--json"])
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert (status, found["ok"]) == (CheckFailed.exit_status, False)
        return found

    def all_three(*options: str) -> dict[str, dict[str, tuple[str, str]]]:
        planned = run("plan", *options)
        told = {"plan": {one["id"]: (one["problem"], one["remedy"]) for one in planned["steps"] if one["problem"]}}
        for command in (("bootstrap", "--dry-run"), ("bootstrap",)):
            steps = run(*command, *options)["steps"]
            told[" ".join(command)] = {
                one["step"]: (one["error"], one["hint"]) for one in steps if one["status"] == "failed"
            }
            assert not [one for one in steps if one["status"] in {"done", "checked"}]
        return told

    return all_three


@pytest.mark.parametrize("trouble", ["port", "directories", "environment", "model"])
@pytest.mark.tried(
    BEFORE, "A step that would fail: plan, --dry-run and bootstrap give one reason, and nothing is changed"
)
@pytest.mark.usefixtures("real_machine")
def test_what_would_fail_is_told_before_anything_changes(
    trouble: str,
    bootstraps: Callable[..., dict[str, dict[str, tuple[str, str]]]],
    taken: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    disk, small = LocalHost.disk, str(tmp_path / "cache") if trouble == "environment" else "/nowhere"

    def roomy(self: LocalHost, path: str) -> DiskSpace | None:
        """Room for everything, but in uv's cache where that is the trouble."""
        found = disk(self, path)
        tight = path.startswith(small)
        return found and replace(found, mount=small if tight else "/", free=GIB if tight else 1000 * GIB)

    monkeypatch.setattr(LocalHost, "disk", roomy)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1" if trouble == "model" else "0")
    (tmp_path / "file").write_text("")
    options = {
        "port": ("--port", str(taken)),
        "directories": ("--model-directory", str(tmp_path / "file" / "models")),
        "environment": (),
        "model": ("--model", "org/none", "--cache-directory", str(tmp_path / "hub")),
    }
    prefix = tmp_path / "prefix"
    port = () if trouble == "port" else ("--port", "auto")
    told = bootstraps("--target", "cpu", "--prefix", str(prefix), *port, *options[trouble])
    assert list(told["plan"]) == [trouble]
    assert told["plan"] == told["bootstrap --dry-run"] == told["bootstrap"]
    assert not prefix.exists()
