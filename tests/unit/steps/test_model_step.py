"""A model from the hub: what the script that fetches it says, and what the user is told."""

from __future__ import annotations

import json

import pytest
from fakes import FakeHost, answer

from provision.errors import CheckFailed, StepFailed
from provision.steps.base import Progress
from provision.steps.hub_fetch import kind_of
from provision.steps.model import HubModel
from provision.steps.model_demands import Demands
from provision.steps.model_files import HubCopy

STEP = HubModel(
    copy=HubCopy(model="org/name", models="/m", huggingface="/hf"),
    python="/e/bin/python",
    demands=Demands(load_format="dummy"),
)
SNAPSHOT = "/hf/hub/models--org--name/snapshots/abc"
TOKEN = "hf_" + "secret" * 4
WHOLE = {
    "/hf/hub/models--org--name/refs/main": "abc\n",
    f"{SNAPSHOT}/config.json": '{"model_type": "llama"}',
    f"{SNAPSHOT}/tokenizer.json": "{}",
}


def machine(*events: dict[str, object]) -> FakeHost:
    lines = "\n".join(["Fetching 3 files: noise", *(json.dumps(event) for event in events)])
    return FakeHost(answers={"/e/bin/python -I": answer(lines)})


def test_what_is_here_needs_no_hub() -> None:
    host = FakeHost(WHOLE)
    assert STEP.satisfied(host) and STEP.path(host) == SNAPSHOT
    del host.files[f"{SNAPSHOT}/tokenizer.json"]
    assert not STEP.satisfied(host)


def test_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    host = machine(
        {"event": "planned", "files": 2, "bytes": 3000000000},
        {"event": "progress", "done": 5, "total": 3000000000},
        {"event": "done", "path": SNAPSHOT, "files": 2, "bytes": 3000000000},
    )
    host.on_run = lambda _: host.files.update(WHOLE)
    told: list[Progress] = []
    assert STEP.apply(host, told.append).note == f"`org/name` in `{SNAPSHOT}`, 3.0 GB fetched"
    assert told[0].text == "fetching `org/name`: 2 files, 3.0 GB" and (told[1].done, told[1].total) == (5, 3000000000)
    assert host.given[0]["HF_TOKEN"] == TOKEN
    assert host.given[0]["HF_HUB_ENABLE_HF_TRANSFER"] is None
    assert not any(TOKEN in word for word in host.commands[0]), "a token is never in argv"
    assert json.loads(host.commands[0][-1])["free_bytes"] == host.disks["/"] - 10**9


@pytest.mark.parametrize(
    ("kind", "said", "hint"),
    [
        ("gated", "`org/name` is gated", "accept its licence at https://huggingface.co/org/name, then set `HF_TOKEN`"),
        ("not-found", "the hub has no model `org/name`", "check the name"),
        ("no-revision", "`org/name` has no revision `main`", "main"),
        ("unreachable", "the hub is out of reach, and `org/name` is not on this host", "HF_ENDPOINT"),
        ("offline", "`HF_HUB_OFFLINE` is set", "copy the model to `/m/org/name`"),
        ("no-space", "the disk is full", "free space"),
        ("no-library", "the environment has no huggingface_hub", "copy the model to `/m/org/name`"),
        ("other", "`org/name` could not be fetched: boom", ""),
    ],
)
def test_refused(kind: str, said: str, hint: str) -> None:
    host = machine({"event": "error", "kind": kind, "text": "boom\nmore"})
    with pytest.raises(StepFailed, match=said) as caught:
        STEP.apply(host, lambda _: None)
    assert hint in (caught.value.hint or "")


def test_too_large_is_said_before_it_is_fetched() -> None:
    host = machine({"event": "error", "kind": "no-space", "bytes": 140 * 10**9, "free": 60 * 10**9})
    with pytest.raises(CheckFailed, match=r"needs 140\.0 GB more in `/hf`, 60\.0 GB are free") as caught:
        STEP.apply(host, lambda _: None)
    assert caught.value.exit_status == 4


def test_fetched_and_yet_not_whole() -> None:
    with pytest.raises(StepFailed, match="not a whole model"):
        STEP.apply(machine({"event": "done", "path": "/x", "files": 0, "bytes": 0}), lambda _: None)


def test_kinds_are_told_by_name_whatever_module_they_are_in() -> None:
    class RepositoryNotFoundError(Exception): ...

    class GatedRepoError(RepositoryNotFoundError): ...

    class TransportError(Exception): ...

    class ConnectError(TransportError): ...

    def caused(by: Exception) -> Exception:
        error = RuntimeError("wrapped")
        error.__cause__ = by
        return error

    assert kind_of(GatedRepoError()) == "gated"
    assert kind_of(RepositoryNotFoundError()) == "not-found"
    assert kind_of(caused(ConnectError())) == "unreachable"
    assert kind_of(ConnectionRefusedError()) == "unreachable"
    assert kind_of(OSError(28, "No space left on device")) == "no-space"
    assert kind_of(ValueError()) == "other"
