"""An inventory is code on the controller: what another user could write of it, or put beside it, is not read."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from provision.catalog.shipped import folder
from provision.cli import main
from provision.errors import UsageError
from provision.fleet.drive import Settings, Workshop

pytestmark = pytest.mark.usefixtures("real_machine")
KIND = "foreign inventory"
STRANGER = 54321


def sticky(base: Path) -> None:
    base.chmod(0o1777)


def open_variables(base: Path) -> None:
    (base / "group_vars").chmod(0o777)


def open_file(base: Path) -> None:
    (base / "host_vars" / "a.yml").chmod(0o666)


def another_inventory(base: Path) -> None:
    (base / "hosts.yml").chmod(0o662)


def strangers_variables(base: Path) -> None:
    os.chown(base / "group_vars" / "all.yml", STRANGER, STRANGER)


def strangers_link(base: Path) -> None:
    (base / "host_vars" / "b.yml").symlink_to("a.yml")
    os.chown(base / "host_vars" / "b.yml", STRANGER, STRANGER, follow_symlinks=False)


CHANGES = [
    sticky,
    open_variables,
    open_file,
    another_inventory,
    pytest.param(strangers_variables, marks=pytest.mark.attack),
    pytest.param(strangers_link, marks=pytest.mark.attack),
]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    there = tmp_path / "fleet"
    for name in ("group_vars", "host_vars"):
        (there / name).mkdir(parents=True)
    (there / "hosts.yml").write_text("all: {hosts: {a: {}}}\n")
    (there / "group_vars" / "all.yml").write_text("x: 1\n")
    (there / "host_vars" / "a.yml").write_text("x: 1\n")
    return there


@pytest.mark.tried(KIND, "an inventory, or `group_vars` beside it, that another user wrote or could: not read")
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("named", ["hosts.yml", ""])
def test_what_others_could_write_is_no_inventory(
    base: Path, tmp_path: Path, change: Callable[[Path], None], named: str
) -> None:
    pytest.importorskip("ansible_runner", reason="NOT RUN: ansible-runner is not installed")
    inventory = str(base / named)
    assert Workshop(Settings(inventory=inventory), tmp_path).hosts(None) == ("a",)
    change(base)
    with pytest.raises(UsageError, match="is not read") as caught:
        Workshop(Settings(inventory=inventory), tmp_path).hosts(None)
    assert caught.value.hint


@pytest.mark.tried(KIND, "a password file of a vault, which may be a program, that others could write: not run")
def test_nor_is_it_the_program_that_tells_a_password(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = base / "password"
    program.write_text(f"#!/bin/sh\ntouch {base}/ran\n")
    program.chmod(0o777)
    words = ["fleet", "status", "-i", str(base / "hosts.yml"), "--vault-password-file", str(program)]
    assert main(words) == UsageError.exit_status
    assert str(program) in capsys.readouterr().err
    assert not (base / "ran").exists()


def module() -> ModuleType:
    """What Ansible runs on a host."""
    path = folder("playbooks") / "roles/sgprov_host/library/sgprov.py"
    found = importlib.util.spec_from_file_location("sgprov_module", path)
    assert found and found.loader
    made = importlib.util.module_from_spec(found)
    found.loader.exec_module(made)
    return made


@pytest.mark.tried("shared machine", "the folder of a job is writable for a group of several users, the caller's own")
@pytest.mark.parametrize("whose", ["root's", "the caller's"])
def test_a_group_is_others_on_a_host_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whose: str) -> None:
    pytest.importorskip("ansible", reason="NOT RUN: ansible-core is not installed")
    ours = module()
    jobs = tmp_path / "jobs"
    jobs.mkdir(mode=0o700)
    (jobs / "job.json").write_text('{"pid": 4711}')
    assert ours.Job(str(jobs)).known == {"pid": 4711}
    jobs.chmod(0o770)
    if whose == "the caller's" and os.geteuid() == 0:
        os.chown(jobs, -1, 100)
        monkeypatch.setattr(os, "getegid", lambda: 100)
    with pytest.raises(ours.Foreign):
        _ = ours.Job(str(jobs)).known
    assert sys.modules.get("sgprov_module") is None


@pytest.mark.tried(
    "shared machine", "the program itself on a host, made beforehand by another user in a shared directory"
)
@pytest.mark.parametrize("where", ["bin", "versions/0123456789ab/bin/sgprov", "."])
def test_a_program_that_others_could_have_made_is_not_run(tmp_path: Path, where: str) -> None:
    pytest.importorskip("ansible", reason="NOT RUN: ansible-core is not installed")
    ours, tool = module(), tmp_path / "tool"
    program = tool / "versions/0123456789ab/bin/sgprov"
    program.parent.mkdir(parents=True)
    program.write_text("")
    (tool / "bin").mkdir()
    (tool / "bin/sgprov").symlink_to("../versions/0123456789ab/bin/sgprov")
    ours._refuse_foreign_program(str(tool / "bin/sgprov"))
    ours._refuse_foreign_program(str(tmp_path / "to be made/bin/sgprov"))
    (tool / where).chmod(0o777)
    with pytest.raises(ours.Foreign, match="can be written by other users"):
        ours._refuse_foreign_program(str(tool / "bin/sgprov"))
