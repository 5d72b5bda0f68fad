"""What a user names as a file may be anything: it neither hangs sgprov, nor fills the memory, nor ends in a traceback."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from provision.cli import main
from provision.host.folder import FolderHost

KIND = "hostile file"
ROOT = Path(__file__).parents[2]
# FILE stands for what is tried.
COMMANDS = (
    *("plan --target cpu --config FILE", "doctor --config FILE", "bootstrap --target cpu --config FILE"),
    *("diagnose FILE", "plan --target cpu --host FILE", "facts --host FILE", "bundle verify FILE", "bundle join FILE"),
    *("bootstrap --target cpu --bundle FILE", "image load FILE", "login registry.example --key-file FILE"),
    *("image build --stack sglang-0.5.23 --lockfile FILE --python 3.13", "fleet doctor -i FILE"),
)
KINDS = ("pipe", "device", "directory", "missing", "socket", "deep", "aliases", "binary", "loop")


def made(folder: Path, kind: str) -> Path:
    path = folder / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        return Path("/dev/zero")
    elif kind == "directory":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    elif kind == "deep":
        path.write_text("[" * 200_000)
    elif kind == "aliases":
        path.write_text(
            "a: &a [x, x]\n"
            + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(24))
        )
    elif kind == "binary":
        path.write_bytes(bytes(range(256)) * 100)
    elif kind == "loop":
        path.symlink_to(path)
    return path


@pytest.fixture
def sgprov(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[int, dict[str, Any], str]]]:
    """A command line in an empty home, which has a minute."""
    for name in [name for name in os.environ if name.startswith("SGPROV_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))

    def late(*_: object) -> None:
        raise AssertionError("it hangs")

    def run(*words: str) -> tuple[int, dict[str, Any], str]:
        status = main([*words, "--json"])
        printed = capsys.readouterr()
        return status, json.loads(printed.out), printed.err

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield run
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


Sgprov = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.mark.usefixtures("real_machine")
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.tried(
    KIND, "A pipe, device, directory, socket, deep JSON, bomb of aliases or bytes, as each file of each command"
)
def test_each_file_of_each_command(tmp_path: Path, sgprov: Sgprov, command: str, kind: str) -> None:
    path = made(tmp_path, kind)
    status, said, err = sgprov(*(str(path) if word == "FILE" else word for word in command.split()))
    assert "Traceback" not in err and status not in {1, 130}, err
    if not (command == "diagnose FILE" and kind in {"deep", "aliases", "binary"}):
        error = said["error"]
        assert isinstance(error, dict) and error["exit_status"] == status and status in {2, 3, 4, 5}


@pytest.mark.usefixtures("real_machine")
def test_a_log_comes_through_a_pipe_that_somebody_writes_to(tmp_path: Path, sgprov: Sgprov) -> None:
    os.mkfifo(tmp_path / "log")
    text = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n"
    writer = threading.Thread(target=lambda: (tmp_path / "log").write_text(text), daemon=True)
    writer.start()
    _, said, _ = sgprov("diagnose", str(tmp_path / "log"))
    writer.join(10)
    assert said["lines_read"] == 1


@pytest.mark.tried(KIND, "A captured machine with links that lead out of its folder, pipes, and huge files")
def test_a_machine_folder_leads_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "machine"
    shutil.copytree(ROOT / "tests" / "hosts" / "bare-no-gpu", folder)
    etc = folder / "root" / "etc"
    etc.mkdir(parents=True, exist_ok=True)
    (etc / "link").symlink_to(tmp_path / "secret")
    (etc / "inside").symlink_to("os-release")
    (etc / "loop").symlink_to("loop")
    (folder / "root" / "out").symlink_to(tmp_path)
    os.mkfifo(etc / "pipe")
    host = FolderHost(folder)
    for path in ("/etc/link", "/out/secret", "/etc/pipe", "/etc/loop", "/etc", "/../../secret"):
        assert host.read(path) is None, path
        assert host.read_bytes(path, 10) is None


@pytest.mark.usefixtures("real_machine")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in {"deep", "aliases", "binary"}])
@pytest.mark.tried(KIND, "A pipe, device, directory, socket or loop among the wheels that an image is built from")
def test_each_file_of_a_folder_of_wheels(tmp_path: Path, sgprov: Sgprov, kind: str) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "a-1-py3-none-any.whl").symlink_to(made(tmp_path, kind))
    words = "image build --stack sglang-0.5.23 --base ubuntu:22.04 --python 3.12 --wheels"
    status, said, err = sgprov(*words.split(), str(wheels))
    assert (status, said["error"]["exit_status"]) == (2, 2), err
    assert "a-1-py3-none-any.whl" in said["error"]["text"]
