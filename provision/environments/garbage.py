"""Clearing away environments that nothing needs any more."""

from __future__ import annotations

from collections.abc import Iterable

from provision.environments.claims import is_claimed
from provision.environments.layout import CURRENT, PREVIOUS, STAMP, Environment, list_environments
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
    return tuple(environment.path for environment in removable)


def superfluous(view: HostView, prefix: str, *, keep: int = KEEP) -> tuple[Environment, ...]:
    """What `collect_garbage` would remove."""
    environments = list_environments(view, prefix)
    processes = [process for process in view.processes() if prefix in process.command]
    needed = [
        each
        for each in environments
        if each.current or each.previous or is_claimed(each.path) or _used(view, prefix, each.path, processes)
    ]
    others = [each for each in environments if each not in needed and each.stamp]
    # What has no stamp is of no use: whoever makes one now holds the lock.
    unfinished = [each for each in environments if each not in needed and not each.stamp]
    return (*others[max(0, keep - len(needed)) :], *unfinished)


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
