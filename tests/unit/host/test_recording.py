from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from provision.errors import UsageError
from provision.facts import gather, to_json
from provision.host.folder import FolderHost
from provision.host.recording import RecordingHost

COMMANDS = """
- argv: [uname, -m]
  out: "x86_64\\n"
- argv: [/home/alice/.pyenv/versions/3.10.13/bin/python3.10, -I, -S, sgprov-ask-python]
  out: "cpython\\t3.10.13\\t/home/alice/.pyenv/versions/3.10.13/bin/python3.10\\t1\\t1\\n"
- argv: [nvidia-smi, -L]
  out: "GPU 0: NVIDIA A40 (UUID: GPU-8e100991-ce97-6694-b8eb-b8b1ff5053af)\\n"
- argv: [docker, info]
  hangs: true
"""
VIEW = """
variables: {HOME: /home/alice, USER: alice, RUNPOD_POD_ID: abc123def, PATH: /usr/bin}
paths:
  /home/alice/.pyenv/versions/3.10.13/bin/python3.10: {mode: 493, owner: alice, uid: 1000}
disks:
- {mount: /, total: 100, free: 50}
- {mount: /mnt/dead, silent: true}
listeners:
- {port: 9000, address: 10.1.2.3, pid: 7, process: python3, user: alice, command: serve --token abcdef1234567}
"""


@pytest.fixture
def machine(tmp_path: Path) -> FolderHost:
    folder = tmp_path / "box"
    (folder / "root/etc").mkdir(parents=True)
    (folder / "root/etc/hostname").write_text("gpu-box-17\n")
    (folder / "root/etc/os-release").write_text('ID=debian\nVERSION_ID="12"\nPRETTY_NAME="of gpu-box-17"\n')
    (folder / "commands.yml").write_text(COMMANDS)
    (folder / "view.yml").write_text(VIEW)
    return FolderHost(folder)


def everything(folder: Path) -> str:
    return "\n".join(f"{path}\n{path.read_text()}" for path in sorted(folder.rglob("*")) if path.is_file())


def test_a_capture_holds_nothing_that_identifies(machine: FolderHost, tmp_path: Path) -> None:
    recording = RecordingHost(machine)
    gather(recording, directories=["/mnt/dead", "/home/alice"])
    recording.query(["nvidia-smi", "-L"])
    recording.save(tmp_path / "captured")
    written = everything(tmp_path / "captured").replace(str(tmp_path), "")
    for secret in ("alice", "gpu-box-17", "8e100991", "abc123def", "10.1.2.3", "abcdef1234567"):
        assert secret not in written


def test_a_capture_replays_and_is_the_same_each_time(machine: FolderHost, tmp_path: Path) -> None:
    for name in ("one", "two"):
        recording = RecordingHost(machine)
        gather(recording, directories=["/mnt/dead"])
        recording.query(["docker", "info"])
        recording.save(tmp_path / name)
    assert everything(tmp_path / "one").replace("/one", "") == everything(tmp_path / "two").replace("/two", "")
    replayed = FolderHost(tmp_path / "one")
    facts = to_json(gather(replayed, directories=["/mnt/dead"]))
    assert facts["pythons"][0]["path"] == "/home/masked-1/.pyenv/versions/3.10.13/bin/python3.10"
    assert [problem["check"] for problem in facts["problems"]] == ["facts.disks"]
    assert facts["surroundings"]["runpod_pod"] == "masked"
    assert replayed.query(["docker", "info"]).ending == "gave no answer in 8 s"
    recorded = yaml.safe_load((tmp_path / "one" / "commands.yml").read_text())
    assert {"argv": ["nvidia-smi", "-L"]} not in recorded


def test_it_replaces_an_older_capture_and_nothing_else(machine: FolderHost, tmp_path: Path) -> None:
    recording = RecordingHost(machine)
    recording.read("/etc/os-release")
    recording.save(tmp_path / "captured")
    stale = tmp_path / "captured/root/etc/stale"
    stale.write_text("")
    recording.save(tmp_path / "captured")
    assert not stale.exists()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/thesis.tex").write_text("")
    with pytest.raises(UsageError, match="something else"):
        recording.save(tmp_path / "precious")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError):
        recording.save(tmp_path / "file")
