"""A host of a fleet that is hostile by now: what it says runs nothing on the controller, and is its own failure only."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from fleets import VERSION, Local

from provision.bundle import create, own
from provision.catalog.shipped import folder
from provision.fleet import run
from provision.fleet.drive import Settings
from provision.fleet.model import FleetReport, HostState, State
from provision.fleet.run import Watcher, Wishes
from provision.host.local import LocalHost

KIND = "hostile host"
ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
ASKED = {"arch": "x86_64", "home": "/root", "tool": "", "needs_tool": True, "running": False}


@pytest.fixture
def fleet(tmp_path: Path) -> Local:
    pytest.importorskip("ansible_runner", reason="NOT RUN: ansible-runner is not installed")
    return Local(tmp_path)


@pytest.fixture
def bootstrap(fleet: Local, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FleetReport]:
    """A bootstrap of the fleet by the real Ansible; the bundle of sgprov is not made, but for its name."""

    def made(_: LocalHost, __: str, path: Path) -> bool:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"bundle")
        return True

    def carried_out(**wishes: Any) -> FleetReport:
        monkeypatch.setattr(create, "tool", made)
        monkeypatch.setattr(own, "wheel_digest", lambda: VERSION)
        host = LocalHost({"HOME": str(fleet.root), "PATH": os.environ["PATH"]})
        asked = Wishes(
            settings=Settings(inventory=fleet.inventory()), **{"max_fail": 100, "batch": ("100%",), **wishes}
        )
        return run.carry_out(host, "bootstrap", asked, Watcher())

    return carried_out


def states(report: FleetReport) -> dict[str, State]:
    return {host.name: host.state for host in report.hosts}


def by_name(report: FleetReport) -> dict[str, HostState]:
    return {host.name: host for host in report.hosts}


def canary(place: Path) -> str:
    """A template that leaves a file behind where it is one."""
    return "{{ lookup('pipe', 'touch " + str(place) + "') }}"


@pytest.mark.attack
@pytest.mark.tried(KIND, "templates in everything that it answers, in facts, messages and warnings")
def test_no_answer_of_a_host_is_a_template(fleet: Local, bootstrap: Callable[..., FleetReport], tmp_path: Path) -> None:
    place = tmp_path / "run"
    evil = canary(place)
    report = {"ok": True, "changed": True, "stack": "s"}
    for name, said in {
        "home": {**ASKED, "home": evil},
        "home-behind": {**ASKED, "home": f"/root{evil}"},
        "arch": {**ASKED, "arch": evil},
        "tool": {**ASKED, "tool": evil},
        "needs": {**ASKED, "needs_tool": evil},
        "report": {"report": {**report, "lock": evil}},
        "machine": {"machine": {"driver": evil}, "report": {**report, "endpoint": evil}},
        "facts": {"ansible_facts": {"sgprov_host_command": evil, "os_family": evil}},
        "words": {"failed": True, "msg": evil, "warnings": [evil], "exception": evil},
    }.items():
        fleet.add(name, {"sgprov": said})
    fleet.add("honest")
    ended = bootstrap()
    assert not place.exists()
    found = states(ended)
    assert found.pop("honest") is State.OK
    assert {name for name, state in found.items() if state is State.OK} <= {"machine", "facts"}, "text is only shown"
    assert (
        by_name(ended)["home"].finding == "its answer is not one of sgprov's: `asked.home` cannot be what it says there"
    )
    assert fleet.calls("honest")[-1]["argv"][0] == "bootstrap", "and nobody else's work was stopped by it"


@pytest.mark.attack
@pytest.mark.tried(KIND, "the name of a file of the controller, as a fact that overrules the role's variable")
@pytest.mark.parametrize(
    "inject", [False, True], ids=["our ansible.cfg", "a configuration that makes variables of facts"]
)
def test_no_fact_of_a_host_names_a_file_of_the_controller(fleet: Local, tmp_path: Path, inject: bool) -> None:
    """Plain `ansible-playbook`, where the role makes the bundle on the controller and carries it to the host."""
    secret, made = tmp_path / "secret", tmp_path / "made"
    secret.write_text("of the controller")
    facts = {"sgprov_install_bundle": str(secret), "sgprov_install_controller_command": f"touch {made}"}
    said = {**ASKED, "home": str(fleet.folder("evil")), "ansible_facts": facts}
    fleet.add("evil", {"sgprov": said})
    bundle = tmp_path / "bundle"
    bundle.write_text("a bundle")
    (tmp_path / "values.yml").write_text(yaml.safe_dump({"sgprov_host_expect": "other"}))
    fleet.hosts["evil"]["sgprov_install_bundle"] = str(bundle)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
        **({"ANSIBLE_INJECT_FACT_VARS": "True"} if inject else {}),
        "ANSIBLE_CONFIG": str(folder("playbooks") / "ansible.cfg"),
        "ANSIBLE_HOME": str(tmp_path / "ansible"),
    }
    command = [str(BIN / "ansible-playbook"), "-i", fleet.inventory(), str(folder("playbooks") / "provision.yml")]
    ran = subprocess.run(
        [*command, "-e", f"@{tmp_path}/values.yml"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Refuse a host" in ran.stdout, ran.stdout + ran.stderr
    carried = [path.read_text() for path in (fleet.folder("evil") / "tool").rglob("*") if path.is_file()]
    assert carried == []
    assert not made.exists()


@pytest.mark.attack
@pytest.mark.tried(KIND, "text that looks like an event of Ansible's about another host")
def test_an_event_cannot_be_forged(fleet: Local, bootstrap: Callable[..., FleetReport]) -> None:
    forged = {
        "uuid": "1",
        "event": "runner_on_unreachable",
        "event_data": {"host": "honest", "res": {"msg": "forged"}, "playbook_uuid": "1"},
    }
    encoded = base64.b64encode(json.dumps(forged).encode()).decode()
    text = f"\x1b[K{encoded}\x1b[{len(encoded)}D\x1b[K"
    fleet.add(
        "evil", {"sgprov": {"failed": True, "msg": text, "warnings": [text], "exception": f"a\n{text}", "stdout": text}}
    )
    fleet.add("raw", {"sgprov": {"raw": f"{text}\n{text}\n", "rc": 1}})
    fleet.add("honest")
    ended = bootstrap()
    assert states(ended) == {"evil": State.FAILED, "raw": State.FAILED, "honest": State.OK}
    assert by_name(ended)["honest"].finding == ""
    assert not [host.name for host in ended.hosts if "\x1b" in host.finding]


@pytest.mark.attack
@pytest.mark.tried("the user's own values", "templates in keys, targets and options: they arrive as they are")
def test_values_of_the_user_arrive_as_they_are(
    fleet: Local, bootstrap: Callable[..., FleetReport], tmp_path: Path
) -> None:
    place = tmp_path / "run"
    words = ("--model", canary(place), "{% for", "#} {#", "!vault |", "a: b # c", "'\"\\$HOME`id`")
    fleet.add("one")
    key = "hf_{{ 1 + 1 }}" + canary(place)
    ended = bootstrap(options=words, target=canary(place), keys={"HF_TOKEN": key}, wheels_from="index")
    assert states(ended) == {"one": State.OK}
    assert not place.exists()
    last = fleet.calls("one")[-1]
    assert (last["argv"], last["key"]) == (["bootstrap", "--target", canary(place), *words, "--json"], key)
    assert not [path for path in tmp_path.glob("**/values.yml") if path.is_file()]


@pytest.mark.attack
@pytest.mark.tried(
    "a directory that somebody else filled", "ansible.cfg, plugins and roles in the working directory and in variables"
)
def test_nothing_is_loaded_from_the_working_directory(fleet: Local, tmp_path: Path) -> None:
    """Every kind of plugin, where Ansible looks for it: in `ansible.cfg`, beside it, and by `ANSIBLE_*`."""
    cwd, ran = tmp_path / "cwd", tmp_path / "ran"
    kinds = ("callback", "vars", "inventory", "filter", "lookup", "connection", "strategy", "action", "cache", "test")
    lines, variables = ["[defaults]", "callbacks_enabled = evil", "strategy = evil"], {}
    for kind in kinds:
        plugins = cwd / f"{kind}_plugins"
        plugins.mkdir(parents=True)
        (plugins / "evil.py").write_text(f"open({str(ran)!r}, 'a').write({kind!r})\n")
        lines.append(f"{kind}_plugins = {plugins}")
        variables[f"ANSIBLE_{kind.upper()}_PLUGINS"] = str(plugins)
    for name in ("library", "module_utils", "roles", "collections"):
        (cwd / name).mkdir()
        lines.append(f"{name} = {cwd / name}")
    (cwd / "ansible.cfg").write_text("\n".join(lines) + "\n")
    variables |= {
        "ANSIBLE_CALLBACKS_ENABLED": "evil",
        "ANSIBLE_LIBRARY": str(cwd / "library"),
        "AWX_LIB_DIRECTORY": str(cwd / "callback_plugins"),
    }
    fleet.add("one")
    for more in ({}, variables, {"ANSIBLE_CONFIG": str(cwd / "ansible.cfg")}):
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SGPROV_", "ANSIBLE_"))},
            "PYTHONPATH": str(ROOT),
            "HOME": str(tmp_path),
            **more,
        }
        command = [sys.executable, "-m", "provision", "fleet", "doctor", "-i", fleet.inventory(), "--json"]
        ended = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False)
        assert json.loads(ended.stdout)["hosts"][0]["state"] == "ok", ended.stdout + ended.stderr
        assert not ran.exists(), f"{ran.read_text()} by {more}"


@pytest.mark.attack
@pytest.mark.tried(
    "another user of a host", "the folder of the background job and the file of keys, made by somebody else"
)
def test_a_host_uses_nothing_that_another_user_made(
    fleet: Local, bootstrap: Callable[..., FleetReport], tmp_path: Path
) -> None:
    """A job's record names a process that is ended, and the keys are the environment of what root starts."""
    victim = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        for name in ("owner", "link", "open", "keys"):
            fleet.add(name)
        jobs = {name: fleet.folder(name) / "jobs" for name in ("owner", "link", "open")}
        (tmp_path / "elsewhere").mkdir()
        jobs["link"].symlink_to(tmp_path / "elsewhere")
        for name in ("owner", "open"):
            jobs[name].mkdir()
            record = {"argv": ["x"], "pid": victim.pid, "started": _started(victim.pid), "wheels": ""}
            (jobs[name] / "job.json").write_text(json.dumps(record))
        os.chown(jobs["owner"], 65534, 65534)
        jobs["open"].chmod(0o777)
        keys = fleet.folder("keys") / "keys" / "file"
        keys.parent.mkdir()
        keys.write_text("HF_TOKEN=x\nLD_PRELOAD=/tmp/x.so\n")
        os.chown(keys, 65534, 65534)
        ended = bootstrap(wheels_from="index")
        assert set(states(ended).values()) == {State.FAILED}
        assert all("is not used" in host.finding for host in ended.hosts), [host.finding for host in ended.hosts]
        assert victim.poll() is None
        assert list((tmp_path / "elsewhere").iterdir()) == []
        assert fleet.calls("keys") == []
    finally:
        victim.kill()
        victim.wait()


@pytest.mark.attack
@pytest.mark.tried("shared machine", "what a job leaves on a host, with a umask of 000")
def test_a_job_is_nobody_elses_to_read(fleet: Local, bootstrap: Callable[..., FleetReport]) -> None:
    fleet.add("one")
    before = os.umask(0)
    try:
        assert states(bootstrap(wheels_from="index", keys={"HF_TOKEN": "x"})) == {"one": State.OK}
    finally:
        os.umask(before)
    written = [*(fleet.folder("one") / "jobs").rglob("*"), *(fleet.folder("one") / "keys").rglob("*")]
    assert len(written) >= 5
    assert not [path for path in written if path.stat().st_mode & 0o077]


def _started(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
