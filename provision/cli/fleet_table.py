"""A fleet on the terminal: a live table, or a line for each thing that happens where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from provision.cli import render
from provision.fleet import page
from provision.fleet.grouping import drift, sentence
from provision.fleet.model import FleetReport, HostState, State
from provision.fleet.run import Watcher

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_STYLES = {
    State.OK: "green",
    State.FAILED: "red",
    State.UNREACHABLE: "yellow",
    State.NOT_REACHED: "yellow",
    State.WORKING: "cyan",
    State.WAITING: "dim",
}
# A thousand rows are no table: those that are of interest are shown.
_MOST_ROWS = 40
# From here on a screen has room for all columns; a pipe has it always.
_WIDE = 120
_NO_TERMINAL = 200
_NARROW_COLUMNS = {"host": 16, "GPU": 12}
_WIDE_COLUMNS = {"host": 32, "GPU": 24, "step": 17, "progress": 40}


@contextmanager
def watching(*, as_json: bool) -> Iterator[Watcher]:
    """A watcher that fits where the output goes; with `--json` people's text goes to stderr."""
    screen = render.console(error=as_json)
    if not screen.is_terminal:
        yield _Plain(error=as_json)
        return
    from rich.live import Live  # noqa: PLC0415  # only on a terminal

    table = _Table(screen)
    # Drawn anew by itself: the times go on where nothing happens.
    with Live(get_renderable=table.draw, console=screen, refresh_per_second=4, transient=True):
        yield table


class _Plain(Watcher):
    def __init__(self, *, error: bool) -> None:
        self._error = error
        self._told: dict[str, tuple[State, str]] = {}

    def changed(self, host: HostState) -> None:
        now = (host.state, host.step)
        if self._told.get(host.name) != now:
            self._told[host.name] = now
            text = host.finding if host.state in {State.FAILED, State.UNREACHABLE} else host.progress
            render.print_line(f"{host.name}: {host.state.value} {host.step} {text}".rstrip(), error=self._error)

    def say(self, text: str) -> None:
        render.print_line(text, error=self._error)


class _Table(Watcher):
    def __init__(self, screen: Console) -> None:
        self._screen = screen
        self._hosts: Sequence[HostState] = ()

    def hosts(self, hosts: Sequence[HostState]) -> None:
        self._hosts = hosts

    def say(self, text: str) -> None:
        self._screen.print(text)

    def draw(self) -> Table | str:
        return _table(self._hosts, self._screen.width) if self._hosts else ""


def show(report: FleetReport, screen: Console) -> None:
    """The table, what failed in full, what is alike and what differs, and the sum."""
    # Where nobody's terminal is, lines stay whole.
    whole = not screen.is_terminal

    def tell(text: str, style: str | None = None) -> None:
        screen.print(text, style=style, soft_wrap=whole)

    if whole:
        screen.width = _NO_TERMINAL
    screen.print(_table(report.hosts, screen.width))
    for line, style in _in_full(report):
        tell(line, style)
    if text := sentence(report.groups):
        tell(text)
    for name, values in drift(report.groups).items():
        tell(f"  {name}: " + ", ".join(f"{value} ({count})" for value, count in values.items()), "dim")
    if report.wheels:
        fetched, sent = report.wheels["fetched_bytes"] / 1e6, report.wheels.get("sent_bytes", 0) / 1e6
        tell(f"wheels: {fetched:.1f} MB from the index, {sent:.1f} MB handed on over SSH")
    for text in report.unkept:
        tell(f"warning: {text}", "yellow")
    tell(page.summary(report), "green" if report.ok else "bold red")
    if not report.ok and report.command == "bootstrap":
        tell("once it is mended: the same command with `--failed`", "cyan")


