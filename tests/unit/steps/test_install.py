"""Environments made by the real uv from wheels made on the spot: no network, no index, nothing of the user's cache."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from fakes import make_wheel

from provision import environments
from provision.cli import common, main
from provision.environments import is_complete, locking, path_for, read_stamp, rollback, verify
from provision.environments.layout import BYTECODE, BYTECODE_INSIDE, STAMP
from provision.errors import StepFailed
from provision.host.local import LocalHost
from provision.locks.lockfile import Lock
from provision.steps.base import Progress
from provision.steps.environment import Environment
from provision.steps.switch import Switch

pytestmark = pytest.mark.usefixtures("real_machine")
ROOT = Path(__file__).parents[3]
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
DATA = 1_000_000


class Box:
    """A prefix, a cache and a folder of wheels of one test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # A name that no other run of these tests has: processes are looked for by it.
        self.prefix = str(folder / f"prefix-{time.time_ns()}")
        self.wheels = folder / "wheels"
        self.variables = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "UV_CACHE_DIR": str(folder / "cache"),
            "UV_CONFIG_FILE": str(folder / "uv.toml"),
            "UV_PYTHON": "9.9",  # what would lead uv elsewhere is taken away
        }
        # No variable turns the index off (uv 0.13), its configuration does: which is honoured, by the way.
        (folder / "uv.toml").write_text(f'no-index = true\nfind-links = ["{self.wheels}"]\n')
        self.host = LocalHost(self.variables)

    def lock(self, stack: str = "engine-1", *, names: tuple[str, ...] = ("alpha", "beta_x"), data: int = DATA) -> Lock:
        content = random.Random(stack).randbytes(data)  # noqa: S311  # the same in every run
        text = "".join(make_wheel(self.wheels, name, data=content) for name in names)
        path = self.folder / f"{stack}.cp{PYTHON.replace('.', '')}.x86_64.txt"
        path.write_text(text)
        return Lock(path, stack, PYTHON, "x86_64")

    def step(self, lock: Lock, *, reinstall: tuple[str, ...] = ()) -> Environment:
        return Environment(
            prefix=self.prefix, lock=lock, interpreter=sys.executable, reinstall=reinstall, anew=bool(reinstall)
        )

    def install(self, lock: Lock) -> str:
        step = self.step(lock)
        step.apply(self.host, lambda _: None)
        assert step.satisfied(self.host)
        return step.path


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def files(path: str) -> dict[str, bytes]:
    """The installed files; the bytes of an unfinished one differ."""
    root = Path(path) / "lib"
    return {str(one.relative_to(root)): one.read_bytes() for one in root.rglob("*") if one.is_file()}


def test_installed_stamped_and_nothing_to_do_afterwards(box: Box) -> None:
    told: list[Progress] = []
    lock = box.lock()
    step = box.step(lock)
    assert not step.satisfied(box.host)
    applied = step.apply(box.host, told.append)
    assert applied.note == f"2 wheels in `{step.path}`"
    assert told[0].text.startswith("install the 2 wheels of")
    stamp = read_stamp(box.host, step.path)
    assert stamp and stamp.lock_digest == lock.digest and stamp.python.startswith(PYTHON)
    start = time.perf_counter()
    assert box.step(lock).satisfied(box.host)
    assert time.perf_counter() - start < 0.5, "decided without starting uv"
    asked = subprocess.run(
        [f"{step.path}/bin/python", "-c", "import alpha, beta_x; print(alpha.VERSION)"], capture_output=True, check=True
    )
    assert asked.stdout == b"1.0\n"


def test_a_package_that_was_removed_comes_back(box: Box) -> None:
    lock = box.lock()
    path = box.install(lock)
    for folder in Path(path).glob("lib/python*/site-packages/alpha*"):
        shutil.rmtree(folder)
    assert not is_complete(box.host, path, lock)
    assert [finding.data["package"] for finding in verify(box.host, path).findings] == ["alpha"]
    box.install(lock)
    assert verify(box.host, path).ok


