"""Checks of how GPUs reach each other and their memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial

from provision.checks.base import Context, bootstrap, check, has_several_gpus, info, on_the_machine, warning
from provision.facts.model import Link
from provision.report import Finding

_check = partial(check, "topology")
_SLOW = ("SYS", "NODE")


def _linked(context: Context) -> bool:
    return has_several_gpus(context) and bool(context.facts.links)


def _bare(context: Context) -> bool:
    return has_several_gpus(context) and on_the_machine(context)


@_check(
    "topology-nvlink",
    "NVLink connects all GPUs alike",
    looks_at="`nvidia-smi topo -m`: which pairs have NVLink",
    why="with tensor parallelism over GPUs of which only some have NVLink, the slow pairs set the pace",
    remedy="`sgprov bootstrap --gpus 0,1` with the indices of one group",
    applies=_linked,
)
def topology_nvlink(context: Context) -> Iterator[Finding]:
    links = _links(context)
    fast = [link for link in links if link.kind.startswith("NV")]
    if fast and len(fast) < len(links):
        groups = _groups(fast)
        most = max(len(group) for group in groups)
        best = ",".join(map(str, next(group for group in groups if len(group) == most)))
        listed = ", ".join("-".join(map(str, group)) for group in groups)
        yield warning(
            f"{len(fast)} of {len(links)} pairs of GPUs have NVLink: {listed}",
            f"{bootstrap(context, '--gpus', best)} uses one group",
        )


@_check(
    "topology-across-sockets",
    "GPUs that work together are under one socket",
    looks_at="`nvidia-smi topo -m`: pairs that meet across NUMA nodes (SYS, NODE) without NVLink",
    why="data between them passes through both processors: slow, and P2P may not work at all",
    remedy="`sgprov bootstrap --gpus 0,1` with GPUs of one socket",
    applies=_linked,
)
def topology_across_sockets(context: Context) -> Iterator[Finding]:
    links = _links(context)
    slow = [link for link in links if link.kind in _SLOW]
    if slow and not any(link.kind.startswith("NV") for link in links):
        yield warning(
            f"{len(slow)} of {len(links)} pairs of GPUs meet across sockets, and none has NVLink",
            f"one server a GPU, or {bootstrap(context, '--gpus')} with GPUs of one socket",
        )


@_check(
    "topology-peer-access",
    "GPUs can read each other's memory",
    looks_at="`nvidia-smi topo -p2p r`",
    why="without P2P all-reduce goes through the host's memory; engines that count on it hang or fail",
    remedy="`export NCCL_P2P_DISABLE=1` and SGLang's `--disable-custom-all-reduce`; or IOMMU and ACS off",
    applies=has_several_gpus,
)
def topology_peer_access(context: Context) -> Iterator[Finding]:
    outcome = context.view.query(["nvidia-smi", "topo", "-p2p", "r"])
    kinds = parse_peers(outcome.out) if outcome.ok else ()
    bad = sorted({kind for kind in kinds if kind != "OK"})
    if bad:
        yield warning(
            f"{sum(kind != 'OK' for kind in kinds) // 2} pairs of GPUs have no peer access ({', '.join(bad)})",
            f"{bootstrap(context, '--', '--disable-custom-all-reduce')}, with `NCCL_P2P_DISABLE=1` where NCCL hangs",
        )


@_check(
    "topology-iommu",
    "The IOMMU lets GPUs reach each other",
    looks_at="/sys/class/iommu and `iommu=pt` on the kernel's command line",
    why="a translating IOMMU sends P2P through the processor, or corrupts it: NCCL hangs at the first all-reduce",
    remedy="`iommu=pt` in GRUB_CMDLINE_LINUX, `sudo update-grub`, `sudo reboot`",
    applies=_bare,
)
def topology_iommu(context: Context) -> Iterator[Finding]:
    line = (context.view.read("/proc/cmdline") or "").split()
    if line and context.view.glob("/sys/class/iommu/*") and not {"iommu=pt", "iommu=off", "amd_iommu=off"} & set(line):
        yield warning(
            "the IOMMU is on and not in pass-through mode: P2P between GPUs may hang",
            "`iommu=pt` in GRUB_CMDLINE_LINUX of /etc/default/grub, `sudo update-grub`, `sudo reboot`",
        )


@_check(
    "topology-acs",
    "PCI access control does not stand between GPUs",
    looks_at="ACSCtl of the PCI bridges in `lspci -vvv`, which only root sees",
    why="ACS sends what one GPU writes to another up to the root: slow, and with NCCL sometimes a hang",
    remedy="`sudo setpci -s BRIDGE ECAP_ACS+0x6.w=0000`, or ACS off in the firmware",
    applies=_bare,
)
def topology_acs(context: Context) -> Iterator[Finding]:
    outcome = context.view.query(["lspci", "-vvv"])
    if outcome.ok and (count := len(re.findall(r"ACSCtl:\s+SrcValid\+", outcome.out))):
        yield warning(
            f"access control (ACS) is on at {count} PCI bridges", "`sudo setpci -s BRIDGE ECAP_ACS+0x6.w=0000` for each"
        )


@_check(
    "topology-numa-balancing",
    "The kernel does not move memory between NUMA nodes",
    looks_at="/proc/sys/kernel/numa_balancing on hosts with several nodes",
    why="pages are moved while they are read: stalls of the scheduler that look like a slow GPU",
    remedy="`sudo sysctl kernel.numa_balancing=0`",
    applies=lambda context: bool(context.facts.gpus) and context.facts.cpu.numa_nodes > 1 and on_the_machine(context),
)
def topology_numa_balancing(context: Context) -> Iterator[Finding]:
    if (context.view.read("/proc/sys/kernel/numa_balancing") or "").strip() == "1":
        yield warning("automatic NUMA balancing is on", "`sudo sysctl kernel.numa_balancing=0`")


@_check(
    "topology-order",
    "CUDA and nvidia-smi number the GPUs alike",
    looks_at="CUDA_DEVICE_ORDER on hosts with several kinds of GPU",
    why="CUDA counts the fastest first, nvidia-smi by bus: `--gpus 1` would be another one",
    remedy="`export CUDA_DEVICE_ORDER=PCI_BUS_ID`; servers that sgprov starts with `--gpus` have it",
    applies=lambda context: len({gpu.name for gpu in context.facts.gpus}) > 1,
)
def topology_order(context: Context) -> Iterator[Finding]:
    if context.view.variable("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        yield info("CUDA numbers different GPUs by speed, nvidia-smi by bus: `export CUDA_DEVICE_ORDER=PCI_BUS_ID`")


def parse_peers(text: str) -> tuple[str, ...]:
    """The cells of `nvidia-smi topo -p2p r`, e.g. ` GPU0   X   OK   CNS`, without the diagonal."""
    plain = re.sub(r"\x1b\[[0-9;]{0,16}m", "", text)
    rows = (line.split() for line in plain.splitlines())
    cells = [cell for row in rows if row and re.fullmatch(r"GPU\d{1,4}", row[0]) for cell in row[1:]]
    return tuple(cell for cell in cells if re.fullmatch(r"OK|CNS|GNS|TNS|NS|DR|U", cell))


def _links(context: Context) -> tuple[Link, ...]:
    used = {gpu.index for gpu in context.gpus}
    return tuple(link for link in context.facts.links if {link.a, link.b} <= used)


def _groups(links: Sequence[Link]) -> list[list[int]]:
    """GPUs that NVLink joins, directly or through others."""
    groups: list[set[int]] = []
    for link in links:
        joined = {link.a, link.b}.union(*(group for group in groups if group & {link.a, link.b}))
        groups = [group for group in groups if not group & joined] + [joined]
    return sorted(sorted(group) for group in groups)


CHECKS = (
    *(topology_nvlink, topology_across_sockets, topology_peer_access, topology_iommu, topology_acs),
    *(topology_numa_balancing, topology_order),
)
