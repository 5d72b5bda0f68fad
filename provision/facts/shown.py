"""Facts as JSON with fixed keys, and as rows of text for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from provision.facts.model import ContainerEngine, Facts, Gpu, Link


def to_json(facts: Facts) -> dict[str, Any]:
    """The facts as plain data. Its keys are fixed: playbooks and scripts read them."""
    import msgspec  # noqa: PLC0415  # only who shows facts pays for it

    # By way of JSON, so that a list here is a list there.
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(facts))
    return plain


def describe(facts: Facts) -> tuple[tuple[str, str], ...]:
    """Rows of a name and what there is to say; only what is there."""
    return tuple(_rows(facts))


def _rows(facts: Facts) -> Iterator[tuple[str, str]]:
    yield "host", facts.host
    yield from _machine(facts)
    if facts.driver:
        cuda = f"CUDA {facts.driver.cuda}" if facts.driver.cuda else "CUDA version unknown"
        source = f", from {facts.driver.source}" if facts.driver.source else ""
        yield "driver", f"{facts.driver.version} ({cuda}){source}"
    yield from ((f"gpu {gpu.index}", _gpu(gpu)) for gpu in facts.gpus)
    if not facts.gpus:
        yield "gpu", "none"
    if facts.links:
        yield "links", _links(facts.links)
    yield from _software(facts)
    for disk in facts.disks:
        free, total = disk.free / 2**30, disk.total / 2**30
        yield "disk", f"{disk.path}: {free:,.1f} of {total:,.1f} GiB free ({disk.filesystem} on {disk.mount})"
    for port in facts.listeners:
        yield f"port {port.port}", f"{port.address}, {port.process or 'an owner we may not see'}"


def _machine(facts: Facts) -> Iterator[tuple[str, str]]:
    system = facts.os.pretty or f"{facts.os.id} {facts.os.version}" if facts.os else "unknown"
    yield "system", f"{system}, {facts.arch}, {f'glibc {facts.glibc}' if facts.glibc else 'no glibc'}"
    if around := _surroundings(facts):
        yield "inside", around
    if facts.cpu.cores:
        nodes = f", {facts.cpu.numa_nodes} NUMA nodes" if facts.cpu.numa_nodes > 1 else ""
        yield "processor", f"{facts.cpu.cores} x {facts.cpu.model or facts.arch}{nodes}"
    if memory := facts.memory:
        limit = f", limited to {memory.limit_mib:,} MiB" if memory.limit_mib is not None else ""
        yield "memory", f"{memory.total_mib:,} MiB, {memory.available_mib:,} MiB available{limit}"


def _software(facts: Facts) -> Iterator[tuple[str, str]]:
    for python in facts.pythons:
        lacks = [name for name, has in (("venv", python.venv), ("headers", python.headers)) if not has]
        yield f"python {python.version}", python.path + (f" (without {' and '.join(lacks)})" if lacks else "")
    yield from ((engine.name, _engine(engine)) for engine in facts.engines)
    if facts.slurm:
        yield "slurm", facts.slurm.version or "inside a job"


def _surroundings(facts: Facts) -> str:
    around = facts.surroundings
    named = ((around.container, around.container), ("a RunPod pod", around.runpod), ("WSL", around.wsl))
    return ", ".join(name for name, there in named if name and there)


def _gpu(gpu: Gpu) -> str:
    memory = f"{gpu.memory_mib:,} MiB" if gpu.memory_mib is not None else "memory unknown"
    parts = [gpu.name, f"compute capability {gpu.compute_capability or 'unknown'}"]
    parts.append(f"{memory} shared with the host" if gpu.unified_memory else memory)
    if gpu.mig and gpu.mig.enabled:
        parts.append(f"MIG {' '.join(gpu.mig.instances) or 'without instances'}")
    if gpu.ecc is not None:
        parts.append(f"ECC {'on' if gpu.ecc else 'off'}")
    return ", ".join(parts) + _sources(gpu.sources)


def _sources(sources: Mapping[str, str]) -> str:
    """Who said it, such as `; from nvml, compute capability from table`: what most was said by, then the others."""
    if not sources:
        return ""
    most = Counter(sources.values()).most_common(1)[0][0]
    others = [f"{name.replace('_', ' ')} from {source}" for name, source in sources.items() if source != most]
    return f"; {', '.join([f'from {most}', *others])}"


def _links(links: Sequence[Link]) -> str:
    """How pairs of GPUs reach each other, such as `28 pairs by NVLink (NV12)`, as `nvidia-smi topo -m` names it."""
    counted = Counter(link.kind for link in links)
    return ", ".join(
        f"{count} pair{'s' if count > 1 else ''} by {f'NVLink ({kind})' if kind.startswith('NV') else kind}"
        for kind, count in counted.items()
    )


def _engine(engine: ContainerEngine) -> str:
    if engine.problem:
        return engine.problem
    ways = [name for name, there in (("NVIDIA runtime", engine.nvidia_runtime), ("CDI", engine.cdi)) if there]
    return f"{engine.version}, {' and '.join(ways) or 'no way to hand out GPUs'}"
