"""Memory, shared memory and the disks of the directories in question."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from provision.errors import ProbeError
from provision.facts.model import Memory
from provision.facts.sources import PartlyTold
from provision.host import DiskSpace, HostView

_MIB = 2**20
_CGROUP = "/sys/fs/cgroup"


def probe_memory(view: HostView) -> Memory | None:
    """From /proc/meminfo, the memory limits of our control groups, and /dev/shm."""
    text = view.read("/proc/meminfo")
    if text is None:
        return None
    values = parse_meminfo(text)
    total = values.get("MemTotal")
    if total is None:
        raise ProbeError("/proc/meminfo has no `MemTotal`")
    shm = view.disk("/dev/shm")  # noqa: S108  # looked at, not written to
    limits = [limit for limit in map(parse_limit, _limits(view)) if limit is not None and limit < total]
    return Memory(
        total_mib=total,
        available_mib=values.get("MemAvailable", values.get("MemFree", 0)),
        swap_mib=values.get("SwapTotal", 0),
        # Without a mount of its own the answer is about the disk that /dev lies on.
        shm_mib=shm.total // _MIB if shm and shm.mount.startswith("/dev") else None,
        limit_mib=min(limits, default=None),
    )


def parse_meminfo(text: str) -> dict[str, int]:
    """Sizes in MiB from lines such as `MemTotal:       125512345 kB`."""
    found = re.findall(r"^(\w{1,40}):\s{0,40}(\d{1,18}) kB$", text, re.MULTILINE | re.ASCII)
    return {name: int(kib) // 1024 for name, kib in found}


def parse_limit(text: str) -> int | None:
    """A control group's limit in MiB: `34359738368`; `max`, or version 1's 9223372036854771712, is none."""
    digits = text.strip()
    if not re.fullmatch(r"\d{1,19}", digits, re.ASCII):
        return None
    return int(digits) // _MIB


def parse_groups(text: str) -> tuple[str, ...]:
    """Our group and its parents, innermost first, from `0::/user.slice/session-1.scope` or `4:memory:/docker/1f`."""
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if (number == "0" or "memory" in controllers.split(",")) and path.startswith("/"):
            parts = [part for part in path.split("/") if part][:32]
            if parts:
                return tuple("/" + "/".join(parts[:depth]) for depth in range(len(parts), 0, -1))
    return ()


def _limits(view: HostView) -> Iterator[str]:
    """What limits us, read in both versions of control groups; "" is the root, which in a container is our own."""
    groups = (*parse_groups(view.read("/proc/self/cgroup") or ""), "")
    for group in groups:
        for path in (f"{_CGROUP}{group}/memory.max", f"{_CGROUP}/memory{group}/memory.limit_in_bytes"):
            if (text := view.read(path)) is not None:
                yield text


def probe_disks(view: HostView, directories: Sequence[str]) -> tuple[DiskSpace, ...]:
    """The file system of each directory, once a directory. One that gives no answer (a dead mount) is a problem."""
    found, silent = [], []
    for directory in dict.fromkeys(directories):
        disk = view.disk(directory)
        if disk is None:
            silent.append(directory)
        else:
            found.append(disk)
    if silent:
        raise PartlyTold(
            f"the file system of {', '.join(f'`{directory}`' for directory in silent)} gives no answer",
            found=tuple(found),
            hint="a dead network mount looks like this: `findmnt` lists them, `umount -l` lets go of one",
        )
    return tuple(found)
