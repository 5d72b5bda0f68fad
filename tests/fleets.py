"""Hosts of a fleet without SSH: directories of this machine whose `python3` and `sgprov` say what a test tells them to.

What a hostile host can say is decided by its Python: Ansible believes that it runs its modules.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from provision.fleet.drive import Run, Settings

# It runs what it is given, and then says what `says.json` has for that module: instead (`raw`), or besides.
PYTHON = """#!{real}
import json, pathlib, re, subprocess, sys
source = sys.stdin.read()
# In a file, where the connection is not one that modules are piped through.
code = source or "".join(open(argument).read() for argument in sys.argv[1:])
module = (re.findall(r"ansible\\.(?:legacy|modules|builtin)\\.(\\w+)", code) or [""])[0]
says = json.loads((pathlib.Path(__file__).parent / "says.json").read_text())
mine = says.get(module, says.get("*", {{}}))
if "raw" in mine:
    sys.stdout.write(mine["raw"])
    sys.exit(mine.get("rc", 0))
ran = subprocess.run([{real!r}, *sys.argv[1:]], input=source, capture_output=True, text=True)
sys.stderr.write(ran.stderr)
print(json.dumps({{**json.loads(ran.stdout), **mine}}) if ran.stdout.strip().startswith("{{") else ran.stdout)
sys.exit(ran.returncode)
"""
# What a controller has to want (`own.wheel_digest`) for these hosts to have it.
VERSION = "stub"
# It becomes true once, and says so in sgprov's words.
SGPROV = """#!{real}
import json, os, pathlib, sys
here = pathlib.Path(__file__).parent
arguments = sys.argv[1:]
with (here / "calls").open("a") as calls:
    calls.write(json.dumps({{"argv": arguments, "key": os.environ.get("HF_TOKEN")}}) + "\\n")
done = (here / "done").exists()
changed = arguments[0] == "bootstrap" and not done
if changed and "--dry-run" not in arguments:
    (here / "done").touch()
