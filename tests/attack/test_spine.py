"""Every command that takes a prefix asks whose it is before anything there is read, run, or signalled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import answer
from unit.checks.machines import PREFIX, info, machine

from provision.checks.registry import CHECKS
from provision.checks.run import chosen, run_checks
from provision.cli import main

KIND = "shared prefix"
STRANGER = 54321
COMMANDS = (
    *("bootstrap --target cpu", "bootstrap --target cpu --dry-run", "bootstrap", "plan --target cpu", "plan"),
    *("serve status", "serve status cpu", "serve stop cpu", "serve stop --all", "serve logs cpu", "serve restart cpu"),
    *("serve start cpu", "serve start cpu --target cpu", "environments list", "environments verify"),
    *("environments repair", "environments rollback", "environments clear", "smoke", "smoke cpu"),
    *("experiment self-heal", "init -o given.yml"),
)


def planted(prefix: Path, victim: int) -> Path:
    """A prefix with a record whose process, command, directory and log are the attacker's choice, and an environment
    whose Python leaves a trace; what it would leave that in.
    """
    trace = prefix.parent / "trace"
    script = f"#!/bin/sh\ntouch {trace}\n"
    for program in (
        "environments/sglang-0.5.23-cp313-x86_64-000000000000/bin/python",
        "python/cpython-3.13.1-x/bin/python3.13",
    ):
        path = prefix / program
        path.parent.mkdir(parents=True)
        path.write_text(script)
        path.chmod(0o755)
    directory = prefix / "servers" / "cpu"
    directory.mkdir(parents=True)
    record = {
        "id": "0" * 32,
        "name": "cpu",
        "directory": f"{prefix.parent}/elsewhere",
        "engine": "sglang",
        "version": "0.5.23",
        "stack": "sglang-0.5.23",
        "model": "x",
        "url": "http://127.0.0.1:9",
        "variables": {},
        "argv": ["/bin/sh", "-c", f"touch {trace}"],
        "log": "/etc/shadow",
        "started": "2026-01-01T00:00:00+00:00",
        "machine": Path("/proc/sys/kernel/hostname").read_text().strip(),
        "state": "ready",
        "pid": victim,
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "started_ticks": 0,
    }
    (directory / "server.json").write_text(json.dumps(record))
    (directory / "server.log").symlink_to("/etc/shadow")
    return trace


@pytest.fixture
def prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("SGPROV_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "prefix"
    path.mkdir(mode=0o755)
    return path


@pytest.mark.usefixtures("real_machine")
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("whose", ["everyone's", pytest.param("a stranger's", marks=pytest.mark.attack)])
@pytest.mark.tried(KIND, "Each command on a prefix of another user's, with a planted record and Python: refused")
def test_each_command_refuses_the_prefix(
    prefix: Path, capsys: pytest.CaptureFixture[str], command: str, whose: str
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as victim:
        trace = planted(prefix, victim.pid)
        if whose == "everyone's":
            prefix.chmod(0o777)
        else:
            for path in (prefix, *prefix.rglob("*")):
                os.chown(path, STRANGER, STRANGER, follow_symlinks=False)
        before = sorted(prefix.parent.rglob("*"))
        status = main([*command.split(), "--prefix", str(prefix), "--json"])
        said = json.loads(capsys.readouterr().out)
        assert (status, said["error"]["code"]) == (4, "untrusted-path"), said
        assert str(prefix) in said["error"]["text"] and said["error"]["hint"]
        assert victim.poll() is None and not trace.exists()
        assert sorted(prefix.parent.rglob("*")) == before
        victim.communicate(b"\n")


@pytest.mark.usefixtures("real_machine")
@pytest.mark.tried(KIND, "`doctor` on such a prefix: a finding, and all other checks")
def test_doctor_has_it_as_a_finding(prefix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = planted(prefix, 1)
    prefix.chmod(0o777)
    assert main(["doctor", "--target", "cpu", "--prefix", str(prefix), "--json"]) == 4
    said = json.loads(capsys.readouterr().out)
    found = next(one for one in said["findings"] if one["check"] == "directory-trusted")
    assert found["severity"] == "error" and f"chmod go-w {prefix}" in found["fix"][0]
    assert len(said["checks"]) > 50 and not trace.exists()


@pytest.mark.tried(KIND, "What a stranger put under the prefix: `doctor` never says to take it over")
@pytest.mark.parametrize("owner", ["root", "mallory"])
def test_nobody_is_told_to_own_what_a_stranger_made(owner: str) -> None:
    uid = 0 if owner == "root" else STRANGER
    there = {PREFIX: replace(info(owner=owner, is_directory=True, writable=False), uid=uid)}
    context = machine(answers={"id -u": answer("1000")}, paths=there)
    (result,) = run_checks(chosen(CHECKS, ("directory-owner",)), context)
    (finding,) = result.findings
    assert f"belongs to {owner}" in finding.text
    assert ("chown" in " ".join(finding.fix)) is (owner == "root")
