from __future__ import annotations

from pathlib import Path

import pytest

from provision.errors import UsageError
from provision.facts.nvml import COMMAND
from provision.facts.pythons import SCRIPT
from provision.host.folder import FolderHost, stable

COMMANDS = """
- argv: [uname, -m]
  out: "x86_64\\n"
- argv: [nvidia-smi]
  hangs: true
- argv: [docker]
  installed: false
- argv: [false]
  rc: 1
  err: sorry
"""
VIEW = """
variables: {HOME: /root}
paths:
  /workspace: {is_directory: true, mode: 511, owner: someone, uid: 1000}
  /usr/bin/python3.10: {mode: 493}
disks:
- {mount: /, total: 100, free: 50}
- {mount: /workspace, total: 200, free: 150, filesystem: nfs4}
- {mount: /mnt/dead, silent: true}
listeners:
- {port: 8888, address: 0.0.0.0, process: jupyter}
processes:
- {pid: 1, parent: 0, name: init, command: /sbin/init, user: root, started: 0.5}
"""


@pytest.fixture
def machine(tmp_path: Path) -> FolderHost:
    folder = tmp_path / "box"
    (folder / "root/sys/bus/pci/devices/0000:61:00.0").mkdir(parents=True)
    (folder / "root/sys/bus/pci/devices/0000:61:00.0/vendor").write_text("0x10de\n")
    (folder / "commands.yml").write_text(COMMANDS.replace("[false]", '["false"]'))
    (folder / "view.yml").write_text(VIEW)
    return FolderHost(folder)


def test_commands_answer_as_recorded(machine: FolderHost) -> None:
    assert machine.query(["uname", "-m"]).out == "x86_64\n"
    assert (machine.query(["false"]).rc, machine.query(["false"]).err) == (1, "sorry")
    hanging = machine.query(["nvidia-smi"], timeout_s=3)
    assert (hanging.rc, hanging.installed, hanging.ending) == (None, True, "gave no answer in 3 s")


def test_what_nobody_recorded_is_not_installed(machine: FolderHost) -> None:
    assert not machine.query(["docker"]).installed
    assert not machine.query(["uname", "-r"]).installed


def test_files_and_paths(machine: FolderHost) -> None:
    vendor = "/sys/bus/pci/devices/0000:61:00.0/vendor"
    assert machine.name == "box"
    assert machine.read(vendor) == "0x10de\n"
    assert machine.read("/../../commands.yml") is None
    assert machine.read("/nothing") is None
    assert machine.glob("/sys/bus/pci/devices/*/vendor") == (vendor,)
    assert machine.glob("/sys/bus/pci/devices/*") == ("/sys/bus/pci/devices/0000:61:00.0",)
    assert machine.glob("/usr/bin/python3*") == ("/usr/bin/python3.10",)
    assert machine.glob("/usr/*/python[23].1?") == ("/usr/bin/python3.10",)
    workspace, directory, file = machine.stat("/workspace"), machine.stat("/usr/bin"), machine.stat(vendor)
    assert workspace is not None and (workspace.mode, workspace.owner, workspace.uid) == (0o777, "someone", 1000)
    assert directory is not None and directory.is_directory
    assert file is not None and (file.is_directory, file.size, file.mode) == (False, 7, 0o644)
    assert machine.stat("/nothing") is None


def test_disks_by_their_longest_mount(machine: FolderHost) -> None:
    disk = machine.disk("/workspace/models")
    assert disk is not None and (disk.path, disk.mount, disk.free) == ("/workspace/models", "/workspace", 150)
    other = machine.disk("/workspaces")
    assert other is not None and other.mount == "/"
    assert machine.disk("/mnt/dead/models") is None


def test_ports_processes_and_variables(machine: FolderHost) -> None:
    assert machine.listeners()[0].process == "jupyter"
    assert machine.processes()[0].command == "/sbin/init"
    assert (machine.variable("HOME"), machine.variable("PATH")) == ("/root", None)


def test_our_own_scripts_have_one_name_on_every_machine() -> None:
    assert stable(COMMAND) == ("sgprov-ask-nvml",)
    assert stable(("/opt/python3.12", "-I", "-S", SCRIPT)) == ("/opt/python3.12", "-I", "-S", "sgprov-ask-python")
    assert stable(("python3", "/elsewhere/ask_python.py")) == ("python3", "/elsewhere/ask_python.py")


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("commands.yml", "- argv: [x]\n  rcc: 1\n", "rcc"),
        ("commands.yml", "- {argv: x}\n", "argv"),
        ("commands.yml", "{[", "commands.yml"),
        ("commands.yml", "", "commands.yml"),
        ("view.yml", "disk: []\n", "disk"),
    ],
)
def test_a_bad_folder_is_named_with_what_is_wrong(tmp_path: Path, file: str, text: str, words: str) -> None:
    (tmp_path / "commands.yml").write_text("[]\n")
    (tmp_path / file).write_text(text)
    with pytest.raises(UsageError, match=words) as caught:
        FolderHost(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_no_folder_and_no_machine(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no machine folder"):
        FolderHost(tmp_path / "nothing")
    with pytest.raises(UsageError, match="not a machine folder"):
        FolderHost(tmp_path)
