"""Clearing away environments that nothing needs any more."""

from __future__ import annotations

from collections.abc import Iterable

from provision.environments.claims import is_claimed
from provision.environments.layout import (
    BYTECODE,
    BYTECODE_INSIDE,
    CURRENT,
    PREVIOUS,
    STAMP,
    Environment,
    list_environments,
)
from provision.environments.locking import alone
from provision.host import Host, HostView, Process

KEEP = 2


def collect_garbage(host: Host, prefix: str, *, keep: int = KEEP) -> tuple[str, ...]:
    """Remove old environments until `keep` are left, and return their paths.

    Never removed: the current one, the previous one, and any that a process uses. Files that are hard links into
    uv's cache give their space back only with `uv cache prune`. Raises `StepFailed` while another run installs.
    """
    with alone(host, prefix):
        removable = superfluous(host, prefix, keep=keep)
        for environment in removable:
            # The stamp goes first: what an interrupted removal leaves must not look whole.
            host.remove(f"{environment.path}/{STAMP}")
            host.remove(environment.path)
            # What its servers' Pythons compiled is kept under its path there (`PYTHONPYCACHEPREFIX`).
            for kept in (BYTECODE, BYTECODE_INSIDE):
                host.remove(f"{prefix}/{kept}{environment.path}")
    return tuple(environment.path for environment in removable)


def superfluous(view: HostView, prefix: str, *, keep: int = KEEP) -> tuple[Environment, ...]:
    """What `collect_garbage` would remove."""
    return tuple(one for one, why in judged(view, prefix, keep=keep) if why is None)


def judged(view: HostView, prefix: str, *, keep: int = KEEP) -> tuple[tuple[Environment, str | None], ...]:
    """Every environment, and why it stays; None where it does not."""
    environments = list_environments(view, prefix)
    processes = [process for process in view.processes() if prefix in process.command]
    needed = {one.path: why for one in environments if (why := _need(view, prefix, one, processes))}
    # What has no stamp is of no use: whoever makes one now holds the lock.
    others = [one for one in environments if one.path not in needed and one.stamp]
    spared = {one.path for one in others[: max(0, keep - len(needed))]}
    newest = f"one of the {keep} that `--keep` leaves"
    return tuple((one, needed.get(one.path, newest if one.path in spared else None)) for one in environments)


def _need(view: HostView, prefix: str, one: Environment, processes: Iterable[Process]) -> str | None:
    if one.current:
        return "it is in use (`current`)"
    if one.previous:
        return "`sgprov environments rollback` goes back to it"
    if is_claimed(one.path):
        return "a run that is going on is about to use it"
    return "a process runs from it" if _used(view, prefix, one.path, processes) else None


def _used(view: HostView, prefix: str, path: str, processes: Iterable[Process]) -> bool:
    """Whether a process runs from the environment, or is installing into it."""
    links = (f"{prefix}/{CURRENT}/", f"{prefix}/{PREVIOUS}/")
    for process in processes:
        if f"{path}/" in process.command:
            return True
        if not any(link in process.command for link in links):
            continue
        # Started through a link, a process names the link; what it has mapped names the directory. Another
        # user's maps cannot be read: then any environment may be the one in use.
        maps = view.read(f"/proc/{process.pid}/maps")
        if maps is None or f"{path}/" in maps:
            return True
    return False
