"""The playbooks against a stub of sgprov on two hosts: what Ansible reports is what sgprov did."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from provision.catalog.load import Catalog
from provision.catalog.shipped import folder
from provision.cli.bootstrap import bootstrap

pytestmark = pytest.mark.ansible
BIN = Path(sys.executable).parent
PLAYBOOKS = folder("playbooks")
KEY = "hf_" + "k" * 24

# It becomes true once, says so in sgprov's words, and fails where a file says that it should.
STUB = """#!/usr/bin/env python3
import json, os, pathlib, sys
here = pathlib.Path(__file__).parent
arguments = sys.argv[1:]
with (here / "calls").open("a") as calls:
    calls.write(json.dumps({"argv": arguments, "key": os.environ.get("HF_TOKEN")}) + "\\n")
if (here / "fail").exists() and "--dry-run" not in arguments:
    error = {"code": "step-failed", "exit_status": 5, "text": "the disk is full", "hint": "free space"}
    print(json.dumps({"schema": "sgprov.bootstrap/1", "ok": False, "changed": False, "error": error}))
    sys.exit(5)
done = (here / "done").exists()
changed = arguments[0] == "bootstrap" and not done
if changed and "--dry-run" not in arguments:
    print("environment: installing 3 wheels", file=sys.stderr)
    (here / "done").touch()
