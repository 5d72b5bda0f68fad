"""The step that makes the directories everything else goes into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from provision.errors import StepFailed
from provision.host import Host, HostView
from provision.steps.base import Progress


@dataclass(frozen=True, kw_only=True)
class Directory:
    """A directory to be there."""

    path: str


@dataclass(frozen=True, kw_only=True)
class Directories:
    """All of them are there and writable. Modes of what was there are left alone."""

    directories: tuple[Directory, ...]

    @property
    def id(self) -> str:
        return "directories"

    looks_only = False

    def preview(self) -> str:
        return "make " + ", ".join(f"`{directory.path}`" for directory in self.directories)

    def satisfied(self, host: HostView) -> bool:
        return all(_problem(host, directory) is None for directory in self.directories)

    def apply(self, host: Host, tell: Callable[[Progress], None]) -> str:
        made = 0
        for directory in self.directories:
            tell(Progress(text=directory.path))
            made += host.stat(directory.path) is None
            host.make_directory(directory.path)
            if problem := _problem(host, directory):
                raise StepFailed(problem, hint=_remedy(host, directory))
        return f"{made} made, {len(self.directories) - made} were there"


def _problem(view: HostView, directory: Directory) -> str | None:
    info = view.stat(directory.path)
    if info is None:
        return f"`{directory.path}` is not there"
    if not info.is_directory:
        return f"`{directory.path}` is not a directory"
    if not info.writable:
        return f"`{directory.path}` belongs to {info.owner} (mode {info.mode:o}) and is not writable"
    return None


def _remedy(view: HostView, directory: Directory) -> str:
    info = view.stat(directory.path)
    if info is not None and not info.is_directory:
        return f"move it away, or name another place: `mv {directory.path} {directory.path}.old`"
    owner = view.variable("USER") or '"$USER"'
    return f"`sudo chown {owner} {directory.path}`, or name another place with `--prefix`"
