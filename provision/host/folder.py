"""A machine as a folder: what was asked of a real one, answered again. For tests, bug reports and `--host DIR`."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Literal, TypeVar

from msgspec import Struct, ValidationError
from msgspec import yaml as typed_yaml

from provision import documents, trust
from provision.errors import UsageError
from provision.host.recordable import recordable
from provision.host.view import QUERY_TIMEOUT_S, DiskSpace, Listener, Outcome, PathInfo, Process, Reach

T = TypeVar("T")

COMMANDS = "commands.yml"
VIEW = "view.yml"
ROOT = "root"
_LIMIT_BYTES = 32 * 1024 * 1024
_PACKAGE = str(Path(__file__).parents[1])


class Recorded(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One command and what came of it. `hangs`: it gave no answer in the time it had."""

    argv: tuple[str, ...]
    rc: int = 0
    out: str = ""
    err: str = ""
    hangs: bool = False
    installed: bool = True


class RecordedPath(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A path of which only the status is of interest; the defaults are those of a file anyone may read."""

    mode: int | None = None
    uid: int = 0
    owner: str = "root"
    size: int = 0
    is_directory: bool = False
    writable: bool = True


class RecordedDisk(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A file system, sizes in bytes. `silent`: it gives no answer, as a dead network mount does."""

    mount: str
    total: int = 0
    free: int = 0
    filesystem: str = "ext4"
    inodes_free: int | None = None
    silent: bool = False


class RecordedView(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """`view.yml`: everything that is neither a command's answer nor a file's text."""

    variables: dict[str, str] = {}
    paths: dict[str, RecordedPath] = {}
    disks: tuple[RecordedDisk, ...] = ()
    listeners: tuple[Listener, ...] = ()
    processes: tuple[Process, ...] = ()
    reached: dict[str, Literal["reached", "unknown", "refused", "silent"]] = {}


class FolderHost:
    """A recorded machine. A command that nobody recorded is not installed: silence is never "fine"."""

    recorded = True

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        try:
            is_folder = self._folder.is_dir()
        except PermissionError as error:
            raise trust.not_permitted(str(folder)) from error
        if not is_folder:
            raise UsageError(
                f"there is no machine folder at `{folder}`", hint="`sgprov facts --capture DIR` writes one"
            )
        commands = _load(self._folder / COMMANDS, tuple[Recorded, ...])
        if commands is None:
            raise UsageError(
                f"`{folder}` is not a machine folder: it has no `{COMMANDS}`",
                hint="`sgprov facts --capture DIR` writes one",
            )
        self._commands = {command.argv: command for command in commands}
        self._view = _load(self._folder / VIEW, RecordedView) or RecordedView()

    @property
    def name(self) -> str:
        return self._folder.resolve().name

    def query(self, argv: Sequence[str], *, timeout_s: float = QUERY_TIMEOUT_S) -> Outcome:
        command = tuple(argv)
        recorded = self._commands.get(stable(command))
        if recorded is None or not recorded.installed:
            return Outcome(command, None, installed=False)
        if recorded.hangs:
            return Outcome(command, None, seconds=timeout_s)
        return Outcome(command, recorded.rc, recorded.out, recorded.err)

    def read(self, path: str) -> str | None:
        raw = self.read_bytes(path, _LIMIT_BYTES)
        if raw is None:
            return None
        text = raw.decode("utf-8", errors="replace")
        # A folder made by hand may hold more than a capture does.
        return recordable(path, text)

    def read_bytes(self, path: str, limit: int) -> bytes | None:
        """Of what was recorded, which is text: a file of weights is never in a folder."""
        there = self._real(path)
        try:
            # A folder that somebody sent may hold links: they lead no further than to what was sent.
            if not there.resolve().is_relative_to((self._folder / ROOT).resolve()):
                return None
            return documents.read_input(there, limit=_LIMIT_BYTES)[:limit]
        except (UsageError, OSError, RuntimeError):
            return None

    def require_trusted(self, path: str) -> None:
        """Nothing of what was recorded is run or written."""

    def read_state(self, path: str) -> str | None:
        return self.read(path)

    def read_link(self, path: str) -> str | None:
        try:
            return str(self._real(path).readlink())
        except OSError:
            return None

    def glob(self, pattern: str) -> tuple[str, ...]:
        matches = _pattern(pattern).fullmatch
        return tuple(sorted(path for path in self._known() if matches(path)))

    def stat(self, path: str) -> PathInfo | None:
        recorded = self._view.paths.get(path)
        there = self._real(path)
        if recorded is None:
            if not there.exists() and path not in self._known():
                return None
            directory = not there.is_file()
            recorded = RecordedPath(is_directory=directory, size=0 if directory else there.stat().st_size)
        mode = recorded.mode if recorded.mode is not None else (0o755 if recorded.is_directory else 0o644)
        return PathInfo(
            mode=mode,
            uid=recorded.uid,
            owner=recorded.owner,
            size=recorded.size,
            is_directory=recorded.is_directory,
            writable=recorded.writable,
        )

    def disk(self, path: str) -> DiskSpace | None:
        """By the longest mount that `path` lies on; a folder without any says nothing of disks."""
        holding = [disk for disk in self._view.disks if Path(path).is_relative_to(disk.mount)]
        disk = max(holding, key=lambda disk: len(disk.mount), default=None)
        if disk is None or disk.silent:
            return None
        return DiskSpace(
            path=path,
            mount=disk.mount,
            filesystem=disk.filesystem,
            total=disk.total,
            free=disk.free,
            inodes_free=disk.inodes_free,
        )

    def listeners(self) -> tuple[Listener, ...]:
        # Built anew: msgspec leaves defaults of dataclasses unset in what it decodes, and then leaves them out of JSON.
        return tuple(replace(listener) for listener in self._view.listeners)

    def processes(self) -> tuple[Process, ...]:
        return tuple(replace(process) for process in self._view.processes)

    def variable(self, name: str) -> str | None:
        return self._view.variables.get(name)

    def reach(self, host: str, port: int, *, timeout_s: float) -> Reach | None:
        del timeout_s
        state = self._view.reached.get(f"{host}:{port}")
        return Reach(state=state) if state else None

    def bind_problem(self, address: str) -> str | None:  # noqa: ARG002  # a recording has no addresses
        return None

    def _real(self, path: str) -> Path:
        # Joined as text: an absolute right side would replace the root; `..` must not lead out of the folder.
        return self._folder / ROOT / "/".join(part for part in path.split("/") if part not in {"", ".", ".."})

    @cache  # noqa: B019  # a folder is read once and lives as long as the process
    def _known(self) -> frozenset[str]:
        """Every path there is: the files below `root`, what `view.yml` names, and the directories above both."""
        root = self._folder / ROOT
        files = {f"/{path.relative_to(root)}" for path in root.rglob("*")}
        named = files | set(self._view.paths)
        return frozenset(named | {str(parent) for path in named for parent in Path(path).parents})


def stable(argv: tuple[str, ...]) -> tuple[str, ...]:
    """The name of a command in folders: a script of ours lies elsewhere on each machine.

    `/usr/bin/python3.10 -I -S …/ask_python.py` is a question to that interpreter: its last word becomes
    `sgprov-ask-python`. Where our own interpreter runs the script it is only the means: `sgprov-ask-nvml` alone.
    So is the place of uv, which comes with us.
    """
    if argv[0].endswith("/uv"):
        # What follows says where it stands and which configuration it reads.
        return ("uv", *takewhile(lambda word: word != "--directory", argv[1:]))
    script = argv[-1]
    if not (script.startswith(_PACKAGE) and script.endswith(".py")):
        return argv
    name = f"sgprov-{Path(script).stem.replace('_', '-')}"
    return (*argv[:-1], name) if "-S" in argv else (name,)


def _load(path: Path, kind: type[T]) -> T | None:
    if not os.path.lexists(path):
        return None
    raw = documents.read_input(path, limit=_LIMIT_BYTES)
    try:
        documents.check_yaml(raw.decode(), source=f"`{path}`")
        return typed_yaml.decode(raw, type=kind)
    except (ValidationError, ValueError, RecursionError) as error:
        raise UsageError(f"`{path}` is not what a machine folder holds: {error}") from error


@cache
def _pattern(pattern: str) -> re.Pattern[str]:
    """A shell's pattern; `*` stays within one directory and does not match hidden names."""
    parts = []
    for segment in pattern.split("/"):
        text = re.escape(segment).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
        text = re.sub(r"\\\[(.+?)\\\]", lambda found: "[" + found[1].replace("\\-", "-") + "]", text)
        parts.append(f"(?!\\.){text}" if segment.startswith(("*", "?")) else text)
    return re.compile("/".join(parts))
