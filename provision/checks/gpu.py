"""Checks of the GPUs: that they answer, that they are well, and that nobody else is on them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from provision.checks.base import (
    GPU_TOPICS,
    Context,
    bootstrap,
    check,
    error,
    gpus_are_clear,
    has_driver,
    has_gpus,
    info,
    on_the_machine,
    warning,
)
from provision.checks.own import everyone, own_pids, prefix_of
from provision.checks.smi_state import compute_processes, gpu_states
from provision.report import Finding
from provision.serving import commands

_check = partial(check, "gpu")
# Below this it is the driver itself, a desktop, or a monitor.
_FOREIGN_MIB = 1024
_FOREIGN_SHARE = 0.05
# https://docs.nvidia.com/deploy/nvml-api/group__nvmlClocksEventReasons.html
_THROTTLING = {
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}


@_check(
    "gpu-answers",
    "The driver answers for every GPU",
    looks_at="NVML, then nvidia-smi, then the PCI bus; a mismatch, a hang and a lost GPU are told apart",
    why="a GPU that is there and does not answer must not be taken for none: an engine for the CPU would be installed",
    remedy="the finding says it for each way to fail; for a driver/library mismatch: `sudo reboot`",
)
def gpu_answers(context: Context) -> Iterator[Finding]:
    for problem in context.facts.problems:
        if problem.check.startswith(GPU_TOPICS):
            # Such as `reboot: an update replaced the libraries`: a remedy begins with its command.
            yield replace(problem, fix=tuple(re.sub(r"^reboot\b", "`sudo reboot`", fix) for fix in problem.fix))


@_check(
    "gpu-mixed",
    "The GPUs to be used are of one kind",
    looks_at="the names of the GPUs",
    why="with tensor parallelism the slowest and the smallest GPU set the pace and the memory of all",
    remedy="`sgprov bootstrap --gpus 0,1` with the indices of one kind",
    applies=has_gpus,
)
def gpu_mixed(context: Context) -> Iterator[Finding]:
    gpus = context.gpus or context.facts.gpus
    names = sorted({gpu.name for gpu in gpus})
    if len(names) > 1:
        alike = ",".join(str(gpu.index) for gpu in gpus if gpu.name == names[0])
        yield warning(
            f"this host has {len(names)} kinds of GPU ({', '.join(names)}); the slowest sets the pace",
            f"{bootstrap(context, '--gpus', alike)} uses those of one kind",
        )


@_check(
    "gpu-memory-known",
    "The memory of every GPU is known",
    looks_at="the memory that NVML or nvidia-smi names; on unified memory (GB10, Thor) the host's is taken",
    why="`[N/A]` is not zero: shares of a size that nobody knows cannot be planned",
    remedy="`nvidia-smi -q -d MEMORY`; update the driver if it says N/A on a GPU with memory of its own",
    applies=lambda context: has_driver(context) and gpus_are_clear(context),
)
def gpu_memory_known(context: Context) -> Iterator[Finding]:
    for gpu in context.facts.gpus:
        if gpu.memory_mib is None:
            yield warning(f"GPU {gpu.index} ({gpu.name}) names no memory size", "`nvidia-smi -q -d MEMORY`")


@_check(
    "gpu-foreign-processes",
    "No other process holds GPU memory",
    looks_at="nvidia-smi's compute processes, less those of servers that sgprov started; else the memory in use",
    why="an engine takes a share of the whole memory at start; what others hold makes it fail with out-of-memory",
    remedy="`nvidia-smi` names the processes; end them, or choose other GPUs with `--gpus`",
    applies=has_gpus,
)
def gpu_foreign_processes(context: Context) -> Iterator[Finding]:
    found = compute_processes(context)
    ours = own_pids(context)
    strangers = [one for one in found if one[0] not in ours and (one[2] is None or one[2] >= _FOREIGN_MIB)]
    users = {process.pid: process.user for process in everyone(context)} if strangers else {}
    for pid, name, used in strangers:
        size = f"{used:,} MiB of GPU memory" if used is not None else "GPU memory"
        prefix = prefix_of(context, pid)
        if prefix is not None:
            where = f" under {prefix}" if prefix else ""
            yield warning(
                f"a server of sgprov{where} (pid {pid}, user {users.get(pid, 'unknown')}) holds {size}",
                f"`{commands.stop(context.view, prefix, pid)}`,"
                f" or {bootstrap(context, '--gpus')} with the indices of others",
                pid=pid,
            )
            continue
        yield warning(
            f"pid {pid} ({name}, user {users.get(pid, 'unknown')}) holds {size}",
            f"`kill {pid}` if it is not needed, or {bootstrap(context, '--gpus')} with the indices of others",
            pid=pid,
        )
    if found:
        return
    for gpu in context.gpus or context.facts.gpus:
        used, total = gpu.memory_used_mib or 0, gpu.memory_mib or 0
        if not gpu.unified_memory and used >= _FOREIGN_MIB and used > total * _FOREIGN_SHARE and not ours:
            yield warning(
                f"GPU {gpu.index} ({gpu.name}) has {used:,} of {total:,} MiB in use by processes not visible from here",
                "`nvidia-smi` on the machine itself names them; `--gpus` chooses others",
            )


@_check(
    "gpu-ecc-errors",
    "No GPU has uncorrectable memory errors",
    looks_at="nvidia-smi: uncorrected ECC errors since boot, and pages that wait to be retired",
    why="an uncorrectable error kills the process that meets it; the page stays in use until the GPU is reset",
    remedy="`sudo nvidia-smi --gpu-reset -i INDEX` with nothing running, else `sudo reboot`",
    applies=has_driver,
)
def gpu_ecc_errors(context: Context) -> Iterator[Finding]:
    for row in gpu_states(context):
        count = row.get("ecc.errors.uncorrected.volatile.total") or "0"
        pending = (row.get("retired_pages.pending") or "no").lower() == "yes"
        if (count.isdecimal() and int(count)) or pending:
            told = f"{count} uncorrectable ECC errors since boot" + (", pages wait to be retired" if pending else "")
            yield error(
                f"GPU {row['index']}: {told}", f"`sudo nvidia-smi --gpu-reset -i {row['index']}`, else `sudo reboot`"
            )


@_check(
    "gpu-throttling",
    "No GPU is being slowed down",
    looks_at="nvidia-smi's active clock reasons: heat and power, not idleness",
    why="a GPU that is too hot or short of power serves at a fraction of its speed and looks fine otherwise",
    remedy="`nvidia-smi -q -d PERFORMANCE,TEMPERATURE,POWER`; then cooling, power cables, the power limit",
    applies=has_driver,
)
def gpu_throttling(context: Context) -> Iterator[Finding]:
    for row in gpu_states(context):
        active = int(row.get("clocks_throttle_reasons.active") or "0", 0)
        named = [name for bit, name in _THROTTLING.items() if active & bit]
        if named:
            yield warning(
                f"GPU {row['index']} is slowed down: {', '.join(named)}",
                f"`nvidia-smi -q -d PERFORMANCE,TEMPERATURE,POWER -i {row['index']}`",
            )


@_check(
    "gpu-persistence",
    "Persistence mode is on",
    looks_at="nvidia-smi's persistence mode, on the machine itself",
    why="without it the driver is unloaded between processes: every start waits seconds a GPU, and settings are lost",
    remedy="`sudo nvidia-smi -pm 1`, for good: `sudo systemctl enable --now nvidia-persistenced`",
    applies=lambda context: has_driver(context) and on_the_machine(context),
)
def gpu_persistence(context: Context) -> Iterator[Finding]:
    off = [row["index"] for row in gpu_states(context) if row.get("persistence_mode") == "Disabled"]
    if off:
        yield warning(
            f"persistence mode is off on GPU {', '.join(str(index) for index in off)}",
            "`sudo nvidia-smi -pm 1`, for good: `sudo systemctl enable --now nvidia-persistenced`",
        )


@_check(
    "gpu-compute-mode",
    "More than one process may use a GPU",
    looks_at="nvidia-smi's compute mode",
    why="an engine is several processes; in `Exclusive_Process` the second one fails, in `Prohibited` the first",
    remedy="`sudo nvidia-smi -c DEFAULT`",
    applies=has_driver,
)
def gpu_compute_mode(context: Context) -> Iterator[Finding]:
    for row in gpu_states(context):
        if (mode := row.get("compute_mode")) not in {None, "Default"}:
            yield error(
                f"GPU {row['index']} is in compute mode `{mode}`", f"`sudo nvidia-smi -c DEFAULT -i {row['index']}`"
            )


@_check(
    "gpu-mig",
    "MIG is off, or its instances are there",
    looks_at="MIG mode and the instances of each GPU",
    why="with MIG on and no instance CUDA finds no GPU; with instances a process sees one of them, and no peer access",
    remedy="`sudo nvidia-smi -mig 0`, or make instances: `sudo nvidia-smi mig -cgi 0 -C`",
    applies=has_gpus,
)
def gpu_mig(context: Context) -> Iterator[Finding]:
    for gpu in context.facts.gpus:
        if not gpu.mig or not gpu.mig.enabled:
            continue
        if not gpu.mig.instances:
            yield error(
                f"GPU {gpu.index} is in MIG mode without an instance: CUDA sees nothing of it",
                f"`sudo nvidia-smi -i {gpu.index} -mig 0`, or `sudo nvidia-smi mig -i {gpu.index} -cgi 0 -C`",
            )
        else:
            yield warning(
                f"GPU {gpu.index} is divided into {len(gpu.mig.instances)} MIG instances "
                f"({', '.join(gpu.mig.instances)}): a server gets one of them",
                f"whole again: `sudo nvidia-smi -i {gpu.index} -mig 0`; one of them: "
                "`export CUDA_VISIBLE_DEVICES=MIG-…` as `nvidia-smi -L` names it",
            )


@_check(
    "gpu-visible",
    "The environment hides no GPU",
    looks_at="CUDA_VISIBLE_DEVICES and NVIDIA_VISIBLE_DEVICES",
    why="an empty value or an index that is not there leaves CUDA without a GPU, whatever nvidia-smi shows",
    remedy="`unset CUDA_VISIBLE_DEVICES`; in a container: start it with `--gpus all`",
    applies=has_gpus,
)
def gpu_visible(context: Context) -> Iterator[Finding]:
    value = context.view.variable("CUDA_VISIBLE_DEVICES")
    known = {str(gpu.index) for gpu in context.facts.gpus}
    if value is not None:
        wrong = [
            part for part in value.split(",") if part.strip().lstrip("-").isdecimal() and part.strip() not in known
        ]
        if not value.strip() or wrong:
            told = f"names {', '.join(wrong)}, which is not here" if wrong else "is empty"
            yield error(f"CUDA_VISIBLE_DEVICES {told}: CUDA finds no GPU", "`unset CUDA_VISIBLE_DEVICES`")
        else:
            yield info(f"CUDA_VISIBLE_DEVICES={value}: a server sees only these")
    if context.view.variable("NVIDIA_VISIBLE_DEVICES") in {"void", "none"}:
        yield error(
            "NVIDIA_VISIBLE_DEVICES says that this container gets no GPU", "start the container with `--gpus all`"
        )


@_check(
    "gpu-pcie-width",
    "Every GPU has all its PCIe lanes",
    looks_at="nvidia-smi: the width of the link now and at most (its speed is left out: it falls when idle)",
    why="x4 in place of x16 is a card that is not seated well, or a wrong slot; loading weights and P2P suffer",
    remedy="`nvidia-smi -q -d PCIE`; seat the card again, or choose another slot",
    applies=lambda context: has_driver(context) and on_the_machine(context),
)
def gpu_pcie_width(context: Context) -> Iterator[Finding]:
    for row in gpu_states(context):
        now, most = row.get("pcie.link.width.current"), row.get("pcie.link.width.max")
        if now and most and now.isdecimal() and most.isdecimal() and int(now) < int(most):
            yield warning(
                f"GPU {row['index']} runs on {now} of {most} PCIe lanes",
                "seat the card again or choose another slot; `nvidia-smi -q -d PCIE` shows it",
            )


CHECKS = (
    *(gpu_answers, gpu_memory_known, gpu_mixed, gpu_visible, gpu_mig, gpu_compute_mode, gpu_foreign_processes),
    *(gpu_ecc_errors, gpu_throttling, gpu_persistence, gpu_pcie_width),
)
