"""`sgprov facts`: what this machine is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from provision.cli import common, render
from provision.cli.output import Shown
from provision.facts import gather, to_json
from provision.facts.model import Facts, Gpu
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
        found = gather(recording)
        recording.save(target)
    else:
        found = gather(view)
    data = to_json(found)
    if target:
        data["captured"] = target
    return Shown(
        command="facts",
        data=data,
        text=lambda screen: _show(found, target, screen),
        ok=not any(problem.severity.value == "error" for problem in found.problems),
    )


def _show(found: Facts, captured: str | None, screen: Console) -> None:
    from rich.table import Table  # noqa: PLC0415  # 20 ms that JSON does not pay

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _rows(found):
        table.add_row(name, value)
    screen.print(table)
    render.show_report(Report(host=found.host, command="facts", findings=found.problems), screen)
    if captured:
        screen.print(f"captured in {captured}: identifiers are masked; look it through before you share it")


def _rows(found: Facts) -> list[tuple[str, Any]]:
    rows: list[tuple[str, str]] = []
    system = found.os
    rows.append(("system", f"{system.pretty or system.id} ({found.arch})" if system else found.arch))
    rows.append(("glibc", found.glibc or "none"))
    where = [found.surroundings.container or "", "RunPod" if found.surroundings.runpod else ""]
    where.append("WSL" if found.surroundings.wsl else "")
    rows.append(("runs in", ", ".join(part for part in where if part) or "bare metal or a virtual machine"))
    rows.append(("processor", f"{found.cpu.model or 'unknown'}, {found.cpu.cores} cores"))
    if found.memory:
        shm = f", /dev/shm {found.memory.shm_mib} MiB" if found.memory.shm_mib is not None else ""
        rows.append(("memory", f"{found.memory.total_mib} MiB, {found.memory.available_mib} MiB available{shm}"))
    driver = found.driver
    rows.append(
        ("driver", f"{driver.version}, CUDA {driver.cuda or 'unknown'} ({driver.source})" if driver else "none")
    )
    rows += [(f"GPU {gpu.index}", _gpu(gpu)) for gpu in found.gpus] or [("GPU", "none")]
    pairs = ", ".join(f"{link.a}-{link.b} {link.kind}" for link in found.links if link.kind.startswith("NV"))
    if found.links:
        rows.append(("NVLink", pairs or "none"))
    for python in found.pythons:
        extras = [*(["venv"] if python.venv else []), *(["headers"] if python.headers else [])]
        rows.append((f"Python {python.version}", f"{python.path} ({', '.join(extras) or 'no venv, no headers'})"))
    for engine in found.engines:
        gpus = "NVIDIA runtime" if engine.nvidia_runtime else "CDI" if engine.cdi else "no GPU hand-out"
        rows.append((engine.name, engine.problem or f"{engine.version}, {gpus}"))
    for disk in found.disks:
        rows.append(("disk", f"{disk.path}: {disk.free / 1024**3:.1f} GiB free on {disk.mount} ({disk.filesystem})"))
    if found.slurm:
        rows.append(("Slurm", found.slurm.version or "present"))
    for listener in found.listeners:
        owner = f"{listener.process} (pid {listener.pid})" if listener.pid else "owner not visible"
        rows.append((f"port {listener.port}", f"{listener.address} {owner}"))
    return rows


def _gpu(gpu: Gpu) -> str:
    memory = f"{gpu.memory_mib} MiB" if gpu.memory_mib is not None else "memory unknown"
    unified = " unified with the host's" if gpu.unified_memory else ""
    mig = f", MIG {', '.join(gpu.mig.instances) or 'on'}" if gpu.mig and gpu.mig.enabled else ""
    return f"{gpu.name}, compute capability {gpu.compute_capability or 'unknown'}, {memory}{unified}{mig}"
