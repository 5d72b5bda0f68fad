"""Checks of the host's memory: enough of it, not limited, shared memory, swap."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from provision.checks.base import Context, check, error, has_decision, warning
from provision.facts.model import Memory
from provision.report import Finding

_check = partial(check, "memory")
# torch and the engine's processes take 3 to 4 GiB before the first weight is read.
_LEAST_MIB = 4 * 1024
_SHM = "/dev/shm"  # noqa: S108  # looked at, not written to
_GPU_LEAST_MIB = 16 * 1024
# A container's default is 64 MiB; NCCL and the engine's workers pass tensors through it.
_SHM_MIB = 1024
_SHM_LEAST_MIB = 256


def _with_memory(context: Context) -> bool:
    return context.facts.memory is not None


def _unified(context: Context) -> bool:
    return _with_memory(context) and any(gpu.unified_memory for gpu in context.gpus or context.facts.gpus)


def shortage(memory: Memory | None) -> str | None:
    """That an engine will not start here for lack of memory; None where it may. For bootstrap, too."""
    if memory is None or _available(memory) >= _LEAST_MIB:
        return None
    group = " (a control group has no more)" if memory.limit_mib == _available(memory) else ""
    return f"{_available(memory):,} MiB of memory are available{group}, the engine alone takes {_LEAST_MIB:,}"


@_check(
    "memory-available",
    "Enough host memory is free",
    looks_at="MemAvailable in /proc/meminfo, or the control group's limit where it is lower",
    why="torch and the engine's processes take 3 to 4 GiB before a weight is read; weights pass through it",
    remedy="end what is not needed (`ps aux --sort=-rss | head`), or use a larger machine",
    applies=_with_memory,
)
def memory_available(context: Context) -> Iterator[Finding]:
    memory = context.facts.memory
    available = _available(memory) if memory else 0
    if short := shortage(memory):
        yield error(short, "`ps aux --sort=-rss | head` names what holds it")
    elif context.gpus and available < _GPU_LEAST_MIB:
        yield warning(
            f"{available:,} MiB of memory are available: loading a large model will be slow or fail",
            "`ps aux --sort=-rss | head` names what holds it",
        )


@_check(
    "memory-limit",
    "No control group keeps memory short",
    looks_at="memory.max of our control groups, against the machine's memory",
    why="the kernel ends the engine when the group is full, with nothing but `Killed` in the log",
    remedy="start the container with a larger `--memory`, the pod with a larger limit, the job with `--mem`",
    applies=_with_memory,
)
def memory_limit(context: Context) -> Iterator[Finding]:
    memory = context.facts.memory
    if memory and memory.limit_mib is not None and memory.limit_mib < _GPU_LEAST_MIB:
        yield warning(
            f"a control group limits this host to {memory.limit_mib:,} of {memory.total_mib:,} MiB",
            "start the container with a larger `--memory` (Slurm: `--mem`)",
        )


@_check(
    "memory-shm",
    "Shared memory is large enough",
    looks_at="the size of /dev/shm",
    why="NCCL and the engine's workers pass data through it; with Docker's 64 MiB they die with `Bus error`",
    remedy="`docker run --shm-size=16g …`, or `--ipc=host`; on a machine: `sudo mount -o remount,size=16G /dev/shm`",
    applies=_with_memory,
)
def memory_shm(context: Context) -> Iterator[Finding]:
    memory = context.facts.memory
    shm = memory.shm_mib if memory else None
    if shm is None or shm >= _SHM_MIB:
        return
    several = len(context.gpus) > 1
    way = "`docker run --shm-size=16g …`" if context.in_container else "`sudo mount -o remount,size=16G /dev/shm`"
    say = error if several and shm < _SHM_LEAST_MIB else warning
    yield say(f"{_SHM} has {shm:,} MiB; workers that share tensors die with `Bus error`", way)


@_check(
    "memory-swap",
    "Swap does not stand in for GPU memory",
    looks_at="SwapTotal, on hosts whose GPU shares the host's memory (GB10, Thor)",
    why="where GPU and host share one memory, weights that are swapped out stall the machine where it should fail",
    remedy="`sudo swapoff -a`, and take the line out of /etc/fstab",
    applies=_unified,
)
def memory_swap(context: Context) -> Iterator[Finding]:
    memory = context.facts.memory
    if memory and memory.swap_mib:
        yield warning(f"{memory.swap_mib:,} MiB of swap on a host whose GPU shares its memory", "`sudo swapoff -a`")


@_check(
    "memory-unified",
    "The share of unified memory that the server takes is free",
    looks_at="MemAvailable against the target's mem_fraction of the whole, on hosts whose GPU shares the host's memory",
    why="the file cache counts as used for CUDA: the server fails with out-of-memory on a machine that looks empty",
    remedy="`sudo sh -c 'sync; echo 3 > /proc/sys/vm/drop_caches'`, end other engines, or `--mem-fraction 0.6`",
    applies=lambda context: _unified(context) and has_decision(context),
)
def memory_unified(context: Context) -> Iterator[Finding]:
    memory, share = context.facts.memory, context.serve.mem_fraction
    if memory and share and memory.available_mib < memory.total_mib * share:
        wanted = int(memory.total_mib * share)
        yield warning(
            f"the server takes {wanted:,} MiB ({share:g} of the host's memory), {memory.available_mib:,} are available",
            "`sudo sh -c 'sync; echo 3 > /proc/sys/vm/drop_caches'`, or a smaller `--mem-fraction`",
        )


def _available(memory: Memory) -> int:
    return min(memory.available_mib, memory.limit_mib) if memory.limit_mib is not None else memory.available_mib


CHECKS = (memory_available, memory_limit, memory_shm, memory_swap, memory_unified)
