"""Which processes are a server's: on a machine of which only /proc is known."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import Any

import pytest

from provision.serving import processes

ID = "0123abcd"


class Machine:
    """A /proc: pid -> (parent, session, ticks at start, state, environment)."""

    def __init__(self, rows: dict[int, tuple[int, int, int, str, str]]) -> None:
        self._files = {}
        for pid, (parent, session, started, state, environment) in rows.items():
            fields = [state, parent, session, session, *[0] * 15, started]
            self._files[f"/proc/{pid}/stat"] = f"{pid} (a (b) c) {' '.join(map(str, fields))} 0 0\n"
            self._files[f"/proc/{pid}/environ"] = environment

    def read(self, path: str) -> str | None:
        return self._files.get(path)

    def glob(self, pattern: str) -> tuple[str, ...]:
        return tuple(path for path in self._files if fnmatch(path, pattern))


def tree(rows: dict[int, tuple[int, int, int, str, str]], *, pid: int | None = 900, started: int = 500) -> list[int]:
    machine: Any = Machine(rows)
    return [process.pid for process in processes.tree(machine, pid=pid, started=started, marker=ID)]


MARKED = f"PATH=/bin\0SGPROV_SERVER={ID}\0"
LEADER = (1, 900, 500, "S", MARKED)


def test_workers_that_wrote_a_title_over_their_environment_are_found_by_their_session() -> None:
    assert tree({900: LEADER, 901: (900, 900, 600, "R", "\0\0\0")}) == [900, 901]


def test_a_child_in_a_session_of_its_own_is_found_by_its_parent_and_its_marker() -> None:
    assert tree({900: LEADER, 901: (900, 901, 600, "S", ""), 902: (901, 901, 600, "S", "")}) == [900, 901, 902]
    assert tree({900: LEADER, 905: (1, 905, 600, "S", MARKED)}) == [900, 905]


def test_orphans_are_found_after_their_parent_is_gone() -> None:
    rows = {901: (1, 900, 600, "S", "\0\0"), 902: (1, 900, 600, "S", MARKED), 903: (902, 903, 700, "S", "")}
    assert tree(rows) == [901, 902, 903]


def test_a_pid_that_was_used_again_is_a_stranger() -> None:
    assert tree({900: (1, 900, 800, "S", "PATH=/bin\0"), 901: (900, 900, 801, "S", "PATH=/bin\0")}) == []


def test_zombies_and_other_servers_are_not_ours() -> None:
    other = "SGPROV_SERVER=ffff\0"
    assert tree({900: LEADER, 901: (900, 900, 600, "Z", ""), 950: (1, 950, 700, "S", other)}) == [900]


def test_a_start_that_was_interrupted_before_its_pid_was_written_is_found_by_its_marker() -> None:
    assert tree({900: LEADER, 901: (900, 900, 600, "S", "")}, pid=None, started=0) == [900, 901]


@pytest.mark.parametrize("text", ["", "4711", "4711 (python) S 1"])
def test_half_a_stat_is_none(text: str) -> None:
    assert processes.parse_stat(text) is None


def test_a_zombie_whose_thread_still_runs_is_alive() -> None:
    """A worker's first thread ends before the one that gives back the GPU's memory."""
    stat = "4711 (sglang::schedul) {state} 1 4711 4711 0 -1 4 0 0 0 0 0 0 0 0 20 0 {threads} 0 9000 0 0"
    gone, leaving = (processes.parse_stat(stat.format(state="Z", threads=threads)) for threads in (1, 2))
    assert gone is not None
    assert leaving is not None
    assert (gone.alive, leaving.alive) == (False, True)
