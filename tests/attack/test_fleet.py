"""A host of a fleet that is hostile by now: what it says runs nothing on the controller, and is its own failure only."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
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
WOULD = {"step": "environment", "status": "would"}
ASKED = {"arch": "x86_64", "home": "/root", "tool": "", "needs_tool": True, "running": False}


pytestmark = pytest.mark.attack
WORDS = ("--model", "{% for", "#} {#", "!vault |", "a: b # c", "'\"\\$HOME`id`")


@dataclass
class Ended:
    """One bootstrap by the real Ansible of a good host and of many that are none, and of what it left behind."""

    fleet: Local
    report: FleetReport
    canary: Path
    victim: subprocess.Popen[bytes]

    @property
    def template(self) -> str:
        return template(self.canary)

    def host(self, name: str) -> HostState:
        return next(host for host in self.report.hosts if host.name == name)

    def state(self, name: str) -> State:
        return self.host(name).state


def template(canary: Path) -> str:
    """It leaves a file behind where it is taken for one."""
    return "{{ lookup('pipe', 'touch " + str(canary) + "') }}"


def lying(evil: str) -> dict[str, dict[str, Any]]:
    """Host to what it says: a template wherever there is room for one."""
    report = {"ok": True, "changed": True, "stack": "s"}
    return {
        "home": {**ASKED, "home": evil},
        "home-behind": {**ASKED, "home": f"/root{evil}"},
        "arch": {**ASKED, "arch": evil},
        "way": {**ASKED, "arch": "../../.."},
        "tool": {**ASKED, "tool": evil},
        "needs": {**ASKED, "needs_tool": evil},
        "report": {"report": {**report, "lock": evil}},
        "foreign-lock": {"report": {**report, "lock": "sglang-9.9.cp312.x86_64", "steps": [WOULD]}},
        "machine": {"machine": {"driver": evil}, "report": {**report, "endpoint": evil}},
        "facts": {"ansible_facts": {"sgprov_host_command": evil, "os_family": evil}},
        "skips": {"skipped": True},
        "words": {"failed": True, "msg": evil, "warnings": [evil], "exception": evil},
    }


def states(report: FleetReport) -> dict[str, State]:
    return {host.name: host.state for host in report.hosts}


def forged() -> str:
    """What the runner takes for an event of Ansible's, about another host."""
    data = {"host": "honest", "res": {"msg": "forged"}, "playbook_uuid": "1"}
    event = json.dumps({"uuid": "1", "event": "runner_on_unreachable", "event_data": data})
    encoded = base64.b64encode(event.encode()).decode()
    return f"\x1b[K{encoded}\x1b[{len(encoded)}D\x1b[K"


def foreign(fleet: Local, victim: int) -> None:
    """Hosts on which another user has made what the job of the fleet is kept in, or the keys."""
    for name in ("owner", "link", "open", "keys"):
        fleet.add(name)
    (fleet.root / "elsewhere").mkdir()
    (fleet.folder("link") / "jobs").symlink_to(fleet.root / "elsewhere")
    for name in ("owner", "open"):
        jobs = fleet.folder(name) / "jobs"
        jobs.mkdir(mode=0o755)
        started = Path(f"/proc/{victim}/stat").read_text().rpartition(")")[2].split()[19]
        (jobs / "job.json").write_text(json.dumps({"argv": ["x"], "pid": victim, "started": started, "wheels": ""}))
    os.chown(fleet.folder("owner") / "jobs", 65534, 65534)
    (fleet.folder("open") / "jobs").chmod(0o777)
    keys = fleet.folder("keys") / "keys" / "file"
    keys.parent.mkdir(mode=0o755)
    keys.write_text("HF_TOKEN=x\nLD_PRELOAD=/tmp/x.so\n")
    os.chown(keys, 65534, 65534)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    pytest.importorskip("ansible_runner", reason="NOT RUN: ansible-runner is not installed")
    root = tmp_path_factory.mktemp("fleet")
    canary, fleet = root / "run", Local(root)
    evil, text = template(canary), forged()
    for name, said in lying(evil).items():
        fleet.add(name, {"sgprov": said})
    fleet.add("forger", {"sgprov": {"failed": True, "msg": text, "warnings": [text], "exception": f"a\n{text}"}})
    fleet.add("raw", {"sgprov": {"raw": f"{text}\n{text}\n", "rc": 1}})
    fleet.add("honest")
    victim = subprocess.Popen(["sleep", "300"], start_new_session=True)
    foreign(fleet, victim.pid)
    try:
        before = os.umask(0)
        try:
            report = bootstrap(fleet, evil)
        finally:
            os.umask(before)
        yield Ended(fleet, report, canary, victim)
    finally:
        victim.kill()
        victim.wait()