def test_a_wheel_with_another_hash_is_refused_and_nothing_is_switched(box: Box) -> None:
    good = box.lock()
    Switch(prefix=box.prefix, path=box.install(good)).apply(box.host, lambda _: None)
    bad = box.lock("engine-2", names=("alpha", "gamma"))
    make_wheel(box.wheels, "gamma", data=b"swapped")
    with pytest.raises(StepFailed, match=r"the wheel of `gamma==1\.0` is not the one that was locked") as caught:
        box.step(bad).apply(box.host, lambda _: None)
    assert caught.value.exit_status == 5
    assert not box.step(bad).satisfied(box.host)
    assert environments.current(box.host, box.prefix) == path_for(box.prefix, good)
    with pytest.raises(StepFailed, match="not a complete environment"):
        Switch(prefix=box.prefix, path=path_for(box.prefix, bad)).apply(box.host, lambda _: None)


def test_a_wheel_that_was_cut_short_is_named_and_a_whole_one_then_completes_it(box: Box) -> None:
    lock = box.lock()
    wheel = box.wheels / "beta_x-1.0-py3-none-any.whl"
    whole = wheel.read_bytes()
    wheel.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StepFailed, match=r"`?beta[-_]x"):
        box.step(lock).apply(box.host, lambda _: None)
    wheel.write_bytes(whole)
    assert verify(box.host, box.install(lock)).ok


def test_a_wheel_that_is_not_there_is_named(box: Box) -> None:
    lock = box.lock()
    (box.wheels / "alpha-1.0-py3-none-any.whl").unlink()
    with pytest.raises(StepFailed, match="the index has no wheel that fits `alpha"):
        box.step(lock).apply(box.host, lambda _: None)


def test_an_index_out_of_reach_is_told(box: Box) -> None:
    box.host = LocalHost({**box.variables, "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple", "UV_HTTP_RETRIES": "0"})
    lock = box.lock()
    (box.folder / "uv.toml").write_text("")
    with pytest.raises(StepFailed, match="the package index is out of reach") as caught:
        box.step(lock).apply(box.host, lambda _: None)
    assert [finding.check for finding in caught.value.findings][:1] == ["index-unreachable"]


def test_two_environments_a_rollback_and_the_garbage(box: Box) -> None:
    paths = []
    for number in range(4):
        paths.append(box.install(box.lock(f"engine-{number}")))
        Switch(prefix=box.prefix, path=paths[-1]).apply(box.host, lambda _: None)
    assert environments.current(box.host, box.prefix) == paths[3]
    assert rollback(box.host, box.prefix) == paths[2]
    assert rollback(box.host, box.prefix) == paths[3]
    compiled = [Path(f"{box.prefix}/{kept}{paths[0]}/a.pyc") for kept in (BYTECODE, BYTECODE_INSIDE)]
    for path in compiled:
        path.parent.mkdir(parents=True)
        path.touch()
    assert sorted(environments.collect_garbage(box.host, box.prefix)) == sorted(paths[:2])
    assert not [path for path in compiled if path.exists()]
    assert [one.path for one in environments.list_environments(box.host, box.prefix) if one.stamp] != []
    assert verify(box.host, paths[3]).ok and verify(box.host, paths[2]).ok