steps = [{{"step": "environment", "status": "would" if changed else "already"}}]
print(json.dumps({{"ok": True, "changed": changed, "steps": steps, "findings": [], "stack": "sglang-0.5.23"}}))
"""


@dataclass
class Local:
    """A fleet of such hosts, and the inventory that names them."""

    root: Path
    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def folder(self, name: str) -> Path:
        return self.root / "hosts" / name

    def add(self, name: str, says: Mapping[str, Any] | None = None, **variables: Any) -> None:
        """A host whose Python says `says` (module to what is added to its results), or an honest one."""
        folder = self.folder(name)
        folder.mkdir(parents=True)
        installed = folder / "versions" / VERSION
        installed.mkdir(parents=True)
        for path, text in ((folder / "python3", PYTHON), (installed / "sgprov", SGPROV)):
            path.write_text(text.format(real=sys.executable))
            path.chmod(0o755)
        (folder / "sgprov").symlink_to(installed / "sgprov")
        self.say(name, says or {})
        self.hosts[name] = {
            "ansible_connection": "local",
            "ansible_python_interpreter": str(folder / "python3") if says else sys.executable,
            "sgprov_host_command": str(folder / "sgprov"),
            "sgprov_host_jobs": str(folder / "jobs"),
            "sgprov_host_keys_file": str(folder / "keys" / "file"),
            "sgprov_install_directory": str(folder / "tool"),
            **variables,
        }

    def say(self, name: str, says: Mapping[str, Any]) -> None:
        (self.folder(name) / "says.json").write_text(json.dumps(says))

    def inventory(self) -> str:
        path = self.root / "inventory.yml"
        path.write_text(yaml.safe_dump({"all": {"hosts": self.hosts}}))
        path.chmod(0o600)  # whatever the umask is
        return str(path)

    def calls(self, name: str) -> list[dict[str, Any]]:
        path = self.folder(name) / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


REPORT = {
    "ok": True,
    "changed": True,
    "dry_run": True,
    "stack": "sglang-0.5.23",
    "lock": "sglang-0.5.23.cp312.x86_64.txt",
    "python": "3.12",
    "steps": [{"step": "environment", "status": "would"}, {"step": "server", "status": "would"}],
}
DONE = {
    **REPORT,
    "dry_run": False,
    "endpoint": "http://127.0.0.1:30000/v1",
    "steps": [{"step": "server", "status": "done"}],
}
KNOWN = {"arch": "x86_64", "home": "/root", "tool": VERSION, "needs_tool": False, "running": False}
UNREACHABLE = "Failed to connect to the host via ssh: ssh: connect to host x port 22: No route to host"


@dataclass
class Played:
    """One play, as it was asked for."""

    playbook: str
    tags: str | None
    hosts: tuple[str, ...]
    narrowed: bool
    values: dict[str, Any]
    secrets: dict[str, Any]
    ssh_arguments: str
    ssh_attempts: int


@dataclass
class StubAnsible:
    """In place of Ansible: hosts answer as `says` has it, in batches, and a play ends as Ansible's does.

    `says` is host to what it answers by stage (`ask`, `tool`, `apply`, or a playbook's name): a result, "unreachable",
    "silent" (begun, and never heard of again), "breaks" (Ansible ends with its answer), or an exception that is raised in
    the middle.
    """

    says: dict[str, dict[str, Any]]
    played: list[Played] = field(default_factory=list)
    status: str = ""
    settings: Settings | None = None

    def hosts(self, limit: str | None) -> tuple[str, ...]:
        return tuple(name for name in self.says if limit is None or name in limit.split(","))

    def close(self) -> None: ...

    def play(
        self,
        playbook: str,
        tell: Any,
        *,
        limit: Any = (),
        tags: str | None = None,
        values: Any = None,
        secrets: Any = None,
        ssh_arguments: str = "",
        ssh_attempts: int = 0,
    ) -> Run:
        hosts = tuple(limit) or tuple(self.says)
        self.played.append(
            Played(
                playbook, tags, hosts, bool(limit), dict(values or {}), dict(secrets or {}), ssh_arguments, ssh_attempts
            )
        )
        stage = tags or playbook
        first, *_ = (values or {}).get("sgprov_batch", [len(hosts)])
        most = (values or {}).get("sgprov_max_fail", 0)
        batches = [hosts[:first], hosts[first:]] if stage == "apply" and isinstance(first, int) else [hosts]
        for batch in batches:
            if any(self.says[name].get(stage) == "breaks" for name in batch):
                for name in batch:
                    tell({"event": "runner_on_start", "event_data": {"host": name, "task_action": "sgprov"}})
                return Run(status="failed", broke=True, output="ERROR! Unexpected Exception\n\x1b[0m\n")
            failed = [self._one(name, stage, tell) for name in batch].count(True)
            if batch and (failed == len(batch) or 100 * failed / len(batch) > most):
                break
        return Run(status=self.status or "successful")

    def _one(self, name: str, stage: str, tell: Any) -> bool:
        """Tell of one host; whether it failed."""
        said = self.says[name].get(stage, self._usual(name, stage))
        data = {"host": name, "task_action": "sgprov", "task": "sgprov_host : Ask sgprov what this host would become"}
        tell({"event": "runner_on_start", "event_data": data})
        if isinstance(said, BaseException):
            raise said
        if said == "silent":
            return False
        if said == "unreachable":
            tell({"event": "runner_on_unreachable", "event_data": {**data, "res": {"msg": UNREACHABLE}}})
            return False
        if stage == "apply":
            tell({"event": "runner_retry", "event_data": {**data, "res": {"progress": "environment: installing"}}})
        bad = bool(said.get("failed"))
        tell({"event": "runner_on_failed" if bad else "runner_on_ok", "event_data": {**data, "res": said}})
        return bad

    def _usual(self, name: str, stage: str) -> dict[str, Any]:
        if stage in {"ask", "tool"}:
            return {"finished": True, "rc": 0, "report": REPORT, **KNOWN}
        return {"finished": True, "rc": 0, "report": DONE}
