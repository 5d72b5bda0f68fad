"""uv and what others leave for it: configurations above its directory, or another user's, and folders in its way."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from fakes import make_wheel

from provision.bundle import sources
from provision.environments import installer, uv
from provision.errors import StepFailed, WrongPython
from provision.host import scratch
from provision.host.local import LocalHost
from provision.locks.lockfile import Lock, parse
from provision.steps.base import Applied
from provision.steps.environment import Environment
from provision.steps.interpreter import Interpreter

pytestmark = pytest.mark.usefixtures("real_machine")
PACKAGE = Path(uv.__file__).parents[1]
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
NOBODY = 65534


class Machine:
    """A home, a folder of wheels that the caller names, and a prefix in a directory that an attacker fills, too."""

    def __init__(self, folder: Path) -> None:
        self.home, self.shared, self.wheels = folder / "home", folder / "shared", folder / "wheels"
        for each in (self.home, self.shared):
            each.mkdir()
        self.lock = folder / f"engine-1.cp{PYTHON.replace('.', '')}.x86_64.txt"
        self.lock.write_text(make_wheel(self.wheels, "alpha"))
        self.variables = {"PATH": os.environ["PATH"], "HOME": str(self.home), "UV_FIND_LINKS": str(self.wheels)}
        self.prefix = str(self.shared / "prefix")
        self.planted = folder / "planted"

    def host(self, **more: str) -> LocalHost:
        return LocalHost({**self.variables, **more})

    def install(self, host: LocalHost) -> Applied:
        lock = Lock(self.lock, "engine-1", PYTHON, "x86_64")
        step = Environment(prefix=self.prefix, lock=lock, interpreter=sys.executable)
        return step.apply(host, lambda _: None)

    def plant(self, file: Path) -> None:
        """A configuration that takes wheels, interpreters and the cache from elsewhere."""
        table = "tool.uv." if file.name == "pyproject.toml" else ""
        settings = (
            f'cache-dir = "{self.planted}/cache"\nno-index = true\npython-install-mirror = "file://{self.planted}"\n'
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"[{table.rstrip('.')}]\n{settings}" if table else settings)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def fetch_python(machine: Machine) -> None:
    host = machine.host(UV_PYTHON_INSTALL_MIRROR="file:///named-by-the-caller", UV_HTTP_RETRIES="0")
    with pytest.raises(WrongPython) as caught:
        Interpreter(python="3.12", prefix=machine.prefix).apply(host, lambda _: None)
    assert str(machine.planted) not in str(caught.value)


def resolve(machine: Machine) -> None:
    scratch_folder = machine.shared / "work"
    scratch_folder.mkdir(exist_ok=True)
    pins = parse(machine.lock.read_text())
    host = machine.host(UV_INDEX_URL=machine.wheels.as_uri(), UV_OFFLINE="1")
    found = sources.of_pins(host, pins, sources.Machine(python=PYTHON, arch="x86_64", glibc="2.28"), scratch_folder)
    assert [one.name for one in found] == ["alpha-1.0-py3-none-any.whl"]


def install(machine: Machine) -> None:
    host = machine.host(UV_OFFLINE="1")
    machine.install(host)
    assert installer.is_cached(host, Lock(machine.lock, "engine-1", PYTHON, "x86_64"), sys.executable)


def ask_for_the_cache(machine: Machine) -> None:
    assert installer.cache_directory(machine.host()) == str(machine.home / ".cache/uv")


@pytest.mark.tried(
    "planted uv configuration", "a `uv.toml` or `pyproject.toml` above the prefix or the current directory"
)
@pytest.mark.parametrize("file", ["uv.toml", "pyproject.toml"])
@pytest.mark.parametrize("act", [install, resolve, fetch_python, ask_for_the_cache])
def test_a_configuration_above_the_directories_in_use_is_not_read(
    machine: Machine, file: str, act: Callable[[Machine], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (machine.shared, machine.home, machine.home.parent, Path(machine.prefix)):
        machine.plant(folder / file)
    monkeypatch.chdir(machine.shared)
    act(machine)
    assert not machine.planted.exists(), "the planted configuration took effect"


@pytest.mark.tried("planted uv configuration", "the user's own `uv.toml`, which somebody else can write or owns")
@pytest.mark.parametrize("way", ["writable file", "writable folder", pytest.param("owner", marks=pytest.mark.attack)])
def test_a_configuration_that_others_can_write_is_not_read(machine: Machine, way: str) -> None:
    file = machine.home / ".config/uv/uv.toml"
    machine.plant(file)
    assert uv.configuration(machine.host()) == ("--config-file", str(file))
    if way == "owner":
        os.chown(file, NOBODY, NOBODY)
    else:
        (file if way == "writable file" else file.parent).chmod(0o777)
    assert uv.configuration(machine.host()) == ("--no-config",)
    applied = machine.install(machine.host())
    assert [finding.check for finding in applied.findings] == [uv.CHECK]
    assert str(file) in applied.findings[0].text
    assert not machine.planted.exists()


def test_what_the_user_names_is_honoured(machine: Machine) -> None:
    own, system = machine.home / ".config/uv/uv.toml", machine.home.parent / "etc/uv/uv.toml"
    machine.plant(own)
    host = machine.host(XDG_CONFIG_DIRS=str(system.parents[1]))
    assert installer.cache_directory(host) == f"{machine.planted}/cache"
    system.parent.mkdir(parents=True)
    system.write_text('cache-dir = "/system"\nlink-mode = "copy"\n')
    assert installer.cache_directory(host) == f"{machine.planted}/cache", "the user's comes first"
    own.write_text("")
    assert installer.cache_directory(host) == "/system"
    named = machine.home / "named.toml"
    named.write_text('cache-dir = "/named"\n')
    assert installer.cache_directory(machine.host(UV_CONFIG_FILE=str(named))) == "/named"
    machine.plant(own)
    assert installer.cache_directory(machine.host(UV_NO_CONFIG="1")) == str(machine.home / ".cache/uv")


def test_there_is_one_way_to_uv() -> None:
    """The program itself is named by what puts it into an image, and by what tells a person to call it."""
    naming = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "uv.program()" in path.read_text() or "find_uv_bin" in path.read_text()
    }
    assert naming == {"environments/uv.py", "cli/image.py", "cli/environments.py", "steps/inside.py"}


@pytest.mark.tried("shared scratch", "a symbolic link, or another's folder, where private scratch is to be made")
@pytest.mark.parametrize("way", ["link", "open", pytest.param("owner", marks=pytest.mark.attack)])
def test_scratch_is_never_made_in_what_another_can_enter(machine: Machine, way: str) -> None:
    state = machine.home / "state"
    place = state / "sgprov"
    elsewhere = machine.shared / "elsewhere"
    elsewhere.mkdir()
    state.mkdir()
    if way == "link":
        place.symlink_to(elsewhere)
    elif way == "open":
        place.mkdir()
        place.chmod(0o777)
    else:
        place.mkdir()
        os.chown(place, NOBODY, NOBODY)
    with scratch.scratch(machine.host(XDG_STATE_HOME=str(state))) as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert place not in folder.parents and elsewhere not in folder.parents
    assert not folder.exists()


def test_scratch_of_a_killed_call_is_cleared_away_and_that_of_a_living_one_is_not(machine: Machine) -> None:
    host = machine.host()
    with scratch.scratch(host) as held:
        left = held.parent / "left"
        left.mkdir()
        (left / "file").write_text("x")
        for folder in (held, left):
            os.utime(folder, (0, 0))
        with scratch.scratch(host):
            assert held.exists() and not left.exists()


def test_no_place_for_scratch_is_said(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pwd.getpwuid", lambda _: SimpleNamespace(pw_dir="/proc/nowhere"))
    with pytest.raises(StepFailed) as caught, scratch.scratch(machine.host(HOME="/proc/nowhere")):
        pass
    assert "XDG_STATE_HOME" in (caught.value.hint or "")
