"""Processor, architecture and memory layout."""

from __future__ import annotations

from provision.errors import ProbeError
from provision.facts.model import Cpu
from provision.host import HostView


def probe_arch(view: HostView) -> str:
    """The architecture as wheels call it: `x86_64` or `aarch64`."""
    outcome = view.query(["uname", "-m"])
    if not outcome.out.strip():
        raise ProbeError(f"`uname -m` {outcome.ending} and names no architecture")
    return parse_arch(outcome.out)


def parse_arch(text: str) -> str:
    """Parse `uname -m`, e.g. `x86_64`; other names for the same are folded: `arm64` -> `aarch64`."""
    name = text.strip().split("\n", 1)[0]
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name.lower(), name)


def probe_cpu(view: HostView) -> Cpu:
    """From /proc/cpuinfo, which unlike `lscpu` is in one language."""
    nodes = len(view.glob("/sys/devices/system/node/node[0-9]*"))
    return parse_cpuinfo(view.read("/proc/cpuinfo") or "", numa_nodes=max(nodes, 1))


def parse_cpuinfo(text: str, *, numa_nodes: int = 1) -> Cpu:
    """Parse, e.g., `model name : AMD EPYC 7543` (absent on Arm) and `flags : fpu … avx512f` (`Features` on Arm)."""
    values: dict[str, str] = {}
    cores = 0
    for line in text.splitlines():
        key, _, value = line.partition(":")
        cores += key.strip() == "processor"
        values.setdefault(key.strip().lower(), value.strip())
    flags = values.get("flags") or values.get("features") or ""
    return Cpu(model=values.get("model name", ""), cores=cores, flags=tuple(flags.split()), numa_nodes=numa_nodes)
