"""Checks of what a process may have: open files, locked memory, processes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

from provision.checks.base import Context, check, error, warning
from provision.report import Finding

_check = partial(check, "limits")
_LIMITS = "/proc/self/limits"
# SGLang raises its own soft limit to 65535, as far as the hard one lets it; some thousand connections need less.
_FILES = 16384
_FILES_LEAST = 4096
_PROCESSES = 4096
_UNLIMITED = 1 << 62


def _known(context: Context) -> bool:
    return context.view.read(_LIMITS) is not None


@_check(
    "limit-open-files",
    "A server may open enough files",
    looks_at="the hard limit `Max open files` of this process",
    why="every connection is a file, and so is every shard: `Too many open files` comes under load",
    remedy="`ulimit -n 65535`, for good: `LimitNOFILE=65535` in the unit, or /etc/security/limits.conf",
    applies=_known,
)
def limit_open_files(context: Context) -> Iterator[Finding]:
    hard = _limits(context).get("Max open files", (0, _UNLIMITED))[1]
    if hard < _FILES:
        say = error if hard < _FILES_LEAST else warning
        yield say(f"a process may open {hard:,} files at most, a busy server wants 65,535", "`ulimit -n 65535`")


@_check(
    "limit-locked-memory",
    "Memory may be locked for RDMA",
    looks_at="the limit `Max locked memory`, where InfiniBand or EFA devices are",
    why="registering memory with a network card fails: `Cannot allocate memory`, and NCCL falls back or dies",
    remedy="`ulimit -l unlimited`, for good: `LimitMEMLOCK=infinity`; containers: `--ulimit memlock=-1`",
    applies=lambda context: _known(context) and bool(context.view.glob("/sys/class/infiniband/*")),
)
def limit_locked_memory(context: Context) -> Iterator[Finding]:
    soft = _limits(context).get("Max locked memory", (_UNLIMITED, 0))[0]
    if soft < _UNLIMITED:
        yield error(
            f"{soft:,} bytes of memory may be locked, RDMA wants no limit",
            "`docker run --ulimit memlock=-1 …`" if context.in_container else "`ulimit -l unlimited`",
        )


@_check(
    "limit-processes",
    "Enough processes and threads may be started",
    looks_at="the limit `Max processes` and the control group's pids.max",
    why="an engine starts hundreds of threads: `Resource temporarily unavailable`, or `can't start new thread`",
    remedy="`ulimit -u unlimited`; containers: `--pids-limit -1`",
    applies=_known,
)
def limit_processes(context: Context) -> Iterator[Finding]:
    limits = [_limits(context).get("Max processes", (_UNLIMITED, 0))[0]]
    group = (context.view.read("/sys/fs/cgroup/pids.max") or "").strip()
    if group.isdecimal():
        limits.append(int(group))
    if min(limits) < _PROCESSES:
        yield warning(
            f"at most {min(limits):,} processes and threads may be started",
            "`docker run --pids-limit -1 …`" if context.in_container else "`ulimit -u unlimited`",
        )


def parse_limits(text: str) -> dict[str, tuple[int, int]]:
    """Soft and hard limits, from lines such as `Max open files   1024   524288   files`."""
    found = re.findall(r"^(Max [a-z ]{1,40}?)\s{2,}(\d{1,20}|unlimited)\s+(\d{1,20}|unlimited)", text, re.MULTILINE)
    return {name: (_number(soft), _number(hard)) for name, soft, hard in found}


def _limits(context: Context) -> dict[str, tuple[int, int]]:
    return parse_limits(context.view.read(_LIMITS) or "")


def _number(text: str) -> int:
    return _UNLIMITED if text == "unlimited" else int(text)


CHECKS = (limit_open_files, limit_locked_memory, limit_processes)
