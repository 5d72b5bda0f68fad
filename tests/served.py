"""A machine that is a folder, with servers that were started on it, for tests of what a second run does."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec

from provision import bootstrap
from provision.bootstrap import Manner, make_plan
from provision.config import Options
from provision.host.folder import FolderHost
from provision.plan import Plan
from provision.serving.record import Server

HOSTS = Path(__file__).parent / "hosts"
HOME = "/root/.local/share/sgprov"
PID, STARTED = 4711, 50


class Live(FolderHost):
    """The machine itself, which keeps no secret of its own from sgprov."""

    recorded = False

    def read(self, path: str) -> str | None:
        try:
            return self._real(path).read_text()
        except OSError:
            return None


class Machine:
    """A machine of `tests/hosts` on which servers were started."""

    def __init__(self, folder: Path, name: str) -> None:
        self.root = folder / "machine" / "root"
        shutil.copytree(HOSTS / name, folder / "machine")
        self.write("/proc/sys/kernel/hostname", "here")
        self.write("/proc/sys/kernel/random/boot_id", "b")

    def view(self) -> FolderHost:
        return Live(self.root.parent)

    def plan(self, **options: Any) -> Plan:
        return make_plan(self.view(), Options(**options))

    def forgetting(self, *names: str) -> Plan:
        return make_plan(self.view(), Options(), Manner(forget=names))

    def keyed(self, key: str) -> Plan:
        return make_plan(self.view(), Options(), Manner(api_key=key))

    def serve(self, plan: Plan, *, alive: bool = True, pid: int = PID, **more: Any) -> Server:
        """Have the server of a plan started, as the step would."""
        launch, name = plan.launch, bootstrap.name_of(plan)
        directory = f"{plan.decision.places.prefix}/servers/{name}"
        told: dict[str, Any] = {
            "name": name,
            "directory": directory,
            "log": f"{directory}/server.log",
            "stack": plan.decision.stack.name if plan.decision.stack else None,
            "machine": "here",
            "boot": "b",
            "state": "ready",
            "started_ticks": STARTED,
        }
        rendered = (
            "engine",
            "version",
            "argv",
            "url",
            "variables",
            "model",
            "ports",
            "asked",
            "serve",
            "python",
            "given",
        )
        told |= {one: getattr(launch, one) for one in rendered}
        server = Server(**{"id": name, "started": "", "pid": pid, **told, **more})
        self.write(f"{directory}/server.json", msgspec.json.encode(server).decode())
        stat = self.root / f"proc/{pid}/stat"
        if alive:
            self.write(f"/proc/{pid}/stat", f"{pid} (python) S 1 {pid} {pid} 0 -1 {'0 ' * 13}{STARTED} 0 0")
        else:
            stat.unlink(missing_ok=True)
        return server

    def write(self, path: str, text: str) -> None:
        there = self.root / path.lstrip("/")
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_text(text)
