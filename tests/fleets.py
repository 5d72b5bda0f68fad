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
        return str(path)

    def calls(self, name: str) -> list[dict[str, Any]]:
        path = self.folder(name) / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
