"""A fleet on the terminal: a line a host at any width, and what was cut short in full below."""

from __future__ import annotations

import io

import pytest

from provision.cli import fleet_table
from provision.cli.screen import Screen
from provision.fleet import answers
from provision.fleet.answers import Machine
from provision.fleet.grouping import group
from provision.fleet.model import FleetReport, HostState, State

LONG = "environment: `uv pip sync` exited 2, because the disk at /opt/sgprov is full and nothing more can be written\nhint: free some space"
HOSTS = (
    HostState(
        name="spark-1.a-long-name.lab.example.org",
        state=State.WORKING,
        step="environment",
        progress="installing 207 wheels (3.19 GB)",
        seconds=12.4,
        machine=Machine(gpus=["NVIDIA GB10"], driver="580.95"),
    ),
    HostState(name="a100-1", state=State.FAILED, step="environment", finding=LONG, seconds=3.0),
    HostState(name="down", state=State.UNREACHABLE, step="asking", finding="No route to host"),
    HostState(name="next", state=State.NOT_REACHED, report=answers.report({"stack": "sglang-0.5.23"})),
    HostState(
        name="good", state=State.OK, seconds=101.0, report=answers.report({"endpoint": "http://127.0.0.1:30000/v1"})
    ),
    HostState(name="idle", state=State.OK, report=answers.report({"servers": []})),
)


def shown(width: int) -> list[str]:
    screen = Screen(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    report = FleetReport(command="bootstrap", hosts=HOSTS, groups=group(HOSTS), seconds=103.2)
    fleet_table.show(report, screen)
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 100, 160])
def test_a_line_a_host_and_none_wider_than_the_screen(width: int) -> None:
    lines = shown(width)
    assert all(len(line) <= width for line in lines), max(lines, key=len)
    starts = [line.split()[0] for line in lines[1 : len(HOSTS) + 1]]
    assert starts[1:] == ["a100-1", "down", "next", "good", "idle"]
    assert all(host.state.value in line for host, line in zip(HOSTS, lines[1:], strict=False)), "states are never cut"
    assert "http://127.0.0.1" in lines[5] and "no server" in lines[6] and "to get sglang-0.5.23" in lines[4]
    assert "nothing to do" not in lines[4], "a host that was not reached has not been looked after"


def test_what_failed_is_told_in_full() -> None:
    text = " ".join(" ".join(shown(80)).split())
    assert f"a100-1: {' '.join(LONG.split())}" in text
    assert "down: No route to host" in text


def test_a_wide_screen_has_all_columns_that_say_something() -> None:
    assert shown(160)[0].split() == ["host", "state", "GPU", "step", "time", "progress", "finding"]
    assert shown(80)[0].split() == ["host", "state", "GPU", "time", "finding"]
    assert "environment: install" in shown(80)[1]


def test_time_is_a_hosts_own_work() -> None:
    host = HostState(name="one")
    host.clock(100.0, working=True)
    assert host.seconds_at(102.5) == 2.5, "it goes on where nothing happens"
    host.clock(103.0, working=False)
    assert host.seconds_at(900.0) == 3.0, "waiting for others does not count"
    host.clock(900.0, working=True)
    host.clock(901.0, working=False)
    assert host.seconds == 4.0
