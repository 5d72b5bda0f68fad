"""The main job, whole, as a user runs it: install, launch, verify, ask, run again, stop; and what interrupts it."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests
from live import hub
from live.real_command import Ran, sgprov

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("real_machine")]


@pytest.fixture(scope="module")
def port() -> int:
    return 21888


@pytest.fixture(scope="module")
def bootstrapped(cpu_prefix: str, port: int) -> Iterator[Ran]:
    """The first whole run; the server stays up for the tests of this module."""
    yield sgprov("bootstrap", "--target", "cpu", "--prefix", cpu_prefix, "--port", str(port), "--json")
    sgprov("serve", "stop", "--all", "--prefix", cpu_prefix)
    assert processes_of(cpu_prefix) == []


def processes_of(prefix: str) -> list[str]:
    """Command lines of whatever runs from that prefix."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = " ".join(process.info["cmdline"] or ())
        if prefix in command and process.pid != os.getpid():
            found.append(command)
    return found


def test_it_ends_at_a_verified_endpoint(bootstrapped: Ran, port: int) -> None:
    assert bootstrapped.rc == 0, bootstrapped.out + bootstrapped.err
    report = bootstrapped.json
    assert (report["schema"], report["ok"], report["changed"]) == ("sgprov.bootstrap/1", True, True)
    assert report["endpoint"] == f"http://127.0.0.1:{port}/v1"
    smoke = {finding["check"]: finding for finding in report["findings"] if finding["check"].startswith("smoke-")}
    assert {"smoke-models", "smoke-chat", "smoke-generate", "smoke-stream", "smoke-cache"} <= smoke.keys()
    assert all(finding["severity"] == "ok" for finding in smoke.values())
    assert all(smoke[check]["seconds"] > 0 for check in ("smoke-chat", "smoke-generate", "smoke-stream", "smoke-cache"))
    assert smoke["smoke-cache"]["data"]["cached_tokens"] > 500


