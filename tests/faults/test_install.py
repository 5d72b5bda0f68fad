"""An install that is cut off, or whose cache is damaged: what is stamped is true, and the next run ends well."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from faults.boxes import PYTHON, ROOT, Box

from provision import environments
from provision.environments import claims, path_for, read_stamp, uv, verify
from provision.environments.layout import staging_of
from provision.errors import StepFailed
from provision.locks.lockfile import Lock
from provision.steps.base import Progress

pytestmark = [pytest.mark.usefixtures("real_machine"), pytest.mark.fault]
HALF, POISON = "half-installed environment", "damaged cache"
TRIES = 30
NAMES = tuple(f"package{number}" for number in range(40))

INSTALL = """
import os, sys
from pathlib import Path
from provision.host.local import LocalHost
from provision.locks.lockfile import Lock
from provision.steps.environment import Environment
stack, python, lock, prefix = sys.argv[1:]
step = Environment(prefix=prefix, lock=Lock(Path(lock), stack, python, "x86_64"), interpreter=sys.executable)
print("ready", flush=True)
step.apply(LocalHost(dict(os.environ)), lambda _: None)
"""


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def shim(folder: Path, lines: str) -> Path:
    """A program in the place of uv, which does something else when it is to install."""
    path = folder / "uv"
    path.write_text(f'#!/bin/sh\ncase "$*" in *"pip sync"*)\n{lines}\n;; esac\nexec {uv.program()} "$@"\n')
    path.chmod(0o755)
    return path


def warm(box: Box, *, names: tuple[str, ...] = NAMES, shared: bool = False) -> tuple[Lock, dict[str, bytes]]:
    """A lock whose wheels are all in the cache, and what it makes."""
    lock = box.lock("engine-1", names=names, shared=shared)
    first = str(box.folder / "first")
    return lock, box.content(Path(box.install(lock, prefix=first)))


@pytest.mark.tried(HALF, "uv is killed while it links from a warm cache, at any time, once or each time")
@pytest.mark.parametrize("times", [1, 9])
def test_uv_killed_while_it_links(box: Box, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    lock, expected = warm(box)
    chance, path, real = random.Random(times), Path(path_for(box.prefix, lock)), uv.program()  # noqa: S311
    for number in range(TRIES // 2):
        left = box.folder / "left"
        left.write_text("x" * times)
        delay = f"{chance.uniform(0.01, 0.15):.3f}"
        lines = f'if [ -s {left} ]; then truncate -s -1 {left}; exec timeout -s KILL {delay} {real} "$@"; fi'
        with monkeypatch.context() as patch:
            program = shim(box.folder, lines)
            patch.setattr(uv, "program", lambda program=program: str(program))
            try:
                box.step(lock).apply(box.host, lambda _: None)
            except StepFailed:
                assert times > 1, f"try {number}"
        stamped = read_stamp(box.host, str(path)) is not None
        assert stamped == box.step(lock).satisfied(box.host), f"try {number}"
        if not stamped:
            box.install(lock)
        assert verify(box.host, str(path)).ok and box.content(path) == expected, f"try {number}, after {delay} s"
        shutil.rmtree(box.prefix)


@pytest.mark.tried(HALF, "sgprov alone is killed, and its uv runs on")
def test_an_orphaned_uv_is_waited_for(box: Box) -> None:
    lock, expected = warm(box)
    path = path_for(box.prefix, lock)
    # An orphan that takes its time: it begins to link when the next run is already there.
    program = shim(box.folder, f"touch {box.folder}/linking; sleep 2")
    script = f"from provision.environments import uv\nuv.program = lambda: {str(program)!r}\n{INSTALL}"
    process = subprocess.Popen(
        [sys.executable, "-c", script, lock.stack, PYTHON, str(lock.path), box.prefix],
        env={**box.variables, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 30
    while not (box.folder / "linking").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    told: list[Progress] = []
    box.step(lock).apply(box.host, told.append)
    assert told[0].text.startswith("waiting for another sgprov"), told[0]
    assert verify(box.host, path).ok and box.content(Path(path)) == expected


@pytest.mark.tried(HALF, "the whole run is killed at any time, and started again")
def test_killed_at_any_time_and_started_again(box: Box) -> None:
    lock, expected = warm(box)
    path, chance = path_for(box.prefix, lock), random.Random(3)  # noqa: S311
    for number in range(TRIES // 3):
        with subprocess.Popen(
            [sys.executable, "-c", INSTALL, lock.stack, PYTHON, str(lock.path), box.prefix],
            env={**box.variables, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            time.sleep(chance.uniform(0.0, 1.2))
            for each in (*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)):
                if each.is_running():
                    each.send_signal(signal.SIGKILL)
        if read_stamp(box.host, path):
            assert verify(box.host, path).ok, f"try {number}"
        box.install(lock)
        assert verify(box.host, path).ok and box.content(Path(path)) == expected, f"try {number}"
        assert not Path(staging_of(path)).exists()
        shutil.rmtree(box.prefix)


def unpacked(box: Box, name: str) -> Path:
    """Where the cache has the wheel of a package unpacked."""
    (folder,) = box.cache.glob(f"archive-v*/*/{name}-1.0.dist-info")
    return folder.parent


def cut(pattern: str) -> Callable[[Box], None]:
    def change(box: Box) -> None:
        for file in [each for each in unpacked(box, "alpha").rglob(pattern) if each.is_file()]:
            os.truncate(file, 0)

    change.__name__ = f"cut-{pattern}"
    return change


def everything_cut(box: Box) -> None:
    for file in [each for each in box.cache.glob("archive-v*/**/*") if each.is_file()]:
        os.truncate(file, 0)


def pointers_cut(box: Box) -> None:
    for file in [each for each in box.cache.glob("wheels-v*/**/*") if each.is_file() and not each.is_symlink()]:
        os.truncate(file, 0)


def index_pages_of_garbage(box: Box) -> None:
    for file in [each for each in box.cache.glob("*-v*/**/*.rkyv") if each.is_file()]:
        file.write_bytes(b"garbage" * 99)


def archive_gone(box: Box) -> None:
    shutil.rmtree(unpacked(box, "alpha"))


def archive_is_a_file(box: Box) -> None:
    place = unpacked(box, "alpha")
    shutil.rmtree(place)
    place.write_text("x")


def file_edited(box: Box) -> None:
    with (unpacked(box, "alpha") / "alpha/data.bin").open("r+b") as stream:
        stream.write(b"!!!")


def file_and_record_edited(box: Box) -> None:
    from faults.test_verify import edited_with_its_record  # noqa: PLC0415

    root = unpacked(box, "alpha")
    site = box.folder / "site/lib/python3/site-packages"
    site.parent.mkdir(parents=True, exist_ok=True)
    site.symlink_to(root)
    edited_with_its_record(box.folder / "site")


def file_replaced(box: Box) -> None:
    file = unpacked(box, "alpha") / "alpha/data.bin"
    content = bytearray(file.read_bytes())
    content[7] ^= 1
    file.unlink()
    file.write_bytes(bytes(content))


def file_added(box: Box) -> None:
    (unpacked(box, "alpha") / "evil.pth").write_text("import os\n")


def record_of_what_is_known_changed(box: Box) -> None:
    for file in (box.folder / ".local/state/sgprov/known-wheels").iterdir():
        if "/alpha/__init__.py" in (text := file.read_text()):
            file.write_text(json.dumps(["1" * 64, "0" * 64, *json.loads(text)[2:]]))


def module_added(box: Box) -> None:
    (unpacked(box, "alpha") / "alpha/more.py").write_text("import os\n")


def open_to_others(box: Box) -> None:
    for each in box.cache.glob("archive-v*/**/*"):
        each.chmod(0o777 if each.is_dir() else 0o666)


DAMAGES = [
    *(cut("METADATA"), cut("WHEEL"), cut("RECORD"), cut("data.bin"), cut("*"), everything_cut, pointers_cut),
    *(index_pages_of_garbage, archive_gone, archive_is_a_file, file_edited, file_replaced, file_added, module_added),
]


@pytest.mark.tried(POISON, "files in uv's cache cut short, emptied, edited, added or gone, as after a power cut")
@pytest.mark.parametrize(
    ("damage", "known"),
    [
        *((damage, known) for damage in (*DAMAGES, open_to_others) for known in ("known", "unknown")),
        # Whoever changes a wheel with its RECORD before sgprov first sees it is not found out: nothing else knows.
        (file_and_record_edited, "known"),
        (record_of_what_is_known_changed, "known"),
    ],
    ids=lambda one: getattr(one, "__name__", one),
)
def test_what_is_wrong_in_the_cache_is_fetched_anew(box: Box, damage: Callable[[Box], None], known: str) -> None:
    lock, expected = warm(box, names=("alpha", "beta_x", "gamma"), shared=True)
    damage(box)
    if known == "unknown":
        shutil.rmtree(box.folder / ".local/state/sgprov")
    told: list[Progress] = []
    box.step(lock).apply(box.host, told.append)
    path = Path(path_for(box.prefix, lock))
    assert verify(box.host, str(path)).ok and box.content(path) == expected
    assert [each for each in path.rglob("*") if not each.is_symlink() and each.stat().st_mode & 0o022] == []


@pytest.mark.tried(POISON, "a damaged cache and no source of the wheel any more")
def test_without_a_source_it_is_said_what_is_wrong(box: Box) -> None:
    lock, _ = warm(box, names=("alpha", "beta_x"))
    cut("WHEEL")(box)
    for wheel in box.wheels.iterdir():
        wheel.unlink()
    with pytest.raises(StepFailed, match="alpha"):
        box.install(lock)
    assert read_stamp(box.host, path_for(box.prefix, lock)) is None


@pytest.mark.tried("two at once", "`environments clear` between another run's install and its switch")
def test_what_is_about_to_be_used_is_not_cleared_away(box: Box) -> None:
    names, kept = ("alpha",), []
    for number in range(3):
        kept.append(box.install(box.lock(f"engine-{number}", names=names)))
        environments.switch(box.host, box.prefix, kept[-1])
    script = f"{INSTALL}\nprint('installed', flush=True)\ninput()\n"
    lock = box.lock("engine-9", names=names)
    with subprocess.Popen(
        [sys.executable, "-c", script, lock.stack, PYTHON, str(lock.path), box.prefix],
        env={**box.variables, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout and process.stdin
        assert [process.stdout.readline() for _ in range(2)] == [b"ready\n", b"installed\n"]
        path = path_for(box.prefix, lock)
        assert path not in environments.collect_garbage(box.host, box.prefix, keep=0)
        assert verify(box.host, path).ok
        process.stdin.close()
        process.wait(30)
    assert path in environments.collect_garbage(box.host, box.prefix, keep=0)


@pytest.fixture(autouse=True)
def _nothing_is_claimed() -> Iterator[None]:
    yield
    for path in list(claims._HELD):
        claims.release(path)
