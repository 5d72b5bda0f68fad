"""What another user could have put in the place of an environment: it does not count, and nothing of it runs."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import make_wheel

from provision import environments
from provision.environments import interpreters, layout, locking
from provision.errors import UntrustedPath
from provision.host.local import LocalHost
from provision.locks.lockfile import Lock
from provision.steps.environment import Environment

pytestmark = pytest.mark.usefixtures("real_machine")
ROOT = Path(__file__).parents[2]
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
KIND = "shared prefix"
STRANGER = 54321


class Machine:
    """A prefix with one environment, and a program that leaves a trace where it is run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.prefix, self.trace = folder, str(folder / "prefix"), folder / "trace"
        file = folder / f"engine-1.cp{PYTHON.replace('.', '')}.x86_64.txt"
        file.write_text(make_wheel(folder / "wheels", "alpha"))
        self.lock = Lock(file, "engine-1", PYTHON, "x86_64")
        self.variables = {"PATH": os.environ["PATH"], "HOME": str(folder), "UV_OFFLINE": "1"}
        self.host = LocalHost({**self.variables, "UV_FIND_LINKS": str(folder / "wheels")})
        self.step = Environment(prefix=self.prefix, lock=self.lock, interpreter=sys.executable)

    def install(self) -> Path:
        self.step.apply(self.host, lambda _: None)
        return Path(self.step.path)

    def program(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\ntouch {self.trace}\necho {PYTHON}.0 CPython x86_64\n")
        path.chmod(0o755)
        return path


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def given(root: Path) -> None:
    for path in (root, *root.rglob("*")):
        os.chown(path, STRANGER, STRANGER, follow_symlinks=False)


@pytest.mark.attack
@pytest.mark.tried(
    KIND, "An environment that another user made before, complete and stamped, with a `bin/python` of theirs"
)
@pytest.mark.parametrize("part", [".", "bin", ".sgprov", ".sgprov/stamp.json"])
def test_an_environment_of_another_user_is_refused_and_its_python_never_runs(machine: Machine, part: str) -> None:
    path = machine.install()
    machine.program(path / "bin/python")
    given(path / part)
    for act in (lambda: machine.step.satisfied(machine.host), machine.install):
        with pytest.raises(UntrustedPath, match="belongs to 54321"):
            act()
    assert not machine.trace.exists()


@pytest.mark.attack
@pytest.mark.tried(KIND, "An interpreter that another user put where uv puts those that it fetches")
def test_an_interpreter_of_another_user_is_not_asked_what_it_is(machine: Machine) -> None:
    python = machine.program(Path(machine.prefix, f"python/cpython-{PYTHON}.1/bin/python{PYTHON}"))
    given(Path(machine.prefix, f"python/cpython-{PYTHON}.1"))
    with pytest.raises(UntrustedPath, match=str(python.parents[1])):
        interpreters.managed(machine.host, machine.prefix, PYTHON)
    assert not machine.trace.exists()


@pytest.mark.tried(
    KIND, "A symbolic link in the place of the lock, the stamp or the receipt, which leads to a file of ours"
)
@pytest.mark.parametrize("name", [locking.FILE, layout.STAMP, "receipt.json"])
def test_a_link_in_the_place_of_a_file_of_ours_is_not_followed(machine: Machine, name: str) -> None:
    path = machine.install()
    victim = machine.folder / "victim"
    victim.write_text("precious")
    place = Path(path if name == layout.STAMP else machine.prefix, name)
    place.unlink(missing_ok=True)
    place.symlink_to(victim)
    reading = (
        (lambda: environments.read_receipt(machine.host, machine.prefix)) if "receipt" in name else machine.install
    )
    with pytest.raises(UntrustedPath, match="symbolic link") as caught:
        reading()
    assert f"mv {place}" in (caught.value.hint or "")
    assert victim.read_text() == "precious"


@pytest.mark.attack
@pytest.mark.tried(KIND, "A link `current` of another user")
def test_a_current_of_another_user_is_not_believed(machine: Machine) -> None:
    machine.install()
    current = Path(machine.prefix, "current")
    current.symlink_to(f"environments/{Path(machine.step.path).name}")
    os.chown(current, STRANGER, STRANGER, follow_symlinks=False)
    with pytest.raises(UntrustedPath, match="belongs to 54321"):
        environments.current(machine.host, machine.prefix)


@pytest.mark.tried("open umask", "An install under umask 000, and one under umask 077")
@pytest.mark.parametrize("umask", ["000", "077"])
def test_others_read_an_environment_and_never_write_it(machine: Machine, umask: str) -> None:
    shutil.rmtree(machine.folder / ".cache", ignore_errors=True)
    script = f"import os; os.umask(0o{umask}); from provision.environments import path_for\n" + INSTALL
    done = subprocess.run(
        [sys.executable, "-c", script, str(machine.lock.path), PYTHON, machine.prefix],
        env={**machine.variables, "UV_FIND_LINKS": str(machine.folder / "wheels"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    entries = [Path(machine.prefix), *Path(machine.prefix).rglob("*")]
    modes = {str(each): stat.S_IMODE(each.lstat().st_mode) for each in entries if not each.is_symlink()}
    assert [path for path, mode in modes.items() if mode & 0o022] == []
    unreadable = [path for path, mode in modes.items() if not mode & 0o004 and not path.endswith(("/.lock", "/claim"))]
    assert unreadable == []


INSTALL = """
import sys
from pathlib import Path
from provision.host.local import LocalHost
from provision.locks.lockfile import Lock
from provision.steps.environment import Environment
lock, python, prefix = sys.argv[1:]
step = Environment(prefix=prefix, lock=Lock(Path(lock), "engine-1", python, "x86_64"), interpreter=sys.executable)
step.apply(LocalHost(dict(os.environ)), lambda _: None)
"""
