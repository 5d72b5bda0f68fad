"""What a running plan shows, on a terminal and in a log."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from provision import bootstrap
from provision.cli import progress, render
from provision.cli.progress import Work
from provision.config import Options
from provision.host.folder import FolderHost
from provision.steps import Progress

HOSTS = Path(__file__).parents[1] / "hosts"

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