def bootstrap(fleet: Local, evil: str) -> FleetReport:
    """With templates in the user's own values, too; the bundle of sgprov is not made, but for its name."""

    def made(_: LocalHost, __: str, path: Path) -> bool:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"bundle")
        return True

    host = LocalHost({"HOME": str(fleet.root), "PATH": os.environ["PATH"]})
    wishes = Wishes(
        settings=Settings(inventory=fleet.inventory()),
        max_fail=100,
        batch=("100%",),
        wheels_from="index",
        options=(*WORDS, evil),
        target=evil,
        keys={"HF_TOKEN": f"hf_{{{{ 1 + 1 }}}}{evil}"},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(create, "tool", made)
        patch.setattr(own, "wheel_digest", lambda: VERSION)
        return run.carry_out(host, "bootstrap", wishes, Watcher())


@pytest.mark.tried(KIND, "templates in everything that it answers, in facts, messages and warnings")
def test_no_answer_of_a_host_is_a_template(ended: Ended) -> None:
    assert not ended.canary.exists()
    assert ended.state("honest") is State.OK, "and nobody else's work was stopped by it"
    fine = {name for name in lying("") if ended.state(name) is State.OK}
    assert fine <= {"machine", "facts"}, "text is only shown"
    wanted = "its answer is not one of sgprov's: `asked.home` cannot be what it says there"
    assert ended.host("home").finding == wanted


@pytest.mark.tried(KIND, "an architecture that is a path, and a lock that this sgprov has not")
def test_no_answer_of_a_host_is_a_path(ended: Ended) -> None:
    assert ended.state("way") is State.FAILED and "x86_64 and aarch64" in ended.host("way").finding
    assert ended.state("foreign-lock") is State.FAILED and "`sglang-9.9." in ended.host("foreign-lock").finding
    made = {path.name for path in (ended.fleet.root / ".cache").rglob("*") if path.is_file()}
    assert made <= {"tool-x86_64.tar"}


@pytest.mark.tried(KIND, "text that looks like an event of Ansible's about another host")
def test_an_event_cannot_be_forged(ended: Ended) -> None:
    assert (ended.state("forger"), ended.state("raw")) == (State.FAILED, State.FAILED)
    assert (ended.state("honest"), ended.host("honest").finding) == (State.OK, "")
    assert not [host.name for host in ended.report.hosts if "\x1b" in host.finding]


@pytest.mark.tried("the user's own values", "templates in keys, targets and options: they arrive as they are")
def test_values_of_the_user_arrive_as_they_are(ended: Ended) -> None:
    last = ended.fleet.calls("honest")[-1]
    assert last["argv"] == ["bootstrap", "--target", ended.template, *WORDS, ended.template, "--json"]
    assert last["key"] == "hf_{{ 1 + 1 }}" + ended.template
    assert not [path for path in ended.fleet.root.glob("**/values.yml") if path.is_file()]


@pytest.mark.tried(
    "another user of a host", "the folder of the background job and the file of keys, made by somebody else"
)
def test_a_host_uses_nothing_that_another_user_made(ended: Ended) -> None:
    """A job's record names a process that is ended, and the keys are the environment of what root starts."""
    for name in ("owner", "link", "open", "keys"):
        assert ended.state(name) is State.FAILED and "is not used" in ended.host(name).finding, name
    assert ended.victim.poll() is None
    assert list((ended.fleet.root / "elsewhere").iterdir()) == []
    assert ended.fleet.calls("keys") == []


@pytest.mark.tried("shared machine", "what a job leaves on a host, with a umask of 000")
def test_a_job_is_nobody_elses_to_read(ended: Ended) -> None:
    folder_ = ended.fleet.folder("honest")
    written = [*(folder_ / "jobs").rglob("*"), *(folder_ / "keys").rglob("*")]
    assert len(written) >= 5
    assert not [path for path in written if path.stat().st_mode & 0o077]


@pytest.mark.tried(KIND, "a result on which Ansible itself breaks")
def test_who_breaks_ansible_fails_alone(fleet: Local) -> None:
    fleet.add("breaks", {"sgprov": {"ansible_stats": 5}})
    fleet.add("honest")
    assert states(bootstrap(fleet, "none")) == {"breaks": State.FAILED, "honest": State.OK}


@pytest.fixture
def fleet(tmp_path: Path) -> Local:
    pytest.importorskip("ansible_runner", reason="NOT RUN: ansible-runner is not installed")
    return Local(tmp_path)


@pytest.mark.tried(KIND, "the name of a file of the controller, as a fact that overrules the role's variable")
def test_no_fact_of_a_host_names_a_file_of_the_controller(fleet: Local, tmp_path: Path) -> None:
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
        "ANSIBLE_INJECT_FACT_VARS": "True",
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
    for more in (variables, {"ANSIBLE_CONFIG": str(cwd / "ansible.cfg")}):
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
