"""A fleet on the terminal: a live table, or a line for each thing that happens where there is no terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from provision.cli import render
from provision.fleet import page
from provision.fleet.grouping import drift, sentence
from provision.fleet.model import FleetReport, HostState, State
from provision.fleet.run import Watcher

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
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


@contextmanager
def watching(*, as_json: bool) -> Iterator[Watcher]:
    """A watcher that fits where the output goes; with `--json` people's text goes to stderr."""
    screen = render.console(error=as_json)
    if not screen.is_terminal:
        yield _Plain(error=as_json)
        return
    from rich.live import Live  # noqa: PLC0415  # only on a terminal

    with Live(console=screen, refresh_per_second=4, transient=True) as live:
        yield _Table(live)


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
    def __init__(self, live: Live) -> None:
        self._live = live
        self._hosts: Sequence[HostState] = ()

    def hosts(self, hosts: Sequence[HostState]) -> None:
        self._hosts = hosts
        self.changed(hosts[0])

    def changed(self, host: HostState) -> None:
        del host
        self._live.update(_table(self._hosts))

    def say(self, text: str) -> None:
        self._live.console.print(text, markup=False)


def show(report: FleetReport, screen: Console) -> None:
    """The table, what is alike and what differs, and the sum."""
    screen.print(_table(report.hosts))
    if text := sentence(report.groups):
        screen.print(text, markup=False)
    for name, values in drift(report.groups).items():
        counted = ", ".join(f"{count} x {value}" for value, count in values.items())
        screen.print(f"  {name}: {counted}", markup=False, style="dim")
    if report.wheels:
        fetched, sent = report.wheels["fetched_bytes"] / 1e6, report.wheels.get("sent_bytes", 0) / 1e6
        screen.print(f"wheels: {fetched:.1f} MB from the index, {sent:.1f} MB handed on over SSH", markup=False)
    screen.print(page.summary(report), markup=False, style="green" if report.ok else "bold red")
    if not report.ok and report.command == "bootstrap":
        screen.print("once it is mended: the same command with `--failed`", markup=False, style="cyan")


def data(report: FleetReport) -> dict[str, Any]:
    """The report as plain data, but for `schema`, `ok` and `changed`."""
    return {
        "exit_status": report.exit_status,
        "seconds": round(report.seconds, 3),
        "dry_run": report.dry_run,
        "stopped": report.stopped,
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
                "machine": host.machine,
                "report": host.report,
            }
            for host in report.hosts
        ],
    }


def _table(hosts: Sequence[HostState]) -> Table:
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    for name in ("host", "state", "GPU", "step", "progress", "time", "finding"):
        table.add_column(name, no_wrap=name in {"host", "state", "time"}, overflow="fold")
    order = {State.FAILED: 0, State.UNREACHABLE: 1, State.WORKING: 2}
    shown = hosts if len(hosts) <= _MOST_ROWS else sorted(hosts, key=lambda host: order.get(host.state, 9))
    for host in shown[:_MOST_ROWS]:
        style = _STYLES[host.state]
        table.add_row(
            escape(host.name),
            f"[{style}]{host.state.value}[/]",
            escape(host.gpu),
            escape(host.step),
            escape(host.progress),
            f"{host.seconds:.0f} s",
            escape(page.finding(host)),
        )
    if len(hosts) > _MOST_ROWS:
        table.add_row(f"and {len(hosts) - _MOST_ROWS} more", "", "", "", "", "", "")
    return table