def _in_full(report: FleetReport) -> Iterator[tuple[str, str | None]]:
    """What failed; and, once for all hosts, what those with nothing wrong have to say besides their line."""
    bad = [host for host in report.hosts if host.state in {State.FAILED, State.UNREACHABLE} and host.finding]
    for host in bad[:_MOST_ROWS]:
        first, *rest = page.finding(host).splitlines()
        yield f"{host.name}: {first}", _STYLES[host.state]
        yield from ((f"  {line}", None) for line in rest)
    hints = (line for host in report.hosts if host.state is State.OK for line in host.finding.splitlines()[1:])
    yield from ((hint, "cyan") for hint in dict.fromkeys(hints))


def data(report: FleetReport) -> dict[str, Any]:
    """The report as plain data, but for `schema`, `ok` and `changed`."""
    return {
        "exit_status": report.exit_status,
        "seconds": round(report.seconds, 3),
        "dry_run": report.dry_run,
        "stopped": report.stopped,
        "unkept": list(report.unkept),
        "summary": page.summary(report),
        "groups": msgspec.to_builtins(report.groups),
        "alike": sentence(report.groups),
        "drift": drift(report.groups),
        "wheels": report.wheels,
        "hosts": [
            {
                "host": host.name,
                "state": host.state.value,
                "changed": host.changed,
                "gpu": host.gpu,
                "seconds": round(host.seconds, 3),
                "finding": page.finding(host),
                "exit_status": host.exit_status,
                "machine": msgspec.to_builtins(host.machine) or {},
                "report": host.report.whole if host.report else {},
            }
            for host in report.hosts
        ],
    }


def _table(hosts: Sequence[HostState], width: int) -> Table:
    """A line a host, as wide as the screen: what is cut short is told in full below the table once all is over."""
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    order = {State.FAILED: 0, State.UNREACHABLE: 1, State.WORKING: 2}
    shown = hosts if len(hosts) <= _MOST_ROWS else sorted(hosts, key=lambda host: order.get(host.state, 9))
    shown = shown[:_MOST_ROWS]
    rows = [_row(host, narrow=width < _WIDE) for host in shown]
    # A column that has nothing to say takes no room.
    names = [name for name in rows[0] if name in {"host", "state", "finding"} or any(row[name] for row in rows)]
    table = Table(box=None, pad_edge=False, expand=True)
    widest = _NARROW_COLUMNS if width < _WIDE else _WIDE_COLUMNS
    for name in names:
        needed = max(len(name), *(len(row[name]) for row in rows))
        fixed = None if name == "finding" else min(needed, widest.get(name, needed))
        justify: Literal["left", "right"] = "right" if name == "time" else "left"
        table.add_column(
            name, no_wrap=True, overflow="ellipsis", width=fixed, ratio=None if fixed else 1, justify=justify
        )
    for host, row in zip(shown, rows, strict=True):
        cells: dict[str, str | Text] = {name: row[name] for name in names}
        cells["state"] = Text(row["state"], style=_STYLES[host.state])
        table.add_row(*cells.values())
    if len(hosts) > _MOST_ROWS:
        table.add_row(f"and {len(hosts) - _MOST_ROWS} more", *("" for _ in names[1:]))
    return table


def _row(host: HostState, *, narrow: bool) -> dict[str, str]:
    """On a narrow screen step, progress and finding share a column: a host that works has the first two to say, one
    that is done the last.
    """
    working = host.state is State.WORKING
    seconds = host.seconds_at(time.monotonic())
    finding = next(iter(page.finding(host).splitlines()), "")
    row = {
        "host": host.name,
        "state": host.state.value,
        "GPU": host.gpu.replace("NVIDIA ", ""),
        "step": "" if host.state in {State.OK, State.WAITING} else host.step,
        "time": f"{seconds:.0f} s" if seconds else "",
        "progress": host.progress if working else "",
        "finding": finding,
    }
    if narrow:
        if working:
            row["finding"] = ": ".join(part for part in (row["step"], row["progress"]) if part)
        del row["step"], row["progress"]
    return row
