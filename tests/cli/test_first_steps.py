"""What somebody meets who does not know the commands yet, or plans for a machine that is not there."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from provision import assume
from provision.catalog.load import Catalog
from provision.cli import main

HOSTS = Path(__file__).parents[1] / "hosts"


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(list(words))
    told = capsys.readouterr()
    return status, told.out, told.err


@pytest.mark.parametrize(
    "words", [(), ("serve",), ("environments",), ("experiment",), ("bundle",), ("fleet",), ("image",)]
)
def test_a_command_that_was_left_out_gets_help(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, *words)
    assert (status, out) == (2, "")
    assert err.startswith(" ".join(("Usage: sgprov", *words))) and "Commands:" in err and "error:" not in err
    assert main([*words, "--help"]) == 0
    assert capsys.readouterr().out.strip() == err.strip()


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("status",), "sgprov serve status`"),
        (("logs",), "sgprov serve logs`"),
        (("stop",), "sgprov serve stop`"),
        (("rollback",), "sgprov environments rollback`"),
        (("self-heal",), "sgprov experiment self-heal`"),
        (("facst",), "`facts`"),
        (("bootstrap", "cpu"), "`--target cpu`"),
        (("plan", "runpod-a40", "--json"), "`--target runpod-a40`"),
        (("bootstrap", "qwen"), "stands behind `--`"),
        (("xyzzy",), "sgprov --help` lists them"),
    ],
)
def test_what_was_meant_is_said(words: tuple[str, ...], meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, *words)
    assert status == 2 and meant in (json.loads(out)["error"]["hint"] if "--json" in words else err)


@pytest.mark.usefixtures("real_machine")
def test_a_step_that_would_fail_is_one_status(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        wishes = ("--target", "cpu", "--prefix", str(tmp_path / "p"), "--port", str(taken.getsockname()[1]))
        for command in (("plan",), ("bootstrap", "--dry-run"), ("bootstrap",)):
            assert run(capsys, *command, *wishes)[0] == 4
            status, out, _ = run(capsys, *command, *wishes, "--json")
            told = json.loads(out)
            assert (status, told["ok"]) == (4, False)
    status, out, _ = run(capsys, "plan", *wishes, "--json")
    assert (status, json.loads(out)["ok"]) == (0, True)


def planned(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    status, out, _ = run(capsys, "plan", *words, "--json")
    told: dict[str, object] = json.loads(out)
    assert status == 0, told
    return told


def test_one_assumed_fact_changes_that_fact_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert planned(capsys, "--target", "h100", "--assume")["stack"] == "sglang-0.5.15.post1"
    older = planned(capsys, "--target", "h100", "--assume", "driver=535")
    assert older["stack"] == "sglang-0.5.6.post2" and older["python"] == "3.10"
    arm = planned(capsys, "--target", "h100", "--assume", "arch=aarch64")
    assert "aarch64" in str(arm["lock"])


@pytest.mark.parametrize("target", [target.name for target in Catalog().targets if target.assume])
def test_every_target_has_a_machine_to_change(target: str) -> None:
    own = Catalog().target(target).assume
    assert assume.changed(own, {}) == dict(own)
    assert assume.changed(own, {"driver": "1"}) == {**own, "driver": "1"}
    other = assume.changed(own, {"gpu": "L4"})
    assert other["gpu"] == "L4" and "count" not in other and assume.facts(other)


def test_help_names_what_can_be_assumed(capsys: pytest.CaptureFixture[str]) -> None:
    told = " ".join(run(capsys, "plan", "--help")[1].split())
    assert all(key in told.partition("Keys: ")[2] for key in assume.KEYS)


@pytest.mark.parametrize(
    ("words", "first", "hint"),
    [
        (
            ("--host", str(HOSTS / "t4-old-driver")),
            "nvidia: GPU 0 (Tesla T4)",
            f"doctor --host {HOSTS / 't4-old-driver'}",
        ),
        (
            ("--host", str(HOSTS / "t4-old-driver"), "--target", "gb10"),
            "GPU 0 (Tesla T4) is 7.5",
            f"targets --host {HOSTS / 't4-old-driver'}",
        ),
        (("--target", "h100", "--assume", "glibc=2.17,arch=aarch64"), "sglang-0.5.15.post1: needs glibc", "--assume"),
        (("--assume", "gpu=Tesla T4"), "nvidia: GPU 0 (NVIDIA Tesla T4)", "--assume"),
    ],
)
def test_a_refusal_begins_with_what_decides_and_speaks_of_that_machine(
    words: tuple[str, ...], first: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run(capsys, "plan", *words, "--json")
    told = json.loads(out)["error"]
    assert status == 3 and told["text"].splitlines()[1].strip().startswith(first)
    assert hint in told["hint"]
