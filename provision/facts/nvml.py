"""GPU facts from NVML, the library every other tool asks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from provision.errors import ProbeError
from provision.facts.driver_failures import HANGS, explain
from provision.facts.model import Gpu, Mig
from provision.facts.sources import DriverAnswer, problem, sourced
from provision.host import HostView
from provision.report import Finding, Severity

# A child, so that it can be ended when the driver hangs. -E: no PYTHONPATH of the caller's reaches it.
COMMAND = (sys.executable, "-E", str(Path(__file__).with_name("ask_nvml.py")))
# One of these is there where a driver can be asked; looking costs microseconds, a child 50 ms.
TRACES = ("/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/dxg")


def probe_nvml(view: HostView) -> DriverAnswer | None:
    """What NVML says, or None where there is no driver to ask or no library to ask it with."""
    if not any(view.stat(trace) for trace in TRACES):
        return None
    outcome = view.query(COMMAND)
    if not outcome.installed:
        return None
    if outcome.rc is None:
        text = f"NVML {outcome.ending}"
        return DriverAnswer(source="nvml", problems=(HANGS.finding(said=text),), hangs=True)
    try:
        return parse_nvml(outcome.out)
    except ProbeError:
        # A crash of the child is not the driver's answer; `nvidia-smi` is asked next.
        return None


def parse_nvml(text: str) -> DriverAnswer | None:
    """Parse, e.g., `{"driver": "550.90.07", "cuda": "12.4", "gpus": [{"index": 0, "name": "NVIDIA A40", …}]}`.

    `{"error": {"code": 18, "text": "Driver/library version mismatch"}}` becomes a problem; a `code` of null says
    that the binding is not installed: None.
    """
    try:
        given = json.loads(text)
        if error := given.get("error"):
            return _refusal(str(error["text"]), error["code"])
        return DriverAnswer(
            source="nvml",
            gpus=tuple(_gpu(row) for row in given["gpus"]),
            driver=given["driver"],
            cuda=given["cuda"],
            problems=tuple(_lost(row) for row in given.get("errors", ())),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ProbeError(f"NVML's answer cannot be read: {error}") from error


def _refusal(text: str, code: int | None) -> DriverAnswer | None:
    failure = explain(text, code)
    # No library where `nvidia-smi` may still say more: not NVML's to report.
    if code is None or (failure and failure.name == "library-missing"):
        return None
    if failure:
        return DriverAnswer(source="nvml", problems=(failure.finding(said=text),))
    return DriverAnswer(source="nvml", problems=(problem("gpus", f"NVML says: {text}", severity=Severity.ERROR),))


def _lost(row: dict[str, Any]) -> Finding:
    failure = explain(str(row["text"]), row["code"])
    said = f"GPU {row['index']}: {row['text']}"
    return failure.finding(said=said) if failure else problem("gpus", said, severity=Severity.ERROR)


def _gpu(row: dict[str, Any]) -> Gpu:
    mig = Mig(enabled=row["mig"], instances=tuple(row["mig_instances"])) if row["mig"] is not None else None
    gpu = Gpu(
        index=int(row["index"]),
        name=str(row["name"]),
        uuid=row["uuid"],
        pci_id=row["pci_id"],
        pci_address=row["pci_address"],
        compute_capability=row["compute_capability"],
        memory_mib=row["memory_mib"],
        memory_used_mib=row["memory_used_mib"],
        mig=mig,
        ecc=row["ecc"],
    )
    return sourced(gpu, "nvml")
