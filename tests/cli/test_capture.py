"""A captured machine is judged as the machine was, and holds none of its secrets."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from provision.checks.base import Context
from provision.checks.registry import CHECKS
from provision.checks.run import run_checks, verdict
from provision.cli.doctor import _context, ask_all
from provision.config import Options
from provision.environments import Receipt, Stamp, path_for
from provision.facts import gather
from provision.host import HostView
from provision.host.folder import FolderHost
from provision.host.recording import RecordingHost
from provision.locks.lockfile import Lock
from provision.serving import record
from provision.serving.launch import Launch
from provision.steps.server import StartServer

HOSTS = Path(__file__).parents[1] / "hosts"
SECRET = "correct-horse-battery-1"  # noqa: S105  # what must not be found again
URL = "http://127.0.0.1:39871"
STAT = "{pid} (python) S 1 {pid} {pid} 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 777 0 0\n"
ARGV = ("/e/bin/python", "-m", "sglang.launch_server", "--api-key", SECRET)


class Machine(FolderHost):
    """A folder that stands for a living machine: its files are read as they are."""

    recorded = False

    def read(self, path: str) -> str | None:
        there = self._real(path)
        return there.read_text() if there.is_file() else None


@dataclass(frozen=True)
class Made:
    """A machine with an environment in use and a server that runs."""

    folder: Path
    prefix: str
    lock: Lock
    environment: str

    def write(self, path: str, text: str) -> None:
        there = self.folder / "root" / path.lstrip("/")
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_text(text)

    def remove(self, path: str) -> None:
        (self.folder / "root" / path.lstrip("/")).unlink()


def look(view: HostView) -> Context:
    return _context(view, Options(), lambda: gather(view), local=False, wait=0.1)


def judged(view: HostView) -> tuple[str, dict[str, str], list[tuple[str, str]]]:
    results = run_checks(CHECKS, look(view))
    found = [(finding.check, finding.severity.value) for result in results for finding in result.findings]
    return verdict(results), {result.check.id: result.outcome for result in results}, sorted(found)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    folder = tmp_path / "machine"
    shutil.copytree(HOSTS / "bare-no-gpu", folder)
    decision = look(Machine(folder)).decision
    assert decision is not None
    assert decision.lock is not None
    prefix, lock = decision.places.prefix, decision.lock
    path = path_for(prefix, lock)
    made = Made(folder=folder, prefix=prefix, lock=lock, environment=path)
    name = path.rsplit("/", 1)[-1]
    site = f"{path}/lib/python{lock.python}/site-packages"
    for pin in lock.requirements:
        made.write(f"{site}/{pin.name}-{pin.version}.dist-info/METADATA", "")
    torch = next(pin.version for pin in lock.requirements if pin.name == "torch")
    record_text = "torch/lib/libtorch.so,sha256=x,4\ntorch/nothing.py,sha256=x,1\n"
    made.write(f"{site}/torch-{torch}.dist-info/RECORD", record_text)
    made.write(f"{site}/torch/lib/libtorch.so", "1234")
    for module in ("torch", "sglang", "transformers"):
        made.write(f"{site}/{module}/__init__.py", "")
    made.write(f"{path}/bin/python", "")
    stamp = Stamp(
        name=name,
        lock=lock.name,
        lock_digest=lock.digest,
        python="3.10.1",
        interpreter="/usr/bin/python3",
        sgprov="1",
        time="2026-01-31T10:20:30Z",
    )
    for directory in (path, f"{prefix}/current"):
        made.write(f"{directory}/.sgprov/stamp.json", msgspec.json.encode(stamp).decode())
    made.write(f"{prefix}/receipt.json", msgspec.json.encode(Receipt(target="cpu", environment=name)).decode())
    made.write("/proc/sys/kernel/random/boot_id", "0f3b2c1d-1111-2222-3333-444455556666\n")
    made.write("/proc/sys/kernel/hostname", "gpu-box-17\n")
    made.write("/etc/hostname", "gpu-box-17\n")
    made.write(f"{prefix}/servers/cpu/server.json", msgspec.json.encode(server(prefix)).decode())
    made.write("/proc/41/stat", STAT.format(pid=41))
    made.write("/proc/41/environ", f"HF_TOKEN={SECRET}\0SGPROV_SERVER=abc\0")
    home = prefix.removesuffix("/.local/share/sgprov")
    auths = {"auths": {"nvcr.io": {"auth": SECRET}, "ghcr.io": {}}, "HttpHeaders": {"X-Meta": SECRET}}
    made.write(f"{home}/.docker/config.json", json.dumps(auths))
    return made


def server(prefix: str) -> record.Server:
    directory = f"{prefix}/servers/cpu"
    return record.Server(
        id="abc",
        name="cpu",
        directory=directory,
        engine="sglang",
        version="0.5.9",
        stack=None,
        model="/m",
        url=URL,
        argv=ARGV,
        variables={"SGLANG_API_KEY": SECRET},
        log=f"{directory}/server.log",
        started="2026-01-31T10:20:30+00:00",
        machine="gpu-box-17",
        boot="0f3b2c1d-1111-2222-3333-444455556666",
        state="ready",
        pid=41,
        started_ticks=777,
    )


def captured(made: Made, tmp_path: Path) -> FolderHost:
    recording = RecordingHost(Machine(made.folder))
    ask_all(recording, gather(recording))
    recording.save(tmp_path / "captured")
    return FolderHost(tmp_path / "captured")


def test_a_healthy_machine_is_judged_the_same_from_its_capture(made: Made, tmp_path: Path) -> None:
    truth = judged(Machine(made.folder))
    assert truth[1]["environment-imports"] == truth[1]["environment-files"] == truth[1]["server-alive"] == "ok"
    assert judged(captured(made, tmp_path)) == truth


def test_a_broken_machine_is_judged_the_same_from_its_capture(made: Made, tmp_path: Path) -> None:
    site = f"{made.environment}/lib/python{made.lock.python}/site-packages"
    made.remove(f"{site}/sglang/__init__.py")
    made.write(f"{site}/torch/lib/libtorch.so", "cut")
    made.remove("/proc/41/stat")
    truth = judged(Machine(made.folder))
    assert {("environment-imports", "error"), ("environment-files", "error"), ("server-alive", "warning")} <= set(
        truth[2]
    )
    assert judged(captured(made, tmp_path)) == truth


def test_a_capture_of_everything_holds_no_secret(made: Made, tmp_path: Path) -> None:
    captured(made, tmp_path)
    texts = {path: path.read_text() for path in (tmp_path / "captured").rglob("*") if path.is_file()}
    assert any("SGPROV_SERVER=abc" in text for text in texts.values())
    assert any('"nvcr.io"' in text for text in texts.values())
    assert [path for path, text in texts.items() if SECRET in text or "gpu-box-17" in text] == []
    assert not any("nothing.py" in text for text in texts.values())


@pytest.mark.parametrize("path", ["/p/servers/cpu/api-key", "/root/.cache/huggingface/token", "/root/.netrc"])
def test_a_file_that_is_a_secret_is_not_kept(made: Made, tmp_path: Path, path: str) -> None:
    made.write(path, SECRET)
    recording = RecordingHost(Machine(made.folder))
    assert recording.read(path) == SECRET
    recording.save(tmp_path / "captured")
    assert not (tmp_path / "captured/root" / path.lstrip("/")).exists()


def test_a_recorded_server_is_never_taken_for_one_that_runs_here(made: Made) -> None:
    step = StartServer(
        servers=f"{made.prefix}/servers",
        name="cpu",
        launch=Launch(
            engine="sglang", version="0.5.9", argv=ARGV, variables={"SGLANG_API_KEY": SECRET}, url=URL, model="/m"
        ),
    )
    assert not step.satisfied(FolderHost(made.folder))
