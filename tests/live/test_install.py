"""The stack of an A40 pod, really installed: every wheel from the index, under the one Python it is for."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.catalog.load import Catalog
from provision.catalog.shipped import folder
from provision.environments import current, interpreters, path_for, uv, verify
from provision.errors import WrongPython
from provision.host.local import LocalHost
from provision.locks.lockfile import Lock, available
from provision.steps.base import Progress
from provision.steps.environment import Environment
from provision.steps.interpreter import Interpreter
from provision.steps.switch import Switch

pytestmark = pytest.mark.network
HOST = LocalHost(os.environ)
TARGET = "runpod-a40"


def python(version: str) -> str:
    """An interpreter of that version on this machine: on PATH, of pyenv, or known to uv."""
    named = [shutil.which(f"python{version}"), *map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))]
    named.append(HOST.query([uv.program(), "python", "find", "--no-python-downloads", version]).out.strip())
    for path in named:
        found = interpreters.look(HOST, path) if path else None
        if found and found.fits(version):
            return found.path
    pytest.skip(f"NOT RUN: there is no Python {version} on this machine")


@pytest.fixture(scope="module")
def lock() -> Lock:
    target = Catalog().target(TARGET)
    return next(
        lock
        for stack in target.stacks
        for lock in available(folder("lockfiles"), stack)
        if lock.python == target.python and lock.arch == "x86_64"
    )


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    place = tmp_path_factory.mktemp("prefix")
    yield str(place)
    # pytest keeps the folders of three runs: several GB each.
    shutil.rmtree(place, ignore_errors=True)


@pytest.mark.parametrize("other", ["3.11", "3.12"])
def test_another_python_is_refused(lock: Lock, prefix: str, other: str) -> None:
    path = python(other)
    assert lock.python == "3.10"
    with pytest.raises(WrongPython, match=r"the stack has wheels for 3\.10 only") as caught:
        Interpreter(python=lock.python, prefix=prefix, path=path).apply(HOST, lambda _: None)
    assert caught.value.exit_status == 3
    with pytest.raises(WrongPython):
        Environment(prefix=prefix, lock=lock, interpreter=path).apply(HOST, lambda _: None)
    assert not Path(path_for(prefix, lock)).exists()


def test_installed_verified_and_nothing_to_do_afterwards(lock: Lock, prefix: str) -> None:
    step, told = Environment(prefix=prefix, lock=lock, interpreter=python(lock.python)), list[Progress]()
    step.apply(HOST, told.append)
    Switch(prefix=prefix, path=step.path).apply(HOST, lambda _: None)
    assert current(HOST, prefix) == step.path
    found = verify(HOST, step.path)
    assert found.ok and found.packages >= len(lock.requirements)
    asked = HOST.query([f"{prefix}/current/bin/python", "-c", "import torch; print(torch.__version__)"], timeout_s=300)
    assert asked.out.strip().split("+")[0] == (lock.version("torch") or "").split("+")[0]
    start = time.perf_counter()
    assert Environment(prefix=prefix, lock=lock).satisfied(HOST)
    assert time.perf_counter() - start < 1
