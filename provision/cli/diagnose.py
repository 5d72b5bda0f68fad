"""`sgprov diagnose`: the root cause in a log."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from provision import documents
from provision.catalog.load import Catalog
from provision.catalog.shipped import folder
from provision.cli import common, render
from provision.cli.output import Shown
from provision.errors import ProvisionError, UsageError
from provision.locks.lockfile import available, pins_of
from provision.serving import record

if TYPE_CHECKING:
    from rich.console import Console

    from provision.diagnosis.model import Diagnosis, Found

_SIGNS = {"error": ("✗", "red"), "warning": ("!", "yellow"), "info": ("·", "cyan")}


@click.command()
@click.argument("file", metavar="[FILE|-]", required=False)
@click.option("--stack", metavar="NAME", help="Compare the versions in the log with this stack's pins.")
@click.option("--explain", is_flag=True, help="Also say what alarming but harmless lines mean.")
@common.as_json
def diagnose(file: str | None, stack: str | None, *, explain: bool, as_json: bool) -> Shown:
    """Find the root cause in a log: of an engine, an installer, a container, Slurm or a driver.

    Reads FILE, or standard input, in one pass. The likeliest cause comes first; lines that only repeat that something
    failed come last. Exit 0 whatever the log says.
    """
    from provision.diagnosis.matcher import diagnose as match  # noqa: PLC0415  # a second of patterns

    pins = _pins(stack) if stack else None
    with _opened(file) as stream:
        found = match(stream, pins=pins, explain=explain or as_json)
    ending = _ending(file)
    return Shown(
        command="diagnose",
        data={"category": found.category, **found.to_builtins(), "ending": ending},
        text=lambda screen: _show(found, screen, ending=ending),
        ok=not found.findings and not ending,
    )


def _ending(file: str | None) -> str | None:
    """How the server ended whose log this is: what killed it may be in no log of its own. None where that is untold."""
    if file in {None, "-"}:
        return None
    path = Path(file or "").expanduser().absolute()
    try:
        known = record.load(common.local_host(), str(path.parent))
    except ProvisionError:
        return None
    if known is None or known.log != str(path) or not known.ending:
        return None
    return f"the server `{known.name}` failed{known.ending}"


@contextmanager
def _opened(file: str | None) -> Iterator[BinaryIO]:
    if file in {None, "-"}:
        if file is None and sys.stdin.isatty():
            raise UsageError("no log was named", hint="`sgprov diagnose FILE`, or `… | sgprov diagnose -`")
        yield sys.stdin.buffer
        return
    with documents.open_input(Path(file or "").expanduser()) as stream:
        yield stream


def _pins(stack: str) -> dict[str, str]:
    row = Catalog().stack(stack)
    locks = available(folder("lockfiles"), row.name)
    return pins_of(locks[-1]) if locks else {}


def _show(found: Diagnosis, screen: Console, *, ending: str | None = None) -> None:
    if ending:
        render.line(screen, _SIGNS["error"], " ", ending)
    elif not found.findings:
        screen.print(f"nothing known to be wrong in {found.lines_read} lines")
    for one in found.findings:
        _show_one(one, screen)
    if found.harmless:
        render.line(screen, ("harmless", "bold"))
        for one in found.harmless:
            screen.print(f"  · {one.signature.cause}")
            screen.print(f"      {one.lines[0].number}: {one.lines[0].text}", style="dim")


def _show_one(one: Found, screen: Console) -> None:
    row = one.signature
    sign, style = _SIGNS.get(row.severity, ("·", "cyan"))
    render.line(screen, (sign, style), " ", (row.id, "bold"), f" ({row.category}, confidence {row.confidence})")
    screen.print(f"  {row.cause}")
    for line in one.lines[:3]:
        screen.print(f"    {line.number}: {line.text}", style="dim")
    for fix in row.remedy:
        screen.print(f"  → {fix}", style="cyan")
