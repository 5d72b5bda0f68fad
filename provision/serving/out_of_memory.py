"""Whether the kernel ended a server for lack of memory: it says so in no log of the server's, but it counts.

Such an end is a process that is gone, sometimes with `Killed`. The control group counts what was killed in it, the
machine what was killed anywhere, and the kernel's own log has a line for each.
"""

from __future__ import annotations

import re

import msgspec

from provision.facts.storage import parse_groups, parse_limit
from provision.host.view import HostView
from provision.report import Finding, Severity

CHECK = "out-of-memory"
_CGROUP = "/sys/fs/cgroup"
_COUNT = re.compile(r"^oom_kill (\d{1,18})$", re.MULTILINE)
_KILLED = re.compile(r"^.{0,200}(?:[Oo]ut of memory|oom-kill).{0,200}Killed process \d+ \([^)\n]*\).*$", re.MULTILINE)
_FIX = (
    "give the container more (`--memory`, the pod's limit, Slurm's `--mem`), or the machine",
    "`ps aux --sort=-rss | head` names what else holds memory",
)


class Kills(msgspec.Struct, frozen=True, kw_only=True):
    """How many processes were killed for lack of memory, when a server was started: in its group, on the machine.

    `source` is the file that its control group counts in, None where there is none.
    """

    source: str | None
    group: int
    machine: int


def kills(view: HostView) -> Kills:
    """The counts now. What we start is in our own control group."""
    group = next(iter(parse_groups(view.read("/proc/self/cgroup") or "")), "")
    for place in (group, ""):
        for source in (f"{_CGROUP}{place}/memory.events", f"{_CGROUP}/memory{place}/memory.oom_control"):
            if (text := view.read(source)) is not None and (found := _COUNT.search(text)):
                return Kills(source=source, group=int(found[1]), machine=_machine(view))
    return Kills(source=None, group=0, machine=_machine(view))


def finding(view: HostView, before: Kills | None, *, killed: bool) -> Finding | None:
    """That the kernel ended processes of a server since `before`; None where nothing says so.

    What was killed elsewhere on the machine is told only of a server that was `killed` itself.
    """
    if before is None:
        return None
    found = _COUNT.search(view.read(before.source) or "") if before.source else None
    count = int(found[1]) - before.group if found else 0
    if count > 0:
        text = f"the kernel killed {count} process{'es' if count > 1 else ''} of its control group for lack of memory"
        text += _limit(view, before.source or "")
    elif killed and _machine(view) > before.machine:
        text = "the kernel killed processes of this machine for lack of memory meanwhile"
    else:
        return None
    line = _kernels_line(view)
    return Finding(
        check=CHECK,
        severity=Severity.ERROR,
        text=text + (f"; its log: `{line}`" if line else ""),
        fix=_FIX,
        data={"killed": count},
    )


def _limit(view: HostView, source: str) -> str:
    folder = source.rpartition("/")[0]
    limits = (view.read(f"{folder}/{name}") for name in ("memory.max", "memory.limit_in_bytes"))
    limit = next((found for text in limits if text is not None and (found := parse_limit(text)) is not None), None)
    return f", which is limited to {limit:,} MiB" if limit is not None else ""


def _machine(view: HostView) -> int:
    found = _COUNT.search(view.read("/proc/vmstat") or "")
    return int(found[1]) if found else 0


def _kernels_line(view: HostView) -> str | None:
    """The last such line of the kernel's log, where this user may read it."""
    outcome = view.query(["dmesg"])
    lines = _KILLED.findall(outcome.out) if outcome.ok else []
    return " ".join(lines[-1].split()) if lines else None
