"""Bytes that uv wrote, from /proc."""

from __future__ import annotations

import threading

from fakes import FakeHost

from provision.environments import watching

IO = "rchar: 12\nwchar: 3000\nsyscr: 1\nwrite_bytes: 4096\n"


def machine() -> FakeHost:
    return FakeHost(
        {
            "/proc/self/task/10/children": "11 12 ",
            "/proc/self/task/13/children": "",
            "/proc/11/comm": "uv\n",
            "/proc/11/io": IO,
            "/proc/12/comm": "git\n",
            "/proc/12/io": IO,
        }
    )


def test_only_uv_counts() -> None:
    assert watching.bytes_written(machine()) == 3000


def test_nothing_is_said_where_nothing_is_known() -> None:
    assert watching.bytes_written(FakeHost()) is None
    assert watching.parse_written("") is None


def test_it_tells_while_the_block_runs_and_not_after() -> None:
    heard: list[int] = []
    enough = threading.Event()

    def hear(count: int) -> None:
        heard.append(count)
        enough.set()

    with watching.watch(machine(), hear, period_s=0.001):
        assert enough.wait(5)
    count = len(heard)
    assert heard[0] == 3000 and not any(thread.name == "watch" for thread in threading.enumerate())
    assert len(heard) == count
