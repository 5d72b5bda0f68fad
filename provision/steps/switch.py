"""The step that puts a complete environment in use; the one before it is kept for rollback."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from provision import environments
from provision.host import Host, HostView
from provision.serving import record
from provision.steps.base import Progress


@dataclass(frozen=True, kw_only=True)
class Switch:
    """`current` leads to the environment at `path`.

    Several servers under one prefix may each have an environment of their own: one that the `server` (the directory of
    its record) was verified with is not put in use again in place of another server's.
    """

    prefix: str
    path: str
    server: str | None = None

    @property
    def id(self) -> str:
        return "switch"

    looks_only = False

    def preview(self) -> str:
        return f"use `{self.path}` from now on"

    def satisfied(self, host: HostView) -> bool:
        if environments.current(host, self.prefix) == self.path:
            return True
        verified = environments.read_receipt(host, self.server) if self.server else None
        ours = verified is not None and verified.environment == self.path.rsplit("/", 1)[-1]
        return ours and is_anothers(host, self.prefix, self.server)

    def apply(self, host: Host, tell: Callable[[Progress], None]) -> str:
        tell(Progress(text=self.preview()))
        before = environments.current(host, self.prefix)
        environments.switch(host, self.prefix, self.path)
        return f"`{self.path}` is in use" + (f"; `{before}` is kept" if before and before != self.path else "")


def is_anothers(view: HostView, prefix: str, server: str | None) -> bool:
    """Whether the environment in use is that of another server than the one whose record is in `server`."""
    now = environments.current(view, prefix)
    if now is None or server is None:
        return False
    servers = f"{prefix}/servers"
    directories = [record.directory_of(servers, name) for name in record.names(view, servers)]
    others = [record.load(view, directory) for directory in directories if directory != server]
    return any(environments.python_of(now) in other.argv for other in others if other)
