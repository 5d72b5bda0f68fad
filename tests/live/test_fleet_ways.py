"""The other ways with a fleet, on real hosts: plain `ansible-playbook`, hosts that ask their own index, keys that are
asked for, and an interruption while hosts are at work.
"""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from live.hosts import Hosts
from live.small import Small

pytestmark = pytest.mark.container
BIN = Path(sys.executable).parent
BOOTSTRAP = ("fleet", "bootstrap", "--no-smoke", "--target", "cpu")
KEY = "hf_" + "y" * 24
FACT = "{{ ansible_local.sgprov.arch }} {{ ansible_local.sgprov.gpus | length }} {{ ansible_local.sgprov.os.id }}"


@pytest.fixture
def own_index(controller: Small, fleet: Hosts) -> Iterator[str]:
    """The address of the index on the hosts' own network."""
    server = controller.index.serve(fleet.gateway)
    yield f"http://{fleet.gateway}:{server.server_port}/"
    controller.index.let_go.set()
    server.shutdown()
    server.server_close()
    controller.index.held.clear()
    controller.index.let_go.clear()


def add(fleet: Hosts, index: str, *names: str) -> None:
    for name in names:
        fleet.add(name)
    fleet.ready()
    for name in names:
        fleet.run(name, f"echo UV_DEFAULT_INDEX={index} >> /etc/environment")


def states(found: dict[str, Any]) -> dict[str, str]:
    return {host["host"]: host["state"] for host in found["hosts"]}


def play(
    controller: Small, fleet: Hosts, playbook: Path, *arguments: str, **values: Any
) -> subprocess.CompletedProcess[str]:
    """Plain `ansible-playbook`, with sgprov on the controller's PATH."""
    program = controller.home / "bin" / "sgprov"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, "-m", "provision"])} "$@"\n')
    program.chmod(0o755)
    given = fleet.folder / "values.yml"
    given.write_text(yaml.safe_dump(values))
    environment = controller.environment(
        PATH=f"{program.parent}:{BIN}:/usr/sbin:/usr/bin:/sbin:/bin",
        ANSIBLE_CONFIG=str(controller.root / "playbooks" / "ansible.cfg"),
        NO_COLOR="1",
    )
    command = ["ansible-playbook", "-i", fleet.inventory(), str(playbook), "-e", f"@{given}", *arguments]
    return subprocess.run(command, cwd=fleet.folder, env=environment, capture_output=True, text=True, check=False)


