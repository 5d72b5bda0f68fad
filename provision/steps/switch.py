"""The step that puts a complete environment in use; the one before it is kept for rollback."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from provision import environments
from provision.host import Host, HostView
from provision.steps.base import Progress


@dataclass(frozen=True, kw_only=True)
class Switch:
    """`current` leads to the environment at `path`."""

    prefix: str
    path: str

    @property
    def id(self) -> str:
        return "switch"

    looks_only = False

    def preview(self) -> str:
        return f"use `{self.path}` from now on"

    def satisfied(self, host: HostView) -> bool:
        return environments.current(host, self.prefix) == self.path

    def apply(self, host: Host, tell: Callable[[Progress], None]) -> str:
        tell(Progress(text=self.preview()))
        before = environments.current(host, self.prefix)
        environments.switch(host, self.prefix, self.path)
        return f"`{self.path}` is in use" + (f"; `{before}` is kept" if before and before != self.path else "")
