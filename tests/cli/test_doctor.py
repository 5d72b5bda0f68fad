"""`sgprov doctor`, whole: text, JSON and exit statuses on recorded machines."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from served import Machine

from provision.checks.registry import CHECKS
from provision.cli import main, places
from provision.cli.screen import Screen
from provision.host.folder import FolderHost

HOSTS = Path(__file__).parents[1] / "hosts"
# machine -> (exit status, verdict, the checks that have something against it, the command to go on with)
MACHINES: dict[str, tuple[int, str, set[str], str]] = {
    "bare-no-gpu": (0, "ready", set(), "sgprov bootstrap --target cpu"),
    "a40-runpod": (
        4,
        "blocked",
        {"port-free"},
        "sgprov bootstrap --target runpod-a40 --port auto",
    ),
    "gb10": (
        4,
        "blocked",
        {"model-there"},
        "sgprov bootstrap --target gb10 --model Qwen/Qwen3-0.6B",
    ),
    "a100x7-pairs": (0, "degraded", {"topology-nvlink"}, "sgprov bootstrap --target a100"),
    "a100x8-nvlink-mesh": (0, "ready", set(), "sgprov bootstrap --target a100"),
    "b200-cuinit": (4, "blocked", {"driver-cuda-starts"}, "sudo systemctl restart nvidia-fabricmanager"),
    "slurm-node": (0, "degraded", {"slurm-controller", "slurm-munge"}, "sgprov bootstrap --target h100"),
    "t4-old-driver": (
        4,
        "blocked",
        {"target-fits"},
        "sgprov targets",
    ),
    "driver-not-installed": (
        4,
        "blocked",
        {"driver-loaded", "target-fits"},
        "sudo apt-get install -y nvidia-driver-580-open && sudo reboot",
    ),
}
# What is wedged, mismatched or lost is said, with its remedy, and never taken for "no GPU".
BROKEN = {
    "driver-mismatch": "version mismatch",
    "smi-hangs": "the NVIDIA driver hangs",
    "nvml-hangs": "the NVIDIA driver hangs",
    "gpu-lost": "gpu-lost",
    "gpu-requires-reset": "gpu-reset-required",
    "no-devices": "no-devices",
    "driver-not-loaded": "driver-not-loaded",
}


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    status = main(["doctor", *arguments])
    return status, capsys.readouterr().out


def asked(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    status, out = run(capsys, *arguments, "--json")
    return status, json.loads(out)


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, verdict, against, following = MACHINES[name]
    found, told = asked(capsys, "--host", str(HOSTS / name))
    serious = {one["check"] for one in told["findings"] if one["severity"] in {"error", "warning"}}
    assert (found, told["verdict"], serious, told["next"]) == (status, verdict, against, following)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_driver_is_a_finding_with_a_remedy(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, told = asked(capsys, "--host", str(HOSTS / name))
    found = [one for one in told["findings"] if one["check"] == "gpu-answers"]
    assert status == 4 and told["verdict"] == "blocked"
    assert BROKEN[name] in found[0]["text"] and found[0]["fix"]
    assert "cpu" not in told["next"] and told["next"] == told["next"].strip()


@pytest.mark.parametrize("folder", sorted(HOSTS.glob("*/commands.yml")), ids=lambda path: path.parent.name)
def test_no_check_fails_on_any_machine(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, told = asked(capsys, "--host", str(folder.parent))
    assert [one["text"] for one in told["findings"] if "the check itself" in one["text"]] == []


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    status, out = run(capsys, "--host", str(HOSTS / "b200-cuinit"))
    *lines, counted, verdict, following = out.splitlines()
    assert status == 4
    assert lines == [
        "driver",
        "  ✗ driver-cuda-starts  cuInit answers 3: not initialised: the driver is up, CUDA is not",
        "    → `sudo systemctl restart nvidia-fabricmanager`, else reboot",
        "",
    ]
    assert counted.startswith(f"{len(CHECKS)} checks in ") and "1 error, " in counted
    assert verdict == "blocked: `nvidia` cannot serve here before that is mended"
    assert following == "next: sudo systemctl restart nvidia-fabricmanager"


def test_everything_is_shown_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    _, out = run(capsys, "--host", str(HOSTS / "bare-no-gpu"), "--verbose")
    assert "✓ system-glibc  The C library is new enough for the wheels" in out


def test_the_json_contract(capsys: pytest.CaptureFixture[str]) -> None:
    status, told = asked(capsys, "--host", str(HOSTS / "a40-runpod"))
    assert status == 4
    assert (told["schema"], told["ok"], told["changed"]) == ("sgprov.doctor/1", False, False)
    assert set(told) == {
        *("schema", "ok", "changed", "verdict", "next", "host", "target", "seconds", "findings", "checks"),
    }
    assert [one["id"] for one in told["checks"]] == [one.id for one in CHECKS]
    assert {one["status"] for one in told["checks"]} <= {"ok", "info", "warning", "error", "not-applicable"}
    assert all(set(one) == {"check", "severity", "text", "fix", "seconds", "data"} for one in told["findings"])


def test_ignored_errors_are_shown_and_block_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    host = ("--host", str(HOSTS / "a40-runpod"))
    status, out = run(capsys, *host, "--ignore", "port-free,model-there")
    assert status == 0
    assert "! port-free  port 8888 is taken by pid 41" in out and "(ignored)" in out
    assert out.splitlines()[-2].startswith("degraded: ")


def test_one_check_alone(capsys: pytest.CaptureFixture[str]) -> None:
    status, told = asked(capsys, "port-free", "--host", str(HOSTS / "a40-runpod"))
    assert status == 4 and [one["id"] for one in told["checks"]] == ["port-free"]


def test_a_family_alone(capsys: pytest.CaptureFixture[str]) -> None:
    _, told = asked(capsys, "gpu", "--host", str(HOSTS / "gb10"))
    assert {one["id"] for one in told["checks"]} == {one.id for one in CHECKS if one.family == "gpu"}


def test_a_target_that_does_not_fit_blocks(capsys: pytest.CaptureFixture[str]) -> None:
    status, told = asked(capsys, "target-fits", "--target", "h200", "--host", str(HOSTS / "a40-runpod"))
    assert status == 4
    assert "target `h200` does not fit this host" in told["findings"][0]["text"]


@pytest.mark.parametrize(
    "arguments",
    [("gpu-mixd",), ("--ignore", "gpu-mixd"), ("--explain", "gpu-mixd")],
    ids=["check", "ignore", "explain"],
)
def test_an_unknown_check_is_a_usage_error(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    status, told = asked(capsys, *arguments, "--host", str(HOSTS / "gb10"))
    assert status == 2
    assert told["error"]["hint"] == "did you mean `gpu-mixed`?"


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    status, out = run(capsys, "--list")
    assert status == 0
    assert all(f"  {one.id} " in out and one.title in out for one in CHECKS)


def test_explain(capsys: pytest.CaptureFixture[str]) -> None:
    status, out = run(capsys, "--explain", "memory-shm")
    assert status == 0
    assert out.splitlines()[:3] == [
        "memory-shm  (memory)",
        "Shared memory is large enough.",
        "looks at  the size of /dev/shm",
    ]


@pytest.mark.parametrize("width", [80, 160])
def test_a_terminal_is_filled_and_commands_stay_whole(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def console(**_: Any) -> Screen:
        return Screen(force_terminal=True, width=width, color_system=None)

    monkeypatch.setattr("provision.cli.render.console", console)
    _, out = run(capsys, "--host", str(HOSTS / "gb10-cdi-missing"))
    lines = out.splitlines()
    command = "`sudo apt-get install -y cuda-nvcc-13-0 && export TRITON_PTXAS_PATH=/usr/local/cuda-13.0/bin/ptxas`"
    assert all(len(line) <= width for line in lines if command not in line)
    assert any(command in line for line in lines)
    assert all(line.startswith(" ") for line in lines[1:3])


def test_no_secret_is_ever_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("provision.config.secret", lambda _: '"nvapi-not-to-be-seen"')
    monkeypatch.setattr("provision.cli.common.view", lambda _: _a40())
    for arguments in (("credentials",), ("credentials", "--json"), ("credentials", "-v")):
        _, out = run(capsys, *arguments)
        assert "credential-ngc-shape" in out and "not-to-be-seen" not in out


def _a40() -> Any:
    from provision.host.folder import FolderHost  # noqa: PLC0415

    return FolderHost(HOSTS / "a40x2")


@pytest.mark.parametrize("machine", sorted(path.parent.name for path in HOSTS.glob("*/expect.yml")))
def test_the_next_command_is_one_that_works(machine: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(HOSTS / machine)
    main(["doctor", "--host", folder, "--json"])
    command = json.loads(capsys.readouterr().out)["next"]
    assert command
    if not command.startswith("sgprov bootstrap"):
        assert not command.startswith("--")
        return
    arguments = shlex.split(command)[2:]
    status = main(["plan", *arguments, "--host", folder, "--json"])
    planned = json.loads(capsys.readouterr().out)
    assert status == 0, planned["error"]
    assert planned["lock"] or planned["image"], planned
    taken = {one.port for one in FolderHost(folder).listeners()}
    assert planned["serve"]["port"] not in taken


def test_what_it_says_to_type_goes_to_the_same_place(capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(HOSTS / "bare-no-gpu")
    _, told = asked(capsys, "--host", folder, "--prefix", "/srv/a b")
    assert told["next"] == "sgprov bootstrap --target cpu --prefix '/srv/a b'"
    _, told = asked(capsys, "--host", folder)
    assert "--prefix" not in told["next"]
    assert places.flag_for(FolderHost(folder), "/srv/a b") == " --prefix '/srv/a b'"


def test_slurm_blocks_the_target_that_it_runs_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    for target, severity in (("h100", "warning"), ("slurm-efa", "error")):
        _, found = asked(capsys, "slurm", "--host", str(HOSTS / "slurm-node"), "--target", target)
        severities = {one["check"]: one["severity"] for one in found["findings"]}
        assert severities["slurm-controller"] == severities["slurm-munge"] == severity


def test_a_remembered_interpreter_that_is_gone_keeps_doctor_from_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = Machine(tmp_path, "bare-no-gpu")
    first = machine.plan(target="cpu", port="31000")
    asked = first.launch.asked
    assert asked
    gone = structs.replace(asked, options={**asked.options, "python": "/gone/bin/python3"})
    machine.serve(replace(first, launch=replace(first.launch, asked=gone)), alive=False, state="stopped")
    assert main(["doctor", "--json", "--host", str(tmp_path / "machine")]) == 0
    assert json.loads(capsys.readouterr().out)["target"] == "cpu"


@pytest.mark.parametrize(
    ("asked", "blocked", "following"),
    [
        (("--port", "auto"), False, "sgprov bootstrap --target runpod-a40 --port auto"),
        (("--port", "8890"), False, "sgprov bootstrap --target runpod-a40 --port 8890"),
        (
            ("--port", "8888", "--bind", "127.0.0.1"),
            True,
            "sgprov bootstrap --target runpod-a40 --port auto --bind 127.0.0.1",
        ),
    ],
    ids=["auto", "another", "taken"],
)
def test_the_port_that_is_looked_at_is_the_one_that_was_asked_for(
    asked: tuple[str, ...], blocked: bool, following: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """On port 8888 of that machine Jupyter listens; the next command carries whatever doctor was asked for."""
    main(["doctor", "--json", "--host", str(HOSTS / "a40-runpod"), *asked])
    found = json.loads(capsys.readouterr().out)
    assert [one["status"] for one in found["checks"] if one["id"] == "port-free"] == ["error" if blocked else "ok"]
    assert shlex.split(found["next"])[:2] == ["sgprov", "bootstrap"]
    assert sorted(shlex.split(found["next"])) == sorted(shlex.split(following))
