"""What a running plan shows, on a terminal and in a log."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from provision.cli import progress, render
from provision.cli.progress import Work
from provision.steps import Progress

NAMED = Progress(text="stopping: port 30000 is taken by pid 4711, user ada: `x`", milestone=True, stays=True)


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, *, width: int = 80) -> StringIO:
    """What is printed from now on, on a terminal of that width."""
    written = StringIO()
    screen = Console(file=written, force_terminal=True, color_system=None, highlight=False, width=width)
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
