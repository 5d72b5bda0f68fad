"""The GPUs of this host: asked of NVML, then of nvidia-smi, then of the PCI bus."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from provision.facts.model import Gpu
from provision.facts.nvml import probe_nvml
from provision.facts.pci import PciFunction, gpus_of, parse_address, probe_pci
from provision.facts.smi import probe_smi
from provision.facts.sources import DriverAnswer, problem
from provision.facts.storage import parse_meminfo
from provision.host import HostView
from provision.report import Severity

if TYPE_CHECKING:
    from provision.catalog.gpus import KnownGpu

DEVICE_NODES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg")
MODULE = "/sys/module/nvidia/version"


def probe_gpus(view: HostView, *, in_container: bool = False) -> DriverAnswer:
    """The GPUs and what the driver says of itself.

    A source that is not there hands over to the next; one that fails or hangs is a problem, and what the PCI bus
    still shows is listed beside it.
    """
    functions = probe_pci(view)
    answer = probe_nvml(view)
    if answer is None or not (answer.gpus or answer.hangs):
        answer = probe_smi(view) or answer
    # A container sees the PCI bus of its machine, so the bus does not say what was handed in.
    ours = () if in_container else functions
    if answer is None:
        answer = _without_driver(view, functions, in_container=in_container)
    elif not answer.gpus:
        answer = _failing(view, answer, ours)
    return replace(answer, gpus=tuple(_complete(view, gpu, functions) for gpu in answer.gpus))


def _without_driver(view: HostView, functions: tuple[PciFunction, ...], *, in_container: bool) -> DriverAnswer:
    """Nothing to ask: a machine without a driver, or a container that no GPU was handed to."""
    if not in_container:
        return DriverAnswer(source="pci", gpus=gpus_of(functions))
    if not functions or any(view.stat(node) for node in DEVICE_NODES):
        return DriverAnswer(source="pci")
    text = f"the machine has {len(functions)} NVIDIA GPU(s), none of which was handed to this container"
    return DriverAnswer(source="pci", problems=(problem("gpus", text, fix=("start the container with `--gpus all`",)),))


def _failing(view: HostView, answer: DriverAnswer, functions: tuple[PciFunction, ...]) -> DriverAnswer:
    """A driver that names no GPU. On a machine without one, the rest of a driver package is worth a warning."""
    problems = answer.problems
    bare = not functions and view.glob("/sys/bus/pci/devices/*") and view.read(MODULE) is None
    if bare and all("driver-not-loaded" in finding.text for finding in problems):
        problems = tuple(replace(finding, severity=Severity.WARNING) for finding in problems)
    return replace(answer, gpus=gpus_of(functions), problems=problems)


def _complete(view: HostView, gpu: Gpu, functions: tuple[PciFunction, ...]) -> Gpu:
    """Fill in what the source could not say from the table of known GPUs; memory that is the host's from the host."""
    address = parse_address(gpu.pci_address or "")
    device = gpu.pci_id or next((function.device for function in functions if function.address == address), None)
    gpu = replace(gpu, pci_id=device, pci_address=address)
    if gpu.compute_capability and gpu.memory_mib is not None and not _truncated(gpu.name):
        return gpu
    row = _known(device, gpu.name)
    if row is None:
        return gpu
    sources = dict(gpu.sources)
    if _truncated(gpu.name):
        gpu, sources["name"] = replace(gpu, name=row.name_of(None)), "pci"
    if gpu.compute_capability is None and row.compute_capability:
        gpu, sources["compute_capability"] = replace(gpu, compute_capability=row.compute_capability), "table"
    if gpu.memory_mib is None and row.unified_memory:
        memory = parse_meminfo(view.read("/proc/meminfo") or "")
        gpu, sources["memory_mib"] = replace(gpu, unified_memory=True, memory_mib=memory.get("MemTotal")), "host"
    return replace(gpu, sources=sources)


def _known(device: str | None, name: str) -> KnownGpu | None:
    from provision.catalog import gpus  # noqa: PLC0415  # 470 rows that most hosts need not read

    return (gpus.by_pci_id(device) if device else None) or gpus.by_name(name)


def _truncated(name: str) -> bool:
    """Whether the source did not know the name: `Graphics Device` on an old driver, `NVIDIA A100-SXM...` in a table."""
    return name in {"Graphics Device", "NVIDIA Graphics Device", "NVIDIA GPU"} or name.endswith("...")
