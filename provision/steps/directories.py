"""The step that makes the directories everything else goes into, with their modes and owners."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from provision.errors import StepFailed
from provision.host import Host, HostView
from provision.steps.base import Progress

_OTHERS = 0o077


@dataclass(frozen=True, kw_only=True)
class Directory:
    """A directory to be there. `private` keeps other users out; `owner` is a user's name, None for whoever we are."""

    path: str
    private: bool = False
    owner: str | None = None

    @property
    def mode(self) -> int:
        return 0o700 if self.private else 0o755


@dataclass(frozen=True, kw_only=True)
class Directories:
    """All of them are there, writable, and private where they are to be. Modes of what was there are not widened."""

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
            _make(host, directory)
            if problem := _problem(host, directory):
                raise StepFailed(problem, hint=_remedy(host, directory))
        return f"{made} made, {len(self.directories) - made} were there"


def _make(host: Host, directory: Directory) -> None:
    host.make_directory(directory.path, mode=directory.mode)
    info = host.stat(directory.path)
    if info is None or not info.is_directory:
        return
    if directory.private and info.mode & _OTHERS:
        host.run(["chmod", "700", directory.path], timeout_s=30)
    if directory.owner and info.owner != directory.owner:
        host.run(["chown", directory.owner, directory.path], timeout_s=30)


def _problem(view: HostView, directory: Directory) -> str | None:
    info = view.stat(directory.path)
    if info is None:
        return f"`{directory.path}` is not there"
    if not info.is_directory:
        return f"`{directory.path}` is not a directory"
    if directory.owner and info.owner != directory.owner:
        return f"`{directory.path}` belongs to {info.owner}, not to {directory.owner}"
    if not info.writable:
        return f"`{directory.path}` belongs to {info.owner} (mode {info.mode:o}) and is not writable"
    if directory.private and info.mode & _OTHERS:
        return f"`{directory.path}` (mode {info.mode:o}) is open to other users"
    return None


def _remedy(view: HostView, directory: Directory) -> str:
    info = view.stat(directory.path)
    if info is not None and not info.is_directory:
        return f"move it away, or name another place: `mv {directory.path} {directory.path}.old`"
    owner = directory.owner or view.variable("USER") or '"$USER"'
    return f"`sudo chown {owner} {directory.path}`, or name another place with `--prefix`"