def test_the_endpoint_answers_a_chat(bootstrapped: Ran) -> None:
    body = {"model": "default", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
    answer = requests.post(f"{bootstrapped.json['endpoint']}/chat/completions", json=body, timeout=60).json()
    assert answer["usage"]["completion_tokens"] == 8
    assert answer["choices"][0]["message"]["role"] == "assistant"


def test_the_receipt_says_what_was_installed_and_how_its_test_went(bootstrapped: Ran, cpu_prefix: str) -> None:
    receipt = json.loads(Path(cpu_prefix, "receipt.json").read_text())
    assert receipt["target"] == "cpu"
    assert receipt["lock"] == bootstrapped.json["lock"]
    assert receipt["smoke"]["smoke-chat"]["severity"] == "ok"
    assert Path(cpu_prefix, "current").resolve().name == receipt["environment"]


def test_a_second_run_changes_nothing_and_verifies_again(bootstrapped: Ran, cpu_prefix: str, port: int) -> None:
    assert bootstrapped.rc == 0
    ran = sgprov("bootstrap", "--target", "cpu", "--prefix", cpu_prefix, "--port", str(port), "--json")
    assert (ran.rc, ran.json["ok"], ran.json["changed"]) == (0, True, False)
    assert {step["step"]: step["status"] for step in ran.json["steps"]} == {
        **dict.fromkeys(("directories", "interpreter", "environment", "model", "port", "server"), "already"),
        "smoke": "checked",
        "switch": "already",
        "receipt": "already",
    }


def test_a_run_without_options_changes_nothing_and_another_option_is_named_before(
    bootstrapped: Ran, cpu_prefix: str, port: int
) -> None:
    assert bootstrapped.rc == 0
    ran = sgprov("bootstrap", "--name", "cpu", "--prefix", cpu_prefix, "--json")
    assert (ran.rc, ran.json["changed"], ran.json["endpoint"]) == (0, False, bootstrapped.json["endpoint"])
    assert ran.json["remembered"]["options"] == {"target": "cpu", "port": str(port)}
    planned = sgprov("plan", "--name", "cpu", "--prefix", cpu_prefix, "--context-length", "512", "--json").json
    assert planned["replaces"]["name"] == "cpu"
    assert planned["replaces"]["changes"] == [{"setting": "context_length", "old": None, "new": "512"}]


def test_status_and_smoke_see_the_server(bootstrapped: Ran, cpu_prefix: str) -> None:
    assert bootstrapped.rc == 0
    # By name: other tests leave stopped servers under this prefix.
    status = sgprov("serve", "status", "--prefix", cpu_prefix, "--json")
    assert ("cpu", "running") in [(one["name"], one["health"]) for one in status.json["servers"]]
    smoke = sgprov("smoke", "cpu", "--prefix", cpu_prefix, "--json")
    assert (smoke.rc, smoke.json["ok"]) == (0, True)
    by_url = sgprov("smoke", "--url", bootstrapped.json["endpoint"], "--json")
    assert by_url.rc == 0
    explained = sgprov("serve", "logs", "cpu", "--explain", "--prefix", cpu_prefix)
    assert "cache hit rate" in explained.out


def test_a_taken_port_is_named_and_auto_goes_around_it(bootstrapped: Ran, cpu_prefix: str, port: int) -> None:
    assert bootstrapped.rc == 0
    ours = sgprov("serve", "status", "cpu", "--prefix", cpu_prefix, "--json").json["servers"][0]["pid"]
    taken = ("bootstrap", "--target", "cpu", "--prefix", cpu_prefix, "--name", "second", "--port", str(port), "--json")
    ran = sgprov(*taken)
    assert ran.rc == 4
    step = next(step for step in ran.json["steps"] if step["status"] == "failed")
    assert step["step"] == "port"
    assert f"port {port} is taken by pid {ours}" in step["error"]
    assert "--free-port" in step["hint"]
    auto = ("bootstrap", "--target", "cpu", "--prefix", cpu_prefix, "--name", "second", "--port", "auto", "--dry-run")
    ran = sgprov(*auto, "--json")
    assert ran.rc == 0


def test_an_interrupted_launch_leaves_nothing_running(bootstrapped: Ran, cpu_prefix: str) -> None:
    assert bootstrapped.rc == 0
    before = len(processes_of(cpu_prefix))
    command = ("bootstrap", "--target", "cpu", "--prefix", cpu_prefix, "--name", "interrupted", "--port", "auto")
    process = subprocess.Popen([sys.executable, "-m", "provision", *command], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("server:"):
            break
    time.sleep(3)
    assert len(processes_of(cpu_prefix)) > before + 1
    process.send_signal(signal.SIGINT)
    process.stdout.read()
    process.stdout.close()
    assert process.wait(timeout=60) == 130
    assert len(processes_of(cpu_prefix)) == before


def test_a_server_that_cannot_start_says_why_at_once(bootstrapped: Ran, cpu_prefix: str) -> None:
    assert bootstrapped.rc == 0
    command = ("bootstrap", "--target", "cpu", "--prefix", cpu_prefix, "--name", "wrong", "--port", "auto", "--json")
    ran = sgprov(*command, "--", "--no-such-flag")
    assert ran.rc == 6
    step = next(step for step in ran.json["steps"] if step["status"] == "failed")
    assert step["step"] == "server"
    assert "unrecognized arguments: --no-such-flag" in step["error"]
    categories = [finding["data"].get("category") for finding in ran.json["findings"] if finding["severity"] == "error"]
    assert categories[0] == "server-config"
    current = Path(cpu_prefix, "current").resolve()
    assert current.is_dir()


def test_a_key_is_asked_for_and_found_nowhere(bootstrapped: Ran, cpu_prefix: str) -> None:
    assert bootstrapped.rc == 0
    key = secrets.token_hex(16)
    command = ("bootstrap", "--target", "cpu", "--prefix", cpu_prefix, "--name", "keyed", "--port", "auto", "--json")
    ran = sgprov(*command, SGPROV_API_KEY=key)
    assert ran.rc == 0, ran.out + ran.err
    models = f"{ran.json['endpoint']}/models"
    assert requests.get(models, timeout=10).status_code == 401
    assert requests.get(models, timeout=10, headers={"Authorization": f"Bearer {key}"}).status_code == 200
    # Neither needs the variable, and a run without it does not open the server to everyone.
    status = sgprov("serve", "status", "keyed", "--prefix", cpu_prefix, "--json")
    smoke = sgprov("smoke", "keyed", "--prefix", cpu_prefix, "--json")
    again = sgprov(*command)
    assert (status.json["servers"][0]["health"], smoke.rc, again.rc) == ("running", 0, 0)
    assert {step["step"]: step["status"] for step in again.json["steps"]}["server"] == "already"
    assert not [line for line in everyones_command_lines() if key in line]
    told = "".join(one.out + one.err for one in (ran, status, smoke, again))
    assert key not in told
    holding = [path for path in Path(cpu_prefix).rglob("*") if "environments" not in path.parts and holds(path, key)]
    modes = {path.name: path.stat().st_mode & 0o777 for path in holding}
    assert modes == {"api-key": 0o600, "api-key.header": 0o600}
    assert sgprov("serve", "stop", "keyed", "--prefix", cpu_prefix).rc == 0


def holds(path: Path, text: str) -> bool:
    return path.is_file() and text.encode() in path.read_bytes()


def everyones_command_lines() -> list[str]:
    return [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]


def test_what_replaces_a_server_and_fails_brings_the_old_one_back(
    bootstrapped: Ran, cpu_prefix: str, port: int
) -> None:
    """After `serve restart`, so that what comes back is what ran last."""
    first = sgprov("serve", "status", "cpu", "--prefix", cpu_prefix, "--json").json["servers"][0]
    restarted = sgprov("serve", "restart", "cpu", "--prefix", cpu_prefix, "--json")
    assert restarted.rc == 0, restarted.out + restarted.err
    second = sgprov("serve", "status", "cpu", "--prefix", cpu_prefix, "--json").json["servers"][0]
    assert second["health"] == "running" and second["pid"] != first["pid"]
    assert not psutil.pid_exists(first["pid"])

    command = ("bootstrap", "--target", "cpu", "--prefix", cpu_prefix, "--port", str(port), "--json")
    ran = sgprov(*command, "--", "--no-such-flag")
    assert ran.rc == 6, ran.out + ran.err
    third = sgprov("serve", "status", "cpu", "--prefix", cpu_prefix, "--json").json["servers"][0]
    assert third["health"] == "running" and third["pid"] not in {first["pid"], second["pid"]}
    test_the_endpoint_answers_a_chat(bootstrapped)


# GPT-2 of the built-in model's shape, with weights that are really written and really loaded.
WRITES = """
import sys
from transformers import AutoConfig, AutoTokenizer, GPT2LMHeadModel
source, folder = sys.argv[1:]
GPT2LMHeadModel(AutoConfig.from_pretrained(source)).save_pretrained(folder)
AutoTokenizer.from_pretrained(source).save_pretrained(folder)
"""


def test_a_model_of_the_hub_is_fetched_loaded_and_served(bootstrapped: Ran, cpu_prefix: str, tmp_path: Path) -> None:
    assert bootstrapped.rc == 0
    python = f"{cpu_prefix}/current/bin/python"
    subprocess.run([python, "-c", WRITES, f"{cpu_prefix}/models/sgprov-tiny", str(tmp_path / "model")], check=True)
    files = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    command: tuple[str, ...] = ("bootstrap", "--target", "cpu", "--prefix", cpu_prefix, "--name", "hub", "--json")
    with hub.serving(files) as there:
        command = (*command, "--port", "auto", "--model", "org/gated", "--", "--load-format", "safetensors")
        ran = sgprov(*command, HF_ENDPOINT=there.url, HF_HOME=str(tmp_path / "hf"), HF_TOKEN=hub.TOKEN)
    assert ran.rc == 0, ran.out + ran.err
    assert hub.TOKEN not in ran.out + ran.err and hub.TOKEN in there.tokens
    assert list(Path(tmp_path, "hf", "hub", "models--org--gated").rglob("model.safetensors"))
    log = Path(cpu_prefix, "servers", "hub", "server.log").read_text()
    assert "loading shards: 100% Completed" in log, "weights that were really loaded"
    models = requests.get(f"{ran.json['endpoint']}/models", timeout=10).json()["data"]
    assert [model["id"] for model in models] == ["org/gated"]
