"""The step that makes the directories everything else goes into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from provision import trust
from provision.errors import NotPermitted, StepFailed
from provision.host import Host, HostView, PathInfo
from provision.steps.base import Progress


@dataclass(frozen=True, kw_only=True)
class Directory:
    """A directory to be there. `mode` is what it is made with, whatever the user's umask.

    `ours` is one that sgprov alone has a use for: what lies in its place may be moved.
    """

    path: str
    mode: int = 0o755
    ours: bool = False


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

    def check(self, view: HostView) -> None:
        for directory in self.directories:
            _check(view, directory)

    def apply(self, host: Host, tell: Callable[[Progress], None]) -> str:
        made = 0
        for directory in self.directories:
            tell(Progress(text=directory.path))
            # Looked at before it is made in: what the system says of a file in the way helps nobody.
            place = _check(host, directory)
            # One of models may be a team's, in which others write: it is used as it is.
            if place is None or place.path != directory.path:
                host.make_directory(directory.path, mode=directory.mode)
                made += 1
        return f"{made} made, {len(self.directories) - made} were there"


def _nearest(view: HostView, directory: Directory) -> Directory | None:
    """The directory itself where it is there, else the nearest above it that is: there it will be made."""
    paths = (directory.path, *map(str, PurePosixPath(directory.path).parents))
    return next((Directory(path=path) for path in paths if visible(view, path) is not None), None)


def visible(view: HostView, path: str) -> PathInfo | None:
    """What is there as far as the caller may look: what is closed is the directory above."""
    try:
        return view.stat(path)
    except NotPermitted:
        return None


def _check(view: HostView, directory: Directory) -> Directory | None:
    """Where it will be made. Raises `StepFailed` where that is no directory, or not writable."""
    place = _nearest(view, directory)
    if problem := place and _problem(view, place):
        raise StepFailed(problem, hint=_remedy(view, place, directory))
    return place


def _problem(view: HostView, directory: Directory) -> str | None:
    info = visible(view, directory.path)
    if info is None:
        return f"`{directory.path}` is not there"
    if not info.is_directory:
        return f"`{directory.path}` is not a directory"
    if not info.writable:
        return f"`{directory.path}` belongs to {info.owner} (mode {info.mode:o}) and is not writable"
    return None


def _remedy(view: HostView, place: Directory, directory: Directory) -> str:
    """What helps where `place`, the directory itself or one above it, is in the way."""
    info = view.stat(place.path)
    if info is not None and not info.is_directory:
        if directory.ours and place.path == directory.path:
            return f"{trust.out_of_the_way(place.path)}, and run the same command again"
        return "name another place with `--prefix` (models: `--model-directory`, cache: `--cache-directory`)"
    owner = view.variable("USER") or '"$USER"'
    command = f"chown {owner}" if place.path == directory.path else f"install -d -o {owner}"
    return f"`sudo {command} {directory.path}`, or name another place with `--prefix`"
