"""State of another type than it should be: an error that names it with a command that helps, or none; and then all is well."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from faults.boxes import Box

from provision import environments
from provision.environments import Receipt
from provision.errors import ProvisionError
from provision.steps import Step
from provision.steps.directories import Directories, Directory
from provision.steps.receipt import WriteReceipt
from provision.steps.switch import Switch

pytestmark = pytest.mark.fault
KIND = "state of another type"
# `*` stands for the one environment.
PLACES = (
    *("receipt.json", "receipts", "current", "previous", ".lock", "environments", "servers", "python"),
    *("environments/*/.sgprov/stamp.json", "environments/*/.sgprov/lock.txt", "environments/*/.sgprov"),
    *("environments/*/bin/python", "environments/*/pyvenv.cfg", "environments/*"),
)


def a_directory(path: Path) -> None:
    path.mkdir()
    (path / "inside").write_text("x")


def a_link(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def a_link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def a_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def garbage(path: Path) -> None:
    path.write_bytes(b"\xff\x00{[" * 10)


def deep_json(path: Path) -> None:
    path.write_text("[" * 100_000)


def another_json(path: Path) -> None:
    path.write_text('{"schema": "x", "time": 5, "name": ["a"]}')


KINDS = (*(a_directory, a_link, a_link_to_itself, a_dangling_link, a_pipe, garbage, deep_json, another_json),)


class Prefix:
    """A prefix and the steps of a bootstrap that install into it, with small wheels."""

    def __init__(self, folder: Path) -> None:
        self.box = Box(folder)
        self.path = Path(self.box.prefix)
        environment = self.box.step(self.box.lock(data=1000))
        receipt = Receipt(target="cpu", stack="engine-1", environment=environment.path.rsplit("/", 1)[-1])
        self.steps: tuple[Step, ...] = (
            Directories(
                directories=(
                    Directory(path=self.box.prefix),
                    Directory(path=f"{self.path}/servers", mode=0o700, ours=True),
                )
            ),
            environment,
            Switch(prefix=self.box.prefix, path=environment.path),
            WriteReceipt(prefix=self.box.prefix, receipt=receipt, smoke=None),
        )

    def bootstrap(self) -> bool:
        """Whether anything was changed."""
        changed = False
        for step in self.steps:
            if not step.satisfied(self.box.host):
                step.apply(self.box.host, lambda _: None)
                changed = True
        return changed

    def refusal(self) -> ProvisionError | None:
        """Why another bootstrap ends, None where it does what it should."""
        try:
            self.bootstrap()
            environments.list_environments(self.box.host, self.box.prefix)
        except ProvisionError as error:
            return error
        return None


@pytest.fixture
def prefix(tmp_path: Path) -> Prefix:
    made = Prefix(tmp_path)
    assert made.bootstrap() and not made.bootstrap()
    return made


def remedies(error: ProvisionError) -> list[str]:
    """The commands of a hint that are about a file."""
    return [one for one in re.findall(r"`([^`]+)`", error.hint or "") if one.split()[0] in {"rm", "mv", "chmod"}]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.tried(KIND, "Each piece of state as a directory, link, pipe, garbage: mended, or named with what mends it")
def test_it_is_mended_or_named(prefix: Prefix, place: str, kind: Callable[[Path], None]) -> None:
    path = next(iter(prefix.path.glob(place)), prefix.path / place)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    kind(path)
    for _ in range(3):
        if (error := prefix.refusal()) is None:
            break
        helps = remedies(error)
        assert str(path) in f"{error} {error.hint}" and helps, (str(error), error.hint)
        subprocess.run(["/bin/sh", "-c", helps[0]], check=True)
    assert not prefix.bootstrap()
    found = environments.list_environments(prefix.box.host, prefix.box.prefix)
    # What was moved aside may be a link that leads to what took its place.
    assert [one.current for one in found if one.stamp and not Path(one.path).is_symlink()] == [True]
    assert environments.read_receipt(prefix.box.host, prefix.box.prefix) is not None


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '["a"]', "\x00"])
@pytest.mark.tried(KIND, "A damaged result of the smoke test: the receipt is written without it")
def test_a_damaged_result_keeps_no_receipt_from_being_written(prefix: Prefix, text: str) -> None:
    (prefix.path / "smoke.json").write_text(text)
    (prefix.path / "receipt.json").unlink()
    write = prefix.steps[-1]
    assert isinstance(write, WriteReceipt)
    replace(write, smoke=str(prefix.path / "smoke.json")).apply(prefix.box.host, lambda _: None)
    written = environments.read_receipt(prefix.box.host, prefix.box.prefix)
    assert written is not None and written.smoke == {}
