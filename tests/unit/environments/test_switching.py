"""Two links say what is in use; real ones, because replacing them in one step is the point."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from provision.environments import (
    Receipt,
    collect_garbage,
    current,
    previous,
    read_receipt,
    rollback,
    switch,
    write_receipt,
)
from provision.environments.layout import Stamp
from provision.errors import StepFailed
from provision.host import Process
from provision.host.local import LocalHost


class Quiet(LocalHost):
    """This machine, with processes of our choice."""

    running: tuple[Process, ...] = ()
    maps: dict[int, str]

    def __init__(self) -> None:
        super().__init__({})
        self.maps = {}

    def processes(self) -> tuple[Process, ...]:
        return self.running

    def read(self, path: str) -> str | None:
        if path.startswith("/proc/"):
            return self.maps.get(int(path.split("/")[2]))
        return super().read(path)


def process(command: str) -> Process:
    return Process(pid=7, parent=1, name="python", command=command, user="me", started=0.0)


def make(prefix: Path, name: str, day: int = 1) -> str:
    folder = prefix / "environments" / name / ".sgprov"
    folder.mkdir(parents=True)
    whole = Stamp(
        name=name, lock="l", lock_digest="d", python="3.10.13", interpreter="p", sgprov="0", time=f"2026-01-{day:02}"
    )
    (folder / "stamp.json").write_bytes(msgspec.json.encode(whole))
    return str(folder.parent)


def test_switch_keeps_the_one_before_and_rollback_goes_back_and_forth(tmp_path: Path) -> None:
    host, prefix = Quiet(), str(tmp_path)
    a, b = make(tmp_path, "a"), make(tmp_path, "b")
    switch(host, prefix, a)
    assert (current(host, prefix), previous(host, prefix)) == (a, None)
    switch(host, prefix, b)
    switch(host, prefix, b)
    assert (current(host, prefix), previous(host, prefix)) == (b, a)
    assert rollback(host, prefix) == a
    assert (current(host, prefix), previous(host, prefix)) == (a, b)
    assert rollback(host, prefix) == b
    assert (tmp_path / "current").readlink() == Path("environments/b")


def test_after_a_rollback_the_receipt_says_what_is_in_use_and_what_was_left(tmp_path: Path) -> None:
    host, prefix = Quiet(), str(tmp_path)
    for day, name in enumerate("ab", start=1):
        switch(host, prefix, make(tmp_path, name))
        receipt = Receipt(target="cpu", stack=f"stack-{name}", environment=name, port=30000 + day, smoke={"c": {}})
        (tmp_path / "receipts").mkdir(exist_ok=True)
        stamped = msgspec.structs.replace(receipt, time=f"2026-01-0{day}T00:00:00Z")
        for path in (f"receipts/2026-01-0{day}.json", "receipt.json"):
            (tmp_path / path).write_bytes(msgspec.json.encode(stamped))
    rollback(host, prefix)
    now = read_receipt(host, prefix)
    assert now is not None
    assert (now.environment, now.stack, now.port, now.rolled_back_from) == ("a", "stack-a", 30001, "b")
    assert now.smoke == {}, "what is in use now was not tested now"
    rollback(host, prefix)
    again = read_receipt(host, prefix)
    assert again is not None and (again.environment, again.rolled_back_from) == ("b", "a")


def test_a_rollback_to_an_environment_without_a_receipt_tells_what_its_stamp_says(tmp_path: Path) -> None:
    host, prefix = Quiet(), str(tmp_path)
    switch(host, prefix, make(tmp_path, "a"))
    switch(host, prefix, make(tmp_path, "b"))
    write_receipt(host, prefix, Receipt(target="cpu", environment="b"))
    rollback(host, prefix)
    now = read_receipt(host, prefix)
    assert now is not None and (now.environment, now.python, now.rolled_back_from) == ("a", "3.10", "b")


def test_what_is_not_whole_is_never_in_use(tmp_path: Path) -> None:
    host, prefix = Quiet(), str(tmp_path)
    a, b = make(tmp_path, "a"), make(tmp_path, "b")
    switch(host, prefix, a)
    (tmp_path / "environments/b/.sgprov/stamp.json").unlink()
    with pytest.raises(StepFailed, match="not a complete environment"):
        switch(host, prefix, b)
    assert current(host, prefix) == a


def test_rollback_without_an_earlier_one(tmp_path: Path) -> None:
    host, prefix = Quiet(), str(tmp_path)
    with pytest.raises(StepFailed, match="no earlier environment"):
        rollback(host, prefix)
    switch(host, prefix, make(tmp_path, "a"))
    with pytest.raises(StepFailed, match="no earlier environment"):
        rollback(host, prefix)


def test_interrupted_between_the_two_links_the_old_one_stays_in_use(tmp_path: Path) -> None:
    class Dies(Quiet):
        def link(self, path: str, target: str) -> None:
            if path.endswith("/current") and self.armed:
                raise KeyboardInterrupt
            super().link(path, target)

        armed = False

    host, prefix = Dies(), str(tmp_path)
    a, b = make(tmp_path, "a"), make(tmp_path, "b")
    switch(host, prefix, a)
    host.armed = True
    with pytest.raises(KeyboardInterrupt):
        switch(host, prefix, b)
    assert current(host, prefix) == a
    host.armed = False
    switch(host, prefix, b)
    assert (current(host, prefix), previous(host, prefix)) == (b, a)


def test_garbage_is_what_nothing_needs(tmp_path: Path) -> None:
    host, prefix = Quiet(), str(tmp_path)
    a, b, c, d, e = (make(tmp_path, name, day) for day, name in enumerate("abcde", start=1))
    switch(host, prefix, a)
    switch(host, prefix, b)
    host.running = (process(f"{c}/bin/python -m sglang.launch_server"),)
    assert collect_garbage(host, prefix, keep=4) == (d,)
    assert collect_garbage(host, prefix) == (e,)
    assert sorted(path.name for path in (tmp_path / "environments").iterdir()) == ["a", "b", "c"]
    assert (current(host, prefix), previous(host, prefix)) == (b, a)


def test_garbage_spares_what_a_server_that_was_started_through_the_link_has_mapped(tmp_path: Path) -> None:
    host, prefix = Quiet(), str(tmp_path)
    old, middle, new = (make(tmp_path, name, day) for day, name in enumerate(("x", "y", "z"), start=1))
    switch(host, prefix, middle)
    switch(host, prefix, new)
    host.running = (process(f"{prefix}/current/bin/python -m sglang.launch_server"),)
    host.maps = {7: f"7f00-7f01 r-xp 0 08:01 1 {old}/lib/python3.10/site-packages/torch/lib/libtorch.so"}
    assert collect_garbage(host, prefix) == ()
    # Another user's process does not show what it has mapped: nothing is removed under it.
    host.maps = {}
    assert collect_garbage(host, prefix) == ()
    host.maps = {7: "7f00-7f01 r-xp 0 08:01 1 /usr/lib/libc.so.6"}
    assert collect_garbage(host, prefix) == (old,)