def test_clearing_away_says_why_the_others_stay(
    box: Box, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(common, "local_host", lambda: box.host)
    paths = []
    for number in range(3):
        paths.append(box.install(box.lock(f"engine-{number}", names=("alpha",))))
        Switch(prefix=box.prefix, path=paths[-1]).apply(box.host, lambda _: None)
    assert main(["environments", "clear", "--keep", "0", "--prefix", box.prefix, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["removed"] == paths[:1]
    assert {each["path"]: each["why"] for each in told["kept"]}.keys() == set(paths[1:])
    assert all(each["why"] for each in told["kept"])
    assert main(["environments", "clear", "--keep", "0", "--prefix", box.prefix]) == 0
    said = capsys.readouterr().out
    assert "removed nothing" in said and "rollback" in said and "current" in said


@pytest.mark.parametrize("said", ["variable", "configuration"])
def test_an_environment_is_not_made_of_links_into_the_cache(box: Box, said: str) -> None:
    if said == "variable":
        box.host = LocalHost({**box.variables, "UV_LINK_MODE": "symlink"})
    else:
        with (box.folder / "uv.toml").open("a") as stream:
            stream.write('link-mode = "symlink"\n')
    path = box.install(box.lock())
    shutil.rmtree(box.folder / "cache")
    assert verify(box.host, path).ok


@pytest.mark.parametrize("mode", ["copy", "clone"])
def test_copies_are_read_and_compared(box: Box, mode: str) -> None:
    box.host = LocalHost({**box.variables, "UV_LINK_MODE": mode})
    lock = box.lock()
    assert verify(box.host, box.install(lock)).ok
    for data in (box.folder / "cache").glob("archive-v*/*/alpha/data.bin"):
        data.write_bytes(data.read_bytes()[::-1])
    other = Environment(prefix=str(box.folder / "other"), lock=lock, interpreter=sys.executable)
    other.apply(box.host, lambda _: None)
    assert verify(box.host, other.path).ok


def test_the_cache_makes_the_second_one_without_the_wheels(box: Box) -> None:
    lock = box.lock()
    box.install(lock)
    other = Environment(prefix=str(box.folder / "other"), lock=lock, interpreter=sys.executable)
    other.apply(box.host, lambda _: None)
    here = next(Path(other.path).glob("lib/python*/site-packages/alpha/data.bin"))
    assert here.stat().st_nlink >= 3, "hard links: two environments and the cache"


def test_an_edited_file_is_edited_in_the_cache_too_until_it_is_fetched_anew(box: Box) -> None:
    lock = box.lock()
    path = box.install(lock)
    data = next(Path(path).glob("lib/python*/site-packages/alpha/data.bin"))
    with data.open("r+b") as stream:
        stream.write(b"!")
    (finding,) = verify(box.host, path).findings
    assert finding.data["package"] == "alpha"
    second = Environment(prefix=str(box.folder / "other"), lock=lock, interpreter=sys.executable)
    second.apply(box.host, lambda _: None)
    assert verify(box.host, second.path).ok, "uv linked the edited file again, which was seen"
    assert not verify(box.host, path).ok
    box.step(lock, reinstall=("alpha",)).apply(box.host, lambda _: None)
    assert verify(box.host, path).ok


def test_repair_is_one_command(box: Box, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(common, "local_host", lambda: box.host)
    lock = box.lock(names=("alpha", "beta_x", "gamma"))
    path = box.install(lock)
    # The lock that it was made from is remembered by the environment alone.
    lock.path.unlink()
    site = next(Path(path).glob("lib/python*/site-packages"))
    with (site / "alpha/data.bin").open("r+b") as stream:
        stream.write(b"!")
    shutil.rmtree(site / "beta_x")
    shutil.rmtree(site / "gamma-1.0.dist-info")
    (fix,) = {finding.fix[0] for finding in verify(box.host, path).findings}
    command = fix.split("`")[1].split()
    assert command[:3] == ["sgprov", "environments", "repair"]
    assert main([*command[1:], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["changed"], found["repaired"]) == (True, True, ["alpha", "beta-x", "gamma"])
    assert verify(box.host, path).ok and read_stamp(box.host, path)
    assert main([*command[1:], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["changed"] is False
    (Path(path) / STAMP).unlink()
    (site / "alpha/data.bin").unlink()
    assert main(command[1:]) == 5
    told = capsys.readouterr().err
    assert "sgprov bootstrap" in told and f"--prefix {path.rsplit('/environments', 1)[0]}" in told


INSTALL = """
import sys
from pathlib import Path
from provision.host.local import LocalHost
from provision.locks.lockfile import Lock
from provision.steps.environment import Environment
import os
stack, python, lock, prefix = sys.argv[1:]
step = Environment(prefix=prefix, lock=Lock(Path(lock), stack, python, "x86_64"), interpreter=sys.executable)
try:
    print("ready", flush=True)
    step.apply(LocalHost(dict(os.environ)), lambda _: None)
except KeyboardInterrupt:
    sys.exit(130)
"""


def installing(box: Box, lock: Lock) -> subprocess.Popen[bytes]:
    """Another process that installs the lock; it says `ready` when it begins."""
    return subprocess.Popen(
        [sys.executable, "-c", INSTALL, lock.stack, PYTHON, str(lock.path), box.prefix],
        env={**box.variables, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def begun(process: subprocess.Popen[bytes]) -> bool:
    return process.stdout is not None and process.stdout.readline() == b"ready\n"


def test_two_installs_at_once_make_one_whole_environment(box: Box) -> None:
    lock = box.lock("engine-1", names=tuple(f"package{number}" for number in range(8)), data=8 * DATA)
    for _ in range(2):
        both = [installing(box, lock) for _ in range(2)]
        assert all(begun(process) for process in both)
        said = [process.communicate(timeout=60)[1].decode() for process in both]
        assert [process.returncode for process in both] == [0, 0], said
        assert box.step(lock).satisfied(box.host) and verify(box.host, path_for(box.prefix, lock)).ok
        shutil.rmtree(path_for(box.prefix, lock))


def test_who_is_waited_for_is_named_and_clearing_away_waits_not_for_ever(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "SHORT_S", 0.2)
    lock = box.lock()
    path = box.install(lock)
    holding = "import sys, time; from provision.environments import locking; from provision.host.local import LocalHost"
    holding += "\nwith locking.alone(LocalHost({}), sys.argv[1]): print('ready', flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", holding, box.prefix], env={**box.variables, "PYTHONPATH": str(ROOT)}, stdout=-1
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"ready\n"
        for change in (
            lambda: environments.collect_garbage(box.host, box.prefix, keep=0),
            lambda: environments.switch(box.host, box.prefix, path),
            lambda: rollback(box.host, box.prefix),
        ):
            with pytest.raises(StepFailed, match=rf"another sgprov \(pid {holder.pid}\) is at work under"):
                change()
        monkeypatch.setattr(locking, "LONG_S", 0.2)
        told: list[Progress] = []
        with pytest.raises(StepFailed, match="is at work under"):
            box.step(box.lock("engine-2")).apply(box.host, told.append)
        assert [one.text.split(",")[0] for one in told] == [f"waiting for another sgprov (pid {holder.pid})"]
        # The lock ends with its holder, however that ends.
        holder.kill()
    environments.switch(box.host, box.prefix, path)
    assert environments.current(box.host, box.prefix) == path


def test_interrupted_anywhere_it_ends_in_the_same_place(box: Box) -> None:
    names = tuple(f"package{number}" for number in range(12))
    lock = box.lock("engine-1", names=names, data=8 * DATA)
    expected = files(box.install(lock))
    shutil.rmtree(box.prefix)
    shutil.rmtree(box.folder / "cache")
    chance = random.Random(20260101)  # noqa: S311
    statuses = set()
    for _ in range(6):
        process = installing(box, lock)
        assert begun(process)
        time.sleep(chance.uniform(0.01, 0.5))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        statuses.add(process.returncode)
        assert not [
            one for one in psutil.process_iter(["cmdline"]) if box.prefix in " ".join(one.info["cmdline"] or ())
        ]
        # The signal may come after the last wheel; but a stamp without all of them would be a lie.
        stamped = read_stamp(box.host, path_for(box.prefix, lock)) is not None
        assert not stamped or verify(box.host, path_for(box.prefix, lock)).ok
    # SIGINT itself where it came when all was done already, while the interpreter ended.
    assert 130 in statuses and statuses <= {0, 130, -signal.SIGINT}
    path = box.install(lock)
    installed = files(path)
    assert {name: text for name, text in installed.items() if "_virtualenv" not in name} == {
        name: text for name, text in expected.items() if "_virtualenv" not in name
    }
    assert verify(box.host, path).ok


def test_what_was_interrupted_is_not_trusted(box: Box) -> None:
    lock = box.lock()
    path = box.install(lock)
    # What uv leaves when it is stopped while it links a package: for uv itself it is installed from then on.
    (Path(path) / STAMP).unlink()
    for data in Path(path).glob("lib/python*/site-packages/alpha/data.bin"):
        data.unlink()
    assert not box.step(lock).satisfied(box.host)
    assert box.install(lock) == path
    assert verify(box.host, path).ok