def changed(ran: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """Host to how many tasks changed it, of a run that failed nowhere."""
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = re.findall(r"^([\w-]+)\s*: ok=\d+\s+changed=(\d+)", ran.stdout, re.MULTILINE)
    return {host: int(count) for host, count in found}


def test_plain_ansible_from_bare_hosts_to_facts_for_every_play(controller: Small, fleet: Hosts, own_index: str) -> None:
    add(fleet, own_index, "one", "two")
    site = controller.root / "playbooks" / "site.yml"
    values = {
        "sgprov_host_target": "cpu",
        "sgprov_host_smoke": False,
        "sgprov_install_fact": True,
        "sgprov_host_poll": 1,
    }
    checked = play(controller, fleet, site, "--check", **values)
    assert all(count > 0 for count in changed(checked).values()), checked.stdout
    assert fleet.run("one", "ls -A ~/.local /etc/ansible 2>/dev/null; true") == ""

    ran = play(controller, fleet, site, **values)
    assert all(count > 0 for count in changed(ran).values()), ran.stdout
    for name in fleet.addresses:
        assert "sglang-0.5.23" in fleet.run(name, "~/.local/share/sgprov/tool/bin/sgprov environments list --json")
    again = play(controller, fleet, site, **values)
    assert changed(again) == {"one": 0, "two": 0}, again.stdout

    path = fleet.folder / "facts.yml"
    tasks = [{"name": "Show them", "ansible.builtin.debug": {"msg": f"found {FACT}"}}]
    path.write_text(
        yaml.safe_dump([{"hosts": "all", "gather_facts": True, "gather_subset": ["local"], "tasks": tasks}])
    )
    shown = play(controller, fleet, path)
    assert changed(shown) == {"one": 0, "two": 0}
    assert shown.stdout.count("found x86_64 0 debian") == 2, shown.stdout


def test_hosts_that_ask_their_own_index(controller: Small, fleet: Hosts, own_index: str) -> None:
    add(fleet, own_index, "one", "two")
    controller.index.sent.clear()
    arguments = (*BOOTSTRAP, "-i", fleet.inventory(), "--wheels", "index")
    status, found, told = controller.sgprov(*arguments)
    assert (status, states(found)) == (0, {"one": "ok", "two": "ok"}), told
    assert found["wheels"] == {}, "nothing was handed on by the controller"
    assert len(controller.index.sent) == 3, "each host had its wheels from the index itself"
    status, found, told = controller.sgprov(*arguments)
    assert (status, found["changed"]) == (0, False), told


def test_keys_are_asked_for_on_the_terminal(controller: Small, fleet: Hosts) -> None:
    pexpect = pytest.importorskip("pexpect", reason="NOT RUN: pexpect is not installed")
    fleet.add("one")
    fleet.ready()
    command = ["-m", "provision", *BOOTSTRAP, "-i", fleet.inventory(), "--ask-keys"]
    terminal = pexpect.spawn(
        sys.executable, command, env=controller.environment(), cwd=str(controller.home), timeout=120, encoding="utf-8"
    )
    for name, value in (("HF_TOKEN", KEY), ("NGC_API_KEY", ""), ("SGPROV_API_KEY", "")):
        terminal.expect_exact(name)
        terminal.sendline(value)
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0, terminal.before
    assert KEY not in terminal.before
    assert fleet.run("one", "stat -c '%a' ~/.config/sgprov/keys; cat ~/.config/sgprov/keys") == f"600\nHF_TOKEN={KEY}"
    held = fleet.run("one", f"grep -rlF {KEY} /root /tmp /var /etc /home 2>/dev/null; true")
    assert held == "/root/.config/sgprov/keys"


def test_an_interruption_ends_the_work_of_the_hosts_that_are_at_it(
    controller: Small, fleet: Hosts, own_index: str
) -> None:
    add(fleet, own_index, "one", "three", "two")
    controller.index.held = {fleet.addresses["three"], fleet.addresses["two"]}
    arguments = (*BOOTSTRAP, "-i", fleet.inventory(), "--wheels", "index")
    process = controller.start(*arguments, "--json")
    assert process.stderr
    lines, waiting = [], {"three", "two"}
    for line in process.stderr:
        lines.append(line)
        waiting -= {name for name in waiting if line.startswith(f"{name}: working environment")}
        if not waiting:
            break
    process.send_signal(signal.SIGINT)
    out, told = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert json.loads(out)["error"]["code"] == "interrupted"
    assert "ended what went on at three, two" in told, told
    for name in ("three", "two"):
        time.sleep(0.5)
        assert fleet.run(name, "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -o '[s]gprov bootstrap'; true") == ""
        assert fleet.run(name, "ls ~/.local/share/sgprov/current 2>/dev/null; true") == "", "nothing was switched to"

    # Only what is left is done: the first host was complete.
    controller.index.let_go.set()
    status, found, told = controller.sgprov(*arguments, "--failed")
    assert (status, states(found)) == (0, {"three": "ok", "two": "ok"}), told
    status, found, told = controller.sgprov(*arguments)
    assert (status, found["changed"]) == (0, False), told


def test_the_first_host_may_fail_where_some_may(controller: Small, fleet: Hosts) -> None:
    """Ansible ends a play where all of a batch failed, and the first batch is one host."""
    fleet.add("a-full", "--tmpfs", "/small:size=600k", sgprov_host_prefix="/small/prefix")
    fleet.add("b-well")
    fleet.add("c-well")
    fleet.ready()
    status, found, told = controller.sgprov(*BOOTSTRAP, "-i", fleet.inventory(), "--max-fail", "34")
    assert (status, states(found)) == (7, {"a-full": "failed", "b-well": "ok", "c-well": "ok"}), told
    assert found["stopped"] is None
    full = next(host for host in found["hosts"] if host["host"] == "a-full")
    assert "hint: free space" in full["finding"], "the remedy is not cut off"
