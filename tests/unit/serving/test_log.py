"""Reading a log while it grows."""

from __future__ import annotations

from pathlib import Path

from provision.host.local import LocalHost
from provision.serving import log


def test_lines_arrive_once_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    tail = log.Tail(str(path))
    assert tail.lines() == []
    path.write_bytes(b"one\ntw")
    assert tail.lines() == ["one"]
    with path.open("ab") as stream:
        stream.write(b"o\n\x1b[1;33mthree\x1b[0m\n")
    assert tail.lines() == ["two", "three"]
    assert tail.lines() == []


def test_a_progress_bar_is_read_as_it_moves(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    path.write_bytes(b"\r 10%|# |\r 20%|## |")
    tail = log.Tail(str(path))
    assert tail.lines() == [" 10%|# |"]
    assert tail.remaining() == [" 20%|## |"]


def test_a_log_that_was_replaced_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    path.write_text("a long first line\n")
    tail = log.Tail(str(path))
    tail.lines()
    path.write_text("new\n")
    assert tail.lines() == ["new"]


def test_the_end_of_a_log_has_no_credentials_and_no_progress_bars(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    path.write_text("".join(f"line {n}\n" for n in range(30)) + " 50%|##|\nserver_args={'api_key': 's3cret-value'}\n")
    last = log.last_lines(str(path))
    assert len(last) == 15 and last[0] == "line 16"
    assert "s3cret" not in last[-1] and "api_key" in last[-1]
    assert log.last_lines(str(tmp_path / "none")) == ()


def test_the_previous_log_is_kept(tmp_path: Path) -> None:
    path, host = tmp_path / "server.log", LocalHost({})
    for text in ("first", "second"):
        path.write_text(text)
        log.prepare(host, str(path))
        assert path.read_text() == text, "made beside it"
        log.begin(host, str(path))
    assert path.read_text() == "" and (tmp_path / "server.log.1").read_text() == "second"
