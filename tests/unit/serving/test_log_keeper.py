"""A log that grows while its server runs is kept within bounds, and its readers lose no line."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from provision.serving import log, log_keeper, processes


def written(path: Path, first: int, last: int) -> list[str]:
    lines = [f"line {number}" for number in range(first, last)]
    with path.open("a") as stream:
        stream.write("".join(f"{line}\n" for line in lines))
    return lines


def test_a_reader_that_lags_behind_a_rotation_gets_every_line_once(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    tail = log.Tail(str(path))
    expected = written(path, 0, 1000)
    seen = tail.lines()
    expected += written(path, 1000, 2000)
    log_keeper.rotate(str(path))
    assert path.stat().st_size == 0
    expected += written(path, 2000, 2100)
    seen += tail.lines()
    assert seen == expected
    for start in range(2100, 2400, 100):
        expected += written(path, start, start + 100)
        log_keeper.rotate(str(path))
        seen += tail.lines()
    assert seen + tail.remaining() == expected


def test_its_launch_and_its_end_can_be_read_after_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    lines = written(path, 0, 1000)
    log_keeper.rotate(str(path))
    written(path, 1000, 1003)
    assert log.last_lines(str(path), 5) == ("line 998", "line 999", "line 1000", "line 1001", "line 1002")
    assert log.Tail(log.launch_of(str(path))).lines() == lines
    log_keeper.rotate(str(path))
    assert log.Tail(log.launch_of(str(path))).lines() == lines, "that of the launch, not of the last part"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    written(path, 0, 10)
    precious = tmp_path / "precious"
    precious.write_text("precious")
    Path(f"{path}.earlier.new").symlink_to(precious)
    log_keeper.rotate(str(path))
    assert precious.read_text() == "precious"


@pytest.mark.usefixtures("real_machine")
def test_it_keeps_a_log_within_bounds_and_ends_with_its_server(tmp_path: Path) -> None:
    path, most = tmp_path / "server.log", 100_000
    code = "import sys, time\nfor n in range(400): print('x' * 999, flush=True); time.sleep(0.005)\ntime.sleep(60)"
    with path.open("ab") as stream, subprocess.Popen([sys.executable, "-c", code], stdout=stream) as writer:
        stat = processes.parse_stat(Path(f"/proc/{writer.pid}/stat").read_text())
        assert stat
        argv = [
            sys.executable,
            "-I",
            "-S",
            log_keeper.__file__,
            str(path),
            str(writer.pid),
            str(stat.started),
            str(most),
        ]
        with subprocess.Popen(argv) as keeper:
            deadline = time.monotonic() + 30
            while not Path(f"{path}.earlier").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            assert Path(f"{path}.earlier").exists() and keeper.poll() is None
            writer.kill()
            assert keeper.wait(10) == 0
    assert sum(one.stat().st_size for one in tmp_path.iterdir()) < 1_500_000
    assert "x" * 999 in log.last_lines(str(path), 1)[0]


@pytest.mark.usefixtures("real_machine")
def test_it_watches_nobody_who_only_has_the_pid_by_now(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    written(path, 0, 1000)
    log_keeper.keep(str(path), os.getpid(), "1", 10)
    assert not Path(f"{path}.earlier").exists()
