"""What a running plan shows, on a terminal and in a log."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path

import pytest

from provision import bootstrap
from provision.cli import main, progress, render
from provision.cli.progress import Work
from provision.cli.screen import Screen
from provision.config import Options
from provision.host.folder import FolderHost
from provision.report import Status, StepResult
from provision.steps import Progress

HOSTS = Path(__file__).parents[1] / "hosts"

NAMED = Progress(text="stopping: port 30000 is taken by pid 4711, user ada: `x`", milestone=True, stays=True)


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, *, width: int = 80) -> StringIO:
    """What is printed from now on, on a terminal of that width."""
    written = StringIO()
    screen = Screen(file=written, force_terminal=True, color_system=None, width=width)
    monkeypatch.setattr(render, "console", lambda **_: screen)
    return written


def test_whoever_is_stopped_is_named_on_a_line_that_stays(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run() -> None:
        with progress.watching(as_json=False) as watcher:
            watcher.started(Work("port"))
            watcher.progress(Work("port"), NAMED)
            watcher.progress(Work("port"), Progress(text="passing the time"))

    run()
    assert capsys.readouterr().out == f"port: {NAMED.text}\n"
    written = on_a_terminal(monkeypatch, width=120)
    run()
    assert f"· port          {NAMED.text}" in written.getvalue()


def test_what_will_be_fetched_stands_under_what_was_decided(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = bootstrap.make_plan(FolderHost(HOSTS / "bare-no-gpu"), Options(target="cpu"))

    def run() -> None:
        with progress.watching(as_json=False) as watcher:
            watcher.decided(made, "4.3 GB to download")

    run()
    assert capsys.readouterr().out.splitlines()[1] == "4.3 GB to download"
    written = on_a_terminal(monkeypatch)
    run()
    assert "4.3 GB to download" in written.getvalue()


def test_a_step_is_folded_at_words_on_a_terminal_and_whole_in_a_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    note = "install the 201 wheels into `/srv/a/rather/long/path` with `uv pip sync --require-hashes` and its driver"
    result = StepResult(step="environment", status=Status.DONE, note=note)

    def run() -> None:
        with progress.watching(as_json=False) as watcher:
            watcher.ended(Work("environment"), result)

    run()
    assert capsys.readouterr().out == f"environment: done: {note} (0.0 s)\n"
    written = on_a_terminal(monkeypatch, width=60)
    run()
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", written.getvalue()).splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("✓ environment"))
    assert lines[first] == "✓ environment   done          install the 201 wheels into"
    assert lines[first + 1 : first + 3] == [
        "    `/srv/a/rather/long/path` with",
        "    `uv pip sync --require-hashes` and its driver",
    ], "words and commands whole, behind a hanging indent"


def test_a_step_that_failed_says_so_in_its_own_line(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.watching(as_json=False) as watcher:
        failed = StepResult(step="server", status=Status.FAILED, error="it ended:\n  last words")
        watcher.ended(Work("server"), failed)
    assert capsys.readouterr().out == "server: failed: it ended\n"


@pytest.mark.parametrize("width", [80, 160])
def test_no_command_breaks_a_word_on_a_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    written = on_a_terminal(monkeypatch, width=width)
    for command in (("plan", "--target", "h100"), ("targets", "a100"), ("doctor",), ("facts",)):
        main([*command, "--host", str(HOSTS / "h100x8")])
    lines = written.getvalue().splitlines()
    assert len(lines) > 50
    for line in lines:
        # What cannot be broken is alone on its line.
        assert len(line) <= min(width, 120) or " " not in line.strip().strip("`"), line
