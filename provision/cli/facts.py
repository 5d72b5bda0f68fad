"""`sgprov facts`: what this machine is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import click

from provision.cli import common, render
from provision.cli.output import Shown
from provision.facts import Facts, describe, gather, to_json
from provision.facts.gather import with_disks
from provision.host import HostView
from provision.report import Report

if TYPE_CHECKING:
    from rich.console import Console


@click.command()
@common.replayed
@click.option("--capture", "target", metavar="DIR", help="Write what was seen to a folder that `--host` can replay.")
@common.as_json
def facts(folder: str | None, target: str | None, *, as_json: bool) -> Shown:
    """Show what this machine is, by looking only.

    GPUs are asked of NVML, then nvidia-smi, then PCI; each fact keeps its source. Something that is there and
    gives no answer is a problem, never "none".
    """
    del as_json
    view = common.view(folder)
    if target:
        from provision.host.recording import RecordingHost  # noqa: PLC0415  # only where it is asked for

        recording = RecordingHost(view)
        found = _look(recording)
        # What doctor asks besides, so that it can be asked of the folder, too.
        from provision.cli.doctor import ask_all  # noqa: PLC0415

        ask_all(recording, found)
        recording.save(target)
    else:
        found = _look(view)
    data = to_json(found)
    if target:
        data["captured"] = target
    return Shown(
        command="facts",
        data=data,
        text=lambda screen: _show(found, target, screen),
        ok=not any(problem.severity.value == "error" for problem in found.problems),
    )


def _look(view: HostView) -> Facts:
    """The facts, with the disks of the directories that sgprov uses where nobody names others."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        running = pool.submit(gather, view)
        # Imported while programs are waited for.
        from provision.catalog.rows import Layout  # noqa: PLC0415
        from provision.config import Options  # noqa: PLC0415
        from provision.decision.choose import places_of  # noqa: PLC0415

        home = view.variable("HOME") or "/root"
        places = places_of(Layout(), Options(), home, hf_home=view.variable("HF_HOME"))
        return with_disks(view, running.result(), (places.prefix, places.models, places.huggingface))


def _show(found: Facts, captured: str | None, screen: Console) -> None:
    for name, value in describe(found):
        render.line(screen, (f"{name:<15}", "bold"), value, indent=15)
    render.show_report(Report(host=found.host, command="facts", findings=found.problems), screen)
    if captured:
        render.line(screen, f"captured in {captured}: identifiers are masked; look it through before you share it")
