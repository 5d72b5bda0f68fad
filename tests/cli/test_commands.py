"""Whole commands on machines that are folders: what is printed, as text and as JSON, and the exit status."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from provision.cli import main
from provision.cli.app import COMMANDS, sgprov
from provision.facts import Facts, describe
from provision.facts.model import Gpu

BATCH = (
    "[2026-01-31 10:20:30] Decode batch, #running-req: 1, #token: 33, token usage: 0.01, "
    "gen throughput (token/s): 12.3, #queue-req: 0\n"
)
HOSTS = Path(__file__).parents[1] / "hosts"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(arguments)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    dashes = arguments.index("--") if "--" in arguments else len(arguments)
    status, out, err = run(capsys, *arguments[:dashes], "--json", *arguments[dashes:])
    assert err == ""
    found: dict[str, Any] = json.loads(out)
    assert {"schema", "ok", "changed"} <= found.keys()
    return status, found


def host(name: str) -> tuple[str, str]:
    return "--host", str(HOSTS / name)


def test_facts_have_the_keys_that_scripts_read(capsys: pytest.CaptureFixture[str]) -> None:
    status, found = run_json(capsys, "facts", *host("gb10"))
    assert (status, found["schema"], found["changed"]) == (0, "sgprov.facts/1", False)
    gpu = found["gpus"][0]
    assert {key: gpu[key] for key in ("index", "name", "compute_capability", "unified_memory", "mig")} == {
        "index": 0,
        "name": "NVIDIA GB10",
        "compute_capability": "12.1",
        "unified_memory": True,
        "mig": None,
    }
    assert gpu["memory_mib"] > 120_000
    assert found["driver"]["version"] == "580.126.09"
    assert found["driver"]["cuda"] == "13.0"
    assert (found["arch"], found["os"]["id"], found["os"]["version"]) == ("aarch64", "ubuntu", "24.04")
    assert found["glibc"] == "2.39"
    assert found["pythons"][0].keys() >= {"path", "version"}
    assert found["problems"] == []


def test_facts_of_a_broken_driver_are_not_ok(capsys: pytest.CaptureFixture[str]) -> None:
    status, found = run_json(capsys, "facts", *host("driver-mismatch"))
    assert (status, found["ok"], found["driver"]["source"]) == (0, False, "/sys/module/nvidia/version")
    assert [gpu["sources"]["name"] for gpu in found["gpus"]] == ["pci"]
    assert "mismatch" in found["problems"][0]["text"]


def test_facts_as_text_name_the_gpu_and_the_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    assert "NVIDIA A40" in run(capsys, "facts", *host("a40-runpod"))[1]
    _, out, _ = run(capsys, "facts", *host("driver-mismatch"))
    assert "reboot" in out


def test_facts_as_text_say_links_ecc_and_who_said_it(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "facts", *host("a100x8-nvlink-mesh"))[1]
    assert "28 pairs by NVLink (NV12)" in out
    out = run(capsys, "facts", *host("t4-old-driver"))[1]
    assert "from nvidia-smi, compute capability from table" in out and "from /sys/module/nvidia/version" in out
    gpu = Gpu(index=0, name="A40", ecc=True, sources={"name": "nvml"})
    assert dict(describe(Facts(host="x", arch="x86_64", gpus=(gpu,))))["gpu 0"].endswith("ECC on; from nvml")


@pytest.mark.usefixtures("real_machine")
def test_facts_have_the_disks_of_the_directories_that_are_used(capsys: pytest.CaptureFixture[str]) -> None:
    _, found = run_json(capsys, "facts")
    home = os.environ["HOME"]
    paths = [one["path"] for one in found["disks"]]
    assert paths[:2] == [f"{home}/.local/share/sgprov", f"{home}/.local/share/sgprov/models"] and len(paths) == 3
    assert all(one["total"] >= one["free"] > 0 for one in found["disks"])


def test_a_capture_is_a_machine_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = str(tmp_path / "captured")
    _, seen = run_json(capsys, "facts", *host("a40x2"), "--capture", folder)
    assert seen["captured"] == folder
    _, replayed = run_json(capsys, "facts", "--host", folder)
    assert [gpu["name"] for gpu in replayed["gpus"]] == ["NVIDIA A40", "NVIDIA A40"]
    assert replayed["driver"] == seen["driver"]


def test_targets_say_what_fits_and_why_the_rest_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    status, found = run_json(capsys, "targets", *host("a40-runpod"))
    fits = {row["name"]: row for row in found["targets"]}
    assert status == 0
    assert [name for name, row in fits.items() if row["fits"]] == [
        "cpu",
        "runpod-a40",
        "runpod-a40-cu121",
        "a40",
        "a40-lmdeploy",
        "nvidia",
    ]
    assert fits["a100"]["why_not"] == ["GPU 0 (NVIDIA A40) is 8.6, it is for 8.0"]


def test_one_target_is_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "targets", "runpod-a40", *host("a40-runpod"))
    assert status == 0
    assert "/workspace/models" in out
    assert "0.0.0.0:8888" in out
    assert "a100" not in out


def test_each_target_is_weighed_on_the_disk_that_it_would_be_on(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """On a pod whose volume is full, with room in its container: everything says the same of the volume."""
    pod = tmp_path / "pod"
    shutil.copytree(HOSTS / "a40-runpod", pod)
    view = yaml.safe_load((pod / "view.yml").read_text())
    next(disk for disk in view["disks"] if disk["mount"] == "/workspace")["free"] = 1 << 30
    (pod / "view.yml").write_text(yaml.safe_dump(view))
    _, found = run_json(capsys, "targets", "--host", str(pod))
    fits = {row["name"]: row for row in found["targets"]}
    assert not fits["runpod-a40"]["fits"] and "/workspace has 1.1 GB free" in fits["runpod-a40"]["why_not"][0]
    assert not fits["a40-lmdeploy"]["fits"] and fits["a40"]["fits"]
    status, named = run_json(capsys, "plan", "--target", "runpod-a40", "--host", str(pod))
    assert (status, named["error"]["code"]) == (4, "too-little-disk")
    _, chosen = run_json(capsys, "plan", "--host", str(pod))
    assert chosen["target"] == "a40"
    assert any(line.startswith("runpod-a40: ") and "/workspace" in line for line in chosen["why"])


def test_the_plan_of_a_runpod_a40(capsys: pytest.CaptureFixture[str]) -> None:
    status, found = run_json(capsys, "plan", "--target", "runpod-a40", *host("a40-runpod"))
    assert (status, found["stack"], found["python"]) == (4, "sglang-0.5.6.post2", "3.10")
    assert found["interpreter"] == "/usr/bin/python3.10"
    assert found["lock"] == "sglang-0.5.6.post2.cp310.x86_64.txt"
    assert found["download_bytes"] > 4e9
    assert found["places"]["prefix"] == "/workspace/sgprov"
    argv, variables = found["launch"]["argv"], found["launch"]["variables"]
    for flag, value in (
        ("--port", "8888"),
        ("--host", "0.0.0.0"),
        ("--context-length", "8192"),
        ("--mem-fraction-static", "0.9"),
        ("--model-path", "Qwen/Qwen3-8B"),
    ):
        assert argv[argv.index(flag) + 1] == value
    assert variables["SGLANG_ENABLE_JIT_DEEPGEMM"] == "0"
    assert variables["HF_HOME"] == "/workspace/.cache/huggingface"
    assert "SGLANG_DISABLE_DEEPGEMM" not in variables
    assert [step["id"] for step in found["steps"]] == [
        *("directories", "interpreter", "environment", "model", "port", "server", "smoke", "switch", "receipt")
    ]
    problems = {step["id"]: step["problem"] for step in found["steps"] if step["problem"]}
    assert "port 8888 is taken by pid" in problems["port"]
    (said,) = [finding["text"] for finding in found["findings"] if finding["check"] == "model-there"]
    assert "/workspace/models/llama-8b-hf" in said, "what the target has of its own, and nobody put there"
    remedies = {step["id"]: step["remedy"] for step in found["steps"] if step["remedy"]}
    assert remedies.keys() == problems.keys()
    assert "`--free-port` stops it, `--port auto` takes the next free one (8889)" in remedies["port"]


def test_the_plan_of_a_gb10_is_a_container_and_its_wheels_are_an_alternative(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, found = run_json(capsys, "plan", "--target", "gb10", *host("gb10"))
    assert (status, found["image"]) == (4, "lmsysorg/sglang:latest-cu130")
    assert (found["serve"]["quantization"], found["serve"]["torch_compile"]) == ("modelopt_fp4", True)
    _, native = run_json(capsys, "plan", "--target", "gb10", "--stack", "sglang-0.5.15.post1", *host("gb10"))
    assert native["lock"] == "sglang-0.5.15.post1.cp312.aarch64.txt"
    assert "--quantization" in native["launch"]["argv"]


def test_why_a_newer_stack_that_fits_was_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    _, found = run_json(capsys, "plan", "--target", "h100", *host("h100x8"))
    assert found["stack"] == "sglang-0.5.6.post2"
    newer = "sglang-0.5.15.post1: fits with a warning: driver 550.144.03 is below 580"
    assert any(line.startswith(newer) for line in found["why"])
    _, found = run_json(capsys, "plan", "--target", "gb10", "--model", "org/name", *host("gb10"))
    assert "sglang-0.5.15.post1: fits too: `--stack sglang-0.5.15.post1` takes it" in found["why"]


def test_a_plan_for_a_machine_that_is_not_here(capsys: pytest.CaptureFixture[str]) -> None:
    status, found = run_json(capsys, "plan", "--target", "h200", "--assume")
    assert (status, found["stack"]) == (0, "sglang-0.5.15.post1")
    assert {step["would_change"] for step in found["steps"]} == {None}
    status, found = run_json(capsys, "plan", "--assume", "gpu=A100-SXM4-80GB,driver=535.104.05", "--model", "/m")
    assert (status, found["target"]) == (0, "a100")


def test_what_follows_two_dashes_goes_to_the_engine(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("plan", "--target", "a100", *host("a100x7-pairs"), "--gpus", "5,6", "--json", "--", "--tp-size", "2")
    status = main(arguments)
    found = json.loads(capsys.readouterr().out)
    assert (status, found["launch"]["argv"][-2:]) == (0, ["--tp-size", "2"])
    assert found["launch"]["variables"]["CUDA_VISIBLE_DEVICES"] == "5,6"


@pytest.mark.parametrize(
    ("machine", "target", "words"),
    [
        ("driver-mismatch", "a40", "mismatch"),
        ("smi-hangs", "a40", "hangs"),
        ("driver-not-loaded", "a100", "not loaded"),
        ("a40-runpod", "a100", "is 8.6, it is for 8.0"),
        ("bare-no-gpu", "runpod-a40", "needs a GPU of compute capability 8.6"),
        ("t4-old-driver", "nvidia", "7.5"),
    ],
)
def test_a_machine_that_a_target_does_not_fit_is_refused_with_the_reason(
    machine: str, target: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, found = run_json(capsys, "plan", "--target", target, "--model", "/m", *host(machine))
    assert (status, found["ok"], found["error"]["code"]) == (3, False, "unsupported-host")
    assert words in found["error"]["text"]


@pytest.mark.parametrize(
    ("arguments", "text", "hint"),
    [
        (("bootsrap",), "there is no command `bootsrap`", "did you mean `bootstrap`?"),
        (("plan", "--target", "runpod-a4o"), "there is no target `runpod-a4o`", "did you mean `runpod-a40`?"),
        (("plan", "--taget", "cpu"), "no such option", "did you mean `--target`?"),
        (("bootstrap", "--target", "cpu", "--only", "modle", "--dry-run"), "there is no step `modle`", "the steps are"),
        (("plan", "--assume", "gpus=A40"), "`--assume` knows no `gpus`", "did you mean `gpu`?"),
        (("plan", "--assume", "gpu=A40x"), "no GPU is called `A40x`", "nvidia-smi -L"),
        (("plan", "--host", "/no/such/folder"), "/no/such/folder", ""),
        (("bootstrap", "--target", "cpu", "foo"), "`foo` is no option here", "stands behind `--`"),
        (("plan", "--target", "cpu", "--", "--port=3"), "`--port` is not the engine's", "`--port N`, before the `--`"),
        (("plan", "--target", "cpu", "--", "--api-key", "k"), "`--api-key` is not", "set `SGPROV_API_KEY`"),
        (("plan", "--bind", "999.1.1.1"), "`999.1.1.1` is not an address", "0.0.0.0"),
        (("plan", "--bind", "foo bar"), "`foo bar` is not an address", "0.0.0.0"),
        (("bootstrap", "--target", "cpu", "--only", "smoke", "--skip", "smoke"), "`smoke` is both", "`--only` or"),
        (("plan", "--target", "a40", "--assume", "target", "--gpus", ","), "`,` names no GPU", "the indices are 0"),
        (("serve", "start", "--port", "31888"), "`--port`: a server that is started again", "--target"),
        (("serve", "start", "cpu", "--", "--x"), "`--`: a server that is started again", "--target"),
        (("serve", "start", "cpu", "foo"), "`foo` is no option here", "stands behind `--`"),
        (("plan", "--target", "cpu", "--config", "/no/such.yml"), "there is no file at `/no/such.yml`", "--config"),
        (("smoke", "--prefix", "/no/such/prefix"), "no server was ever started here", "sgprov bootstrap"),
        (("diagnose", "/no/such.log"), "there is no file at `/no/such.log`", ""),
    ],
)
@pytest.mark.usefixtures("real_machine")
def test_what_is_wrong_is_named_with_what_to_do(
    arguments: tuple[str, ...], text: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert text in err
    assert hint in err
    status, found = run_json(capsys, *arguments)
    assert (status, found["ok"], found["error"]["exit_status"]) == (2, False, 2)


def test_a_misspelt_key_in_the_file_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sgprov.yml").write_text("target: cpu\nprot: 30000\n")
    status, _, err = run(capsys, "plan", *host("bare-no-gpu"))
    assert status == 2
    assert "unknown key: `prot`" in err
    assert "did you mean `port`?" in err
    (tmp_path / "sgprov.yml").write_text("target: cpu\npython: 3.10\n")
    assert 'quote it: `python: "3.10"`' in run(capsys, "plan", *host("bare-no-gpu"))[2]


def test_flags_stand_over_the_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sgprov.yml").write_text("target: cpu\nport: 31000\nprefix: /srv/sgprov\n")
    named = ("--config", "sgprov.yml")
    _, found = run_json(capsys, "plan", "--port", "32000", *named, *host("bare-no-gpu"))
    assert (found["target"], found["serve"]["port"], found["places"]["prefix"]) == ("cpu", 32000, "/srv/sgprov")


def test_a_bug_is_told_in_the_form_that_was_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("HF_TOKEN=hf_abcdefghijklmnopqrstuvwxyz")

    monkeypatch.setattr("provision.bootstrap.question", broken)
    status, out, err = run(capsys, "plan", "--json")
    found = json.loads(out)
    assert (status, found["ok"], found["error"]["code"]) == (1, False, "internal")
    assert "RuntimeError" in err
    assert "hf_abc" not in out + err


@pytest.mark.usefixtures("real_machine")
def test_a_reader_that_goes_away_is_no_error() -> None:
    ran = subprocess.run(
        f"{sys.executable} -m provision targets --json --host {HOSTS / 'h100x8'} | head -1; echo ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=True,
    )
    assert (ran.stdout.splitlines(), ran.stderr) == (["{", "0"], "")


def test_a_key_for_the_engine_is_printed_nowhere(capsys: pytest.CaptureFixture[str]) -> None:
    for form in ((), ("--json",)):
        _, out, err = run(capsys, "plan", "--target", "a100", "--assume", *form, "--", "--api-key", "planted-key")
        assert "planted-key" not in out + err


@pytest.mark.parametrize(
    "arguments",
    [
        *(("environments", "clear", "--keep", value) for value in ("-3", "two")),
        *(("serve", "logs", "-n", value) for value in ("-3", "1.5")),
        *(("smoke", "--timeout", value) for value in ("nan", "-1", "0", "inf")),
        *(("doctor", "--wait", value) for value in ("-1", "nan", "601.0")),
        ("serve", "logs", "--follow"),
    ],
    ids=" ".join,
)
def test_a_number_that_makes_no_sense_is_refused(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    status, found = run_json(capsys, *arguments)
    assert (status, found["error"]["code"]) == (2, "usage")
    assert arguments[2] in found["error"]["text"] or arguments[2] == "-n"


@pytest.mark.usefixtures("real_machine")
@pytest.mark.parametrize(
    "url",
    [
        "http://ada:hunter2hunter@127.0.0.1:9",
        "http://ada:hun@ter2hunter@127.0.0.1:9/v1",
        "ada:hunter2hunter@127.0.0.1:9",
        "ada:hunter2hunter@127.0.0.1:99999",
        "ftp://ada:hunter2hunter@127.0.0.1:9",
    ],
)
def test_a_login_in_an_address_is_printed_nowhere(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    for more in ((), ("--json",)):
        status, out, err = run(capsys, "smoke", "--url", url, *more)
        assert status in {2, 6}
        assert "ter2hunter" not in out + err


def test_a_log_as_data(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    directory = tmp_path / "servers/cpu"
    directory.mkdir(parents=True)
    log = directory / "server.log"
    log.write_text("one\ntwo HF_TOKEN=hunter2hunter2\n" + BATCH)
    fields = dict.fromkeys(("id", "engine", "version", "stack", "model", "url", "started", "machine", "boot"), "x")
    known = {**fields, "name": "cpu", "directory": str(directory), "argv": [], "variables": {}, "log": str(log)}
    (directory / "server.json").write_text(json.dumps(known))
    asked = ("serve", "logs", "--prefix", str(tmp_path))
    status, found = run_json(capsys, *asked, "-n", "2")
    assert (status, found["name"], found["log"]) == (0, "cpu", str(log))
    assert found["lines"] == ["two HF_TOKEN=***", BATCH.strip()]
    assert run_json(capsys, *asked, "-n", "0")[1]["lines"] == []
    assert run(capsys, *asked, "-n", "0")[1] == ""
    assert run_json(capsys, *asked, "--explain")[1]["telemetry"]["batches"] == 1


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version")[1].startswith("sgprov ")
    _, out, _ = run(capsys, "--help")
    assert all(name in out for name in COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_can_be_loaded_and_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert sgprov.get_command(None, name) is not None  # type: ignore[arg-type]  # the context is not used
    status, out, _ = run(capsys, name, "--help")
    assert status == 0
    assert "Usage: sgprov" in out