print(json.dumps({"schema": f"sgprov.{arguments[0]}/1", "ok": True, "changed": changed, "steps": [], "findings": []}))
"""


@dataclass
class Fleet:
    root: Path

    def host(self, name: str) -> Path:
        return self.root / name

    def play(self, playbook: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "ANSIBLE_CONFIG": str(PLAYBOOKS / "ansible.cfg"),
            "ANSIBLE_HOME": str(self.root / "ansible"),
            "ANSIBLE_LOCALHOST_WARNING": "0",
            "NO_COLOR": "1",
        }
        inventory = str(self.root / "inventory.yml")
        command = [str(BIN / "ansible-playbook"), "-i", inventory, str(PLAYBOOKS / playbook), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=self.root)

    def recap(self, output: str) -> dict[str, tuple[int, int]]:
        """Host to (changed, failed), of lines such as `one : ok=5 changed=1 unreachable=0 failed=0 …`."""
        found = re.findall(r"^(\w+)\s*: ok=\d+\s+changed=(\d+)\s+unreachable=\d+\s+failed=(\d+)", output, re.MULTILINE)
        return {host: (int(changed), int(failed)) for host, changed, failed in found}

    def calls(self, name: str) -> list[list[str]]:
        path = self.host(name) / "calls"
        return [json.loads(line)["argv"] for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    if not (BIN / "ansible-playbook").exists():
        pytest.skip("NOT RUN: ansible-core is not installed (`pip install sgprov[fleet]`)")
    hosts = {}
    for name in ("one", "two"):
        stub = tmp_path / name / "sgprov"
        stub.parent.mkdir()
        stub.write_text(STUB)
        stub.chmod(0o755)
        hosts[name] = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "sgprov_host_command": str(stub),
            "sgprov_host_jobs": str(stub.parent / "jobs"),
            "sgprov_host_keys_file": str(stub.parent / "keys" / "file"),
            "sgprov_host_poll": 1,
        }
    (tmp_path / "inventory.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    return Fleet(tmp_path)


def test_check_mode_says_what_would_change_and_changes_nothing(fleet: Fleet) -> None:
    ran = fleet.play("provision.yml", "--check")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert fleet.recap(ran.stdout) == {"one": (1, 0), "two": (1, 0)}
    assert not (fleet.host("one") / "done").exists()
    assert all("--dry-run" in call for call in fleet.calls("one") + fleet.calls("two"))


def test_a_second_run_changes_nothing(fleet: Fleet) -> None:
    first = fleet.play("provision.yml")
    assert fleet.recap(first.stdout) == {"one": (1, 0), "two": (1, 0)}, first.stdout + first.stderr
    assert (fleet.host("two") / "done").exists()
    assert fleet.recap(fleet.play("provision.yml").stdout) == {"one": (0, 0), "two": (0, 0)}


def test_the_first_failure_stops_the_rest(fleet: Fleet) -> None:
    (fleet.host("one") / "fail").touch()
    ran = fleet.play("provision.yml")
    assert ran.returncode != 0
    assert fleet.recap(ran.stdout) == {"one": (0, 1), "two": (0, 0)}
    assert "the disk is full" in ran.stdout and "hint: free space" in ran.stdout
    assert [call for call in fleet.calls("two") if "--dry-run" not in call] == []


def test_every_host_is_asked_before_any_is_changed(fleet: Fleet) -> None:
    fleet.play("provision.yml", "--tags", "ask")
    assert [call[1] for call in fleet.calls("one") + fleet.calls("two")] == ["--dry-run", "--dry-run"]


def test_keys_reach_sgprov_and_nothing_else(fleet: Fleet) -> None:
    vault = fleet.root / "keys.yml"
    vault.write_text(yaml.safe_dump({"sgprov_host_keys": {"HF_TOKEN": KEY}}))
    password = fleet.root / "password"
    password.write_text("secret")
    command = [str(BIN / "ansible-vault"), "encrypt", "--vault-password-file", str(password), str(vault)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "ANSIBLE_HOME": str(fleet.root / "a")})
    arguments = ("-e", f"@{vault}", "--vault-password-file", str(password), "-vvv", "--diff")
    ran = fleet.play("provision.yml", *arguments)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    keys = fleet.host("one") / "keys" / "file"
    assert (keys.stat().st_mode & 0o777, keys.read_text()) == (0o600, f"HF_TOKEN={KEY}\n")
    assert f'"key": "{KEY}"' in (fleet.host("one") / "calls").read_text()
    assert KEY not in ran.stdout + ran.stderr
    holding = [path for path in fleet.root.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert {path.name for path in holding} == {"file", "calls"}, "the 0600 files, and what the stub itself wrote"
    again = fleet.play("rotate_keys.yml", *arguments)
    assert fleet.recap(again.stdout) == {"one": (0, 0), "two": (0, 0)}, again.stdout + again.stderr
    assert not any(call[0] == "serve" for call in fleet.calls("one"))
    vault.write_text(yaml.safe_dump({"sgprov_host_keys": {"HF_TOKEN": KEY.upper()}}))
    rotated = fleet.play("rotate_keys.yml", "-e", f"@{vault}")
    assert rotated.returncode == 0, rotated.stdout + rotated.stderr
    assert fleet.calls("one")[-1] == ["serve", "restart", "--json"]


def test_servers_and_doctor(fleet: Fleet) -> None:
    for action, command in (("stop", ["serve", "stop", "--all", "--json"]), ("smoke", ["smoke", "--json"])):
        ran = fleet.play("serve.yml", "-e", f"sgprov_host_action={action}")
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert fleet.calls("one")[-1] == command
    assert fleet.play("doctor.yml").returncode == 0
    assert [call[0] for call in fleet.calls("two")][-2:] == ["doctor", "facts"]


def test_other_families_are_refused_by_name(fleet: Fleet) -> None:
    """The driver's role on RHEL: said clearly, before anything is changed."""
    play = [
        {
            "hosts": "one",
            "gather_facts": False,
            "tasks": [
                {"ansible.builtin.set_fact": {"ansible_facts": {"os_family": "RedHat", "distribution": "Rocky"}}},
                {"ansible.builtin.import_role": {"name": str(PLAYBOOKS / "roles" / "gpu_driver")}},
            ],
            "vars": {"ansible_facts": {"os_family": "RedHat", "distribution": "Rocky"}},
        }
    ]
    path = fleet.root / "rhel.yml"
    path.write_text(yaml.safe_dump(play))
    ran = subprocess.run(
        [str(BIN / "ansible-playbook"), "-i", str(fleet.root / "inventory.yml"), str(path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ANSIBLE_HOME": str(fleet.root / "a"), "NO_COLOR": "1"},
    )
    assert ran.returncode != 0
    assert "Rocky is not supported by this role" in ran.stdout


def test_every_variable_is_documented_and_prefixed() -> None:
    for defaults in PLAYBOOKS.glob("roles/*/defaults/main.yml"):
        role = defaults.parts[-3]
        lines = defaults.read_text().splitlines()
        for number, line in enumerate(lines):
            if matched := re.match(r"(\w+):", line):
                assert matched[1].startswith(f"{role}_"), f"{matched[1]} of {role}"
                assert lines[number - 1].startswith("#"), f"{matched[1]} has no comment"
    tasks = "".join(path.read_text() for path in PLAYBOOKS.rglob("tasks/*.yml"))
    assert "ignore_errors" not in tasks


def test_the_example_inventory_is_one(tmp_path: Path) -> None:
    """Its hosts are found, and each names a target and options that sgprov has."""
    if not (BIN / "ansible-inventory").exists():
        pytest.skip("NOT RUN: ansible-core is not installed (`pip install sgprov[fleet]`)")
    command = [str(BIN / "ansible-inventory"), "-i", str(PLAYBOOKS / "inventory.example"), "--list"]
    environment = {**os.environ, "ANSIBLE_HOME": str(tmp_path)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    hosts = json.loads(ran.stdout)["_meta"]["hostvars"]
    assert {"a40-pod", "spark-1", "spark-2", "a100-1", "node01", "node04"} <= set(hosts)
    known = {option for parameter in bootstrap.params for option in parameter.opts}
    for name, values in hosts.items():
        assert Catalog().target(values["sgprov_host_target"]), name
        options = values.get("sgprov_host_options", [])
        own = options[: options.index("--")] if "--" in options else options
        assert {one for one in own if one.startswith("--")} <= known, name


def test_lint(tmp_path: Path) -> None:
    if not (BIN / "ansible-lint").exists():
        pytest.skip("NOT RUN: ansible-lint is not installed")
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "ANSIBLE_HOME": str(tmp_path), "NO_COLOR": "1"}
    command = [str(BIN / "ansible-lint"), "--offline", "--profile", "production", "."]
    ran = subprocess.run(command, cwd=PLAYBOOKS, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
