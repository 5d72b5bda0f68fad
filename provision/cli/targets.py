"""`sgprov targets`: what there is to ask for, and what fits here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from provision import bootstrap
from provision.cli import common, render
from provision.cli.output import Shown
from provision.config import Options
from provision.decision import Fit, weigh_targets

if TYPE_CHECKING:
    from rich.console import Console


@click.command()
@click.argument("name", required=False)
@common.replayed
@common.as_json
def targets(name: str | None, folder: str | None, *, as_json: bool) -> Shown:
    """List the targets, and say which of them fit this machine and why the others do not."""
    del as_json
    asked = bootstrap.question(common.view(folder), Options(target=name))
    fits = tuple(fit for fit in weigh_targets(asked) if name in {None, fit.target.name})
    return Shown(
        command="targets",
        data={"targets": [_row(fit) for fit in fits]},
        text=lambda screen: _show(fits, screen, whole=name is not None),
    )


def _row(fit: Fit) -> dict[str, Any]:
    return {
        "name": fit.target.name,
        "summary": fit.target.summary,
        "fits": fit.fits,
        "stack": fit.chosen.name if fit.chosen else None,
        "why_not": list(fit.why_not) if not fit.fits else [],
        "python": fit.target.python,
        "compute_capabilities": list(fit.target.compute_capabilities),
        "notes": list(fit.target.notes),
        "source": fit.target.source,
    }


def _show(fits: tuple[Fit, ...], screen: Console, *, whole: bool) -> None:
    for fit in fits:
        sign = ("✓", "green") if fit.fits else ("✗", "dim")
        render.line(screen, sign, " ", (f"{fit.target.name:<18}", "bold"), fit.target.summary)
        reasons = (f"takes {fit.chosen.name}",) if fit.chosen else fit.why_not
        for reason in reasons if whole else reasons[:1]:
            render.line(screen, (f"    {reason}", "dim"), indent=6)
        if whole:
            _show_row(fit, screen)


def _show_row(fit: Fit, screen: Console) -> None:
    target = fit.target
    if fit.chosen:
        for reason in fit.chosen.reasons:
            render.line(screen, (f"    {reason}", "dim"), indent=6)
    rows = [
        ("stacks", ", ".join([*target.stacks, *target.images])),
        ("python", target.python or "any that the stack has wheels for"),
        ("prefix", target.layout.prefix),
        ("models", target.layout.models),
        ("model", target.serve.model or "name one with --model"),
        ("address", f"{target.serve.host}:{target.serve.port}"),
        ("source", target.source),
        *(("note", note) for note in target.notes),
    ]
    for name, value in rows:
        render.line(screen, (f"    {name:<8}", "bold"), value, indent=12)
