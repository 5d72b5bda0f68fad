"""Another user's view of what root closed: each command says whose it is, and none takes it for "not there"."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from provision import config

pytestmark = pytest.mark.attack
KIND = "another user"
STRANGER = 54321
ROOT = Path(__file__).parents[2]
Sgprov = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that other users may enter, as pytest's own is not."""
    path = Path(tempfile.mkdtemp(prefix="sgprov-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def closed(folder: Path) -> Path:
    """A directory of root's that the stranger may not enter, with something in it."""
    path = folder / "closed"
    (path / "servers" / "cpu").mkdir(parents=True)
    (path / "servers" / "cpu" / "server.json").write_text("{}")
    path.chmod(0o700)
    return path


@pytest.fixture
def sgprov(folder: Path) -> Sgprov:
    """sgprov as another user, with a Python that this user may run."""
    home = folder / "home"
    home.mkdir()
    os.chown(home, STRANGER, STRANGER)
    packages = Path(config.__file__).parents[1]
    paths = os.pathsep.join([str(packages), *(path for path in sys.path if path.endswith("site-packages"))])
    variables = {"PATH": os.defpath, "HOME": str(home), "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}

    def run(python: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, *words],
            user=STRANGER,
            group=STRANGER,
            extra_groups=[],
            env=variables,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def runs(python: str) -> bool:
        try:
            return run(python, "-c", "import provision.cli.app, msgspec").returncode == 0
        except OSError:
            return False

    found = next((one for one in (sys.executable, shutil.which("python3", path=os.defpath)) if one and runs(one)), None)
    if found is None:
        pytest.skip("NOT RUN: needs a Python that another user may run")

    def sgprov(*words: str) -> tuple[int, dict[str, Any]]:
        done = run(found, "-m", "provision", *words, "--json")
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, json.loads(done.stdout)

    return sgprov


COMMANDS = (
    *("facts --capture CLOSED/x", "plan --target cpu --prefix CLOSED/x", "bootstrap --target cpu --prefix CLOSED"),
    *("serve status --prefix CLOSED", "serve stop cpu --prefix CLOSED", "environments list --prefix CLOSED"),
    *("environments verify --prefix CLOSED", "smoke cpu --prefix CLOSED", "plan --host CLOSED/x"),
    *("plan --target cpu --config CLOSED/x.yml", "bundle verify CLOSED/x.tar", "image load CLOSED/x"),
    *("init -o CLOSED/x.yml", "bundle create --target cpu -o CLOSED/x/y.tar", "diagnose CLOSED/log"),
    *("bootstrap --target cpu --bundle CLOSED/x", "login registry.example --key-file CLOSED/key"),
)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.tried(KIND, "Each command on what another user closed: whose it is, and no traceback")
def test_each_command_says_that_it_may_not(closed: Path, sgprov: Sgprov, command: str) -> None:
    status, said = sgprov(*command.replace("CLOSED", str(closed)).split())
    assert status in {2, 4, 5} and said["error"]["exit_status"] == status, said
    assert str(closed) in said["error"]["text"]
    assert any(word in said["error"]["text"] for word in ("cannot be opened", "ermission denied")), said


@pytest.mark.tried(KIND, "`doctor` on an environment whose interpreter the caller may not run: not called gone")
def test_doctor_does_not_call_a_closed_interpreter_gone(folder: Path, closed: Path, sgprov: Sgprov) -> None:
    (closed / "python3.11").write_text("")
    prefix = folder / "prefix"
    path = prefix / "environments" / "a"
    (path / ".sgprov").mkdir(parents=True)
    (path / "bin").mkdir()
    (path / "bin" / "python").symlink_to(closed / "python3.11")
    stamp = {"name": "a", "lock": "a.cp311.x86_64.txt", "lock_digest": "0" * 64, "python": "3.11.7", "sgprov": "0.1.0"}
    stamp |= {"interpreter": str(closed / "python3.11"), "time": "2026-01-01T00:00:00Z"}
    (path / ".sgprov" / "stamp.json").write_text(json.dumps(stamp))
    (prefix / "current").symlink_to("environments/a")
    _, said = sgprov("doctor", "--target", "cpu", "--prefix", str(prefix))
    found = [one["text"] for one in said["findings"] if one["check"] == "environment-python"]
    assert len(found) == 1 and "cannot be opened by 54321" in found[0] and "gone" not in found[0]
