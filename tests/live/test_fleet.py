"""Fleets of real hosts: containers with sshd on a network that leads nowhere, provisioned by the real command."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from live import hosts, parts, small
from live.hosts import Hosts
from live.small import Small

pytestmark = pytest.mark.container
KEY = "hf_" + "z" * 24
BOOTSTRAP = ("fleet", "bootstrap", "--no-smoke")


def states(found: dict[str, Any]) -> dict[str, str]:
    return {host["host"]: host["state"] for host in found["hosts"]}


def findings(found: dict[str, Any]) -> dict[str, str]:
    return {host["host"]: host["finding"] for host in found["hosts"]}


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_every_host_gets_its_stack_and_a_second_run_changes_nothing(
    controller: Small, fleet: Hosts, count: int
) -> None:
    for number in range(count):
        fleet.add(f"host-{number}")
    fleet.ready()
    controller.index.sent.clear()
    arguments = (*BOOTSTRAP, "-i", fleet.inventory(), "--target", "cpu")
    status, found, told = controller.sgprov(*arguments)
    assert status == 0, json.dumps(found, indent=1) + told
    assert set(states(found).values()) == {"ok"} and found["changed"]
    # The first count fills the controller's folder of wheels; the others find it filled.
    assert all(sent < small.WHEEL_BYTES * 1.1 for sent in controller.index.sent.values())
    assert found["wheels"]["sent_bytes"] == pytest.approx(3 * small.WHEEL_BYTES * count, rel=0.1)
    for name in fleet.addresses:
        there = fleet.run(
            name,
            "~/.local/share/sgprov/current/bin/python -c 'import small_sglang_0_5_23_alpha as a; print(a.VERSION)'",
        )
        assert there == "1.0"
    status, found, _ = controller.sgprov(*arguments)
    assert (status, found["changed"], found["wheels"]) == (0, False, {})
    assert found["alike"] == (f"all {count} alike" if count > 1 else "")


def test_one_of_each_kind_of_trouble_in_one_run(controller: Small, fleet: Hosts, tmp_path: Path) -> None:
    fleet.add("well")
    fleet.add("also-well")
    # There is no model on these hosts and no hub to ask: what is of interest here comes before it.
    no_model = {"sgprov_host_options": ["--skip", "model"]}
    fleet.add("gpu", "-v", hosts.stub_smi(tmp_path, "a40x2"), **no_model)
    fleet.add("wrong-python", "-v", hosts.stub_smi(tmp_path, "a40x2"), sgprov_host_target="runpod-a40", **no_model)
    fleet.add("full", "--tmpfs", "/small:size=600k", sgprov_host_prefix="/small/prefix")
    fleet.add("down")
    fleet.add("hangs")
    fleet.ready()
    parts.docker("stop", "-t", "0", f"{fleet.network}-down")
    parts.docker("pause", f"{fleet.network}-hangs")
    page = tmp_path / "fleet.html"
    arguments = (*BOOTSTRAP, "-i", fleet.inventory(), "--max-fail", "100", "--batch", "100%", "--html", str(page))
    status, found, told = controller.sgprov(*arguments)
    assert status == 7, told
    assert states(found) == {
        "well": "ok",
        "also-well": "ok",
        "gpu": "ok",
        "wrong-python": "failed",
        "full": "failed",
        "down": "unreachable",
        "hangs": "unreachable",
    }, json.dumps(findings(found), indent=1)
    by_name = {host["host"]: host for host in found["hosts"]}
    assert by_name["well"]["report"]["stack"] == "sglang-0.5.23"
    assert by_name["gpu"]["report"]["stack"] == "sglang-0.5.6.post2" and "A40" in by_name["gpu"]["gpu"]
    assert by_name["wrong-python"]["exit_status"] == 3
    assert "3.10" in by_name["wrong-python"]["finding"]
    assert "No space left" in by_name["full"]["finding"] or "disk is full" in by_name["full"]["finding"]
    assert "stack sglang-0.5.6.post2" in found["alike"]
    assert "gpu" in found["drift"] and "lock" in found["drift"]
    text = page.read_text()
    assert all(name in text for name in fleet.addresses) and "<script" not in text
    # Mended: only what failed is taken up.
    parts.docker("unpause", f"{fleet.network}-hangs")
    parts.docker("start", f"{fleet.network}-down")
    fleet.ready()
    again = (*BOOTSTRAP, "-i", fleet.inventory(), "--max-fail", "100", "--failed", "--limit", "down,hangs,well")
    status, found, told = controller.sgprov(*again)
    assert (status, states(found)) == (0, {"down": "ok", "hangs": "ok"}), told


def test_without_leave_one_host_that_does_not_fit_stops_all(controller: Small, fleet: Hosts) -> None:
    fleet.add("well")
    fleet.add("misfit", sgprov_host_target="a40")
    fleet.ready()
    arguments = (*BOOTSTRAP, "-i", fleet.inventory())
    status, found, _ = controller.sgprov(*arguments)
    assert status == 7 and "`--max-fail` is 0" in found["stopped"]
    assert "needs a GPU" in findings(found)["misfit"]
    assert fleet.run("well", "ls ~/.local/share/sgprov/environments 2>/dev/null; true") == ""


def test_a_controller_that_was_killed_is_resumed(controller: Small, fleet: Hosts, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    for name in ("one", "two", "three"):
        fleet.add(name)
    fleet.ready()
    arguments = (*BOOTSTRAP, "-i", fleet.inventory(), "--target", "cpu")
    process = controller.start(*arguments, "--send-keys", "--json", HF_TOKEN=KEY, TMPDIR=str(temporary))
    assert process.stderr and process.stdout
    for line in process.stderr:
        if "working starting" in line:
            break
    # As by `kill -9` or a closed lid: nothing is cleaned up.
    process.kill()
    process.communicate()
    left = subprocess.run(["grep", "-rlF", KEY, str(temporary)], capture_output=True, text=True, check=False)
    assert left.stdout == "", "what it left behind holds no key"
    status, found, told = controller.sgprov(*arguments)
    assert status == 0, json.dumps(found, indent=1) + told
    assert set(states(found).values()) == {"ok"}
    for name in fleet.addresses:
        assert fleet.run(name, "ls ~/.local/share/sgprov/environments").count("\n") == 0


def test_an_interruption_ends_the_work_on_the_hosts(controller: Small, fleet: Hosts) -> None:
    fleet.add("one")
    fleet.ready()
    arguments = (*BOOTSTRAP, "-i", fleet.inventory(), "--target", "cpu")
    process = controller.start(*arguments, "--json")
    assert process.stderr
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "installing sgprov" in line:
            break
    process.send_signal(signal.SIGINT)
    out, told = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert json.loads(out)["error"]["code"] == "interrupted"


def test_keys_reach_the_hosts_and_nothing_else(controller: Small, fleet: Hosts, tmp_path: Path) -> None:
    fleet.add("one")
    fleet.ready()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    arguments = (*BOOTSTRAP, "-i", fleet.inventory(), "--target", "cpu", "--send-keys")
    status, found, told = controller.sgprov(*arguments, HF_TOKEN=KEY, TMPDIR=str(temporary))
    assert status == 0, told
    assert KEY not in json.dumps(found) + told
    assert (
        fleet.run("one", "stat -c '%a %U' ~/.config/sgprov/keys; cat ~/.config/sgprov/keys")
        == f"600 root\nHF_TOKEN={KEY}"
    )
    held = fleet.run("one", f"grep -rlF {KEY} /root /tmp /var /etc /home 2>/dev/null; true")
    assert held == "/root/.config/sgprov/keys"
    ours = subprocess.run(
        ["grep", "-rlF", KEY, str(controller.home), str(temporary), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ours.stdout == ""
    assert list(temporary.iterdir()) == [], "nothing of Ansible's run is left behind"


def test_doctor_and_status_say_what_differs(controller: Small, fleet: Hosts) -> None:
    for name in ("one", "two"):
        fleet.add(name)
    fleet.add("bare")
    fleet.ready()
    inventory = fleet.inventory()
    status, found, told = controller.sgprov(*BOOTSTRAP, "-i", inventory, "--target", "cpu", "--limit", "one,two")
    assert status == 0, told
    status, found, _ = controller.sgprov("fleet", "status", "-i", inventory)
    assert states(found) == {"one": "ok", "two": "ok", "bare": "failed"}
    assert "--limit bare --install-tool" in findings(found)["bare"]
    status, found, _ = controller.sgprov("fleet", "doctor", "-i", inventory, "--limit", "one,two", "--target", "cpu")
    assert {host["machine"]["os"] for host in found["hosts"]} == {"debian 12"}
    assert all(host["report"]["findings"] for host in found["hosts"])
