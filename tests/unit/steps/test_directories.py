"""Directories are there and writable."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fakes import FakeHost, info

from provision.errors import StepFailed
from provision.host.local import LocalHost
from provision.steps.directories import Directories, Directory


def carry_out(host: FakeHost | LocalHost, *directories: Directory) -> str:
    step = Directories(directories=directories)
    assert not step.satisfied(host)
    note = step.apply(host, lambda _: None)
    assert step.satisfied(host)
    return note


def test_made_and_those_that_are_there_left_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o775)
    wanted = (Directory(path=str(tmp_path / "a/b")), Directory(path=str(tmp_path / "cache")))
    assert carry_out(LocalHost({}), *wanted) == "1 made, 1 were there"
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a/b", "cache")] == [0o755, 0o775]


def test_each_is_made_with_its_mode_whatever_the_umask(tmp_path: Path) -> None:
    servers, prefix = Directory(path=str(tmp_path / "servers"), mode=0o700), Directory(path=str(tmp_path / "p"))
    before = os.umask(0o002)
    try:
        assert carry_out(LocalHost({}), prefix, servers) == "2 made, 0 were there"
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("servers", "p")] == [0o700, 0o755]


@pytest.mark.parametrize("name", ["a", "a/b/c"])
def test_a_file_in_its_place_is_told_before_anything_is_made(tmp_path: Path, name: str) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(StepFailed, match="/a` is not a directory") as caught:
        Directories(directories=(Directory(path=str(tmp_path / name)),)).apply(LocalHost({}), lambda _: None)
    assert (caught.value.hint or "").startswith("name another place with `--prefix`"), "nobody is told to move it"


def test_one_of_another_user_comes_with_the_command() -> None:
    host = FakeHost()
    host.variables["USER"] = "ada"
    host.paths["/data"] = info(is_directory=True, owner="root", writable=False)
    with pytest.raises(StepFailed, match=r"belongs to root \(mode 755\) and is not writable") as caught:
        Directories(directories=(Directory(path="/data"),)).apply(host, lambda _: None)
    assert caught.value.hint == "`sudo chown ada /data`, or name another place with `--prefix`"
    with pytest.raises(StepFailed, match="`/data` belongs to root") as caught:
        Directories(directories=(Directory(path="/data/a/b"),)).apply(host, lambda _: None)
    assert caught.value.hint == "`sudo install -d -o ada /data/a/b`, or name another place with `--prefix`"
