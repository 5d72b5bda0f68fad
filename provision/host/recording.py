"""Records what is asked of a machine, so that the same can be asked again of a folder (`FolderHost`)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from threading import Lock
from typing import TypeVar

import msgspec
import yaml

from provision import trust
from provision.errors import ProvisionError, UsageError
from provision.host import files as files_of_ours
from provision.host.folder import (
    COMMANDS,
    ROOT,
    VIEW,
    Recorded,
    RecordedDisk,
    RecordedPath,
    RecordedView,
    stable,
)
from provision.host.masking import Masks
from provision.host.recordable import recordable
from provision.host.view import QUERY_TIMEOUT_S, DiskSpace, HostView, Listener, Outcome, PathInfo, Process, Reach

T = TypeVar("T")

# Where a machine and its users are named; read when a capture is written, and never written themselves.
_NAMED_IN = "/etc/hostname"
# Files of the kernel, all of which have modes of their own that say nothing; the mode that others have.
_KERNEL = ("/proc/", "/sys/")
_USUAL_MODE = 0o644
# In /etc/passwd: which field the number is in, and from where on people have theirs.
_UID = 2
_PEOPLE = 1000
_NAMING_VARIABLES = ("USER", "LOGNAME", "HOSTNAME")
# Their values identify; that they are set is what matters.
_MASKED_VARIABLES = ("RUNPOD_POD_ID", "KUBERNETES_SERVICE_HOST", "SLURM_JOB_ID")


class RecordingHost:
    """A view that answers as `view` does and remembers it. Probes ask from several threads at once."""

    def __init__(self, view: HostView) -> None:
        self._view = view
        self._lock = Lock()
        self._commands: dict[tuple[str, ...], Outcome] = {}
        self._files: dict[str, str] = {}
        self._paths: dict[str, PathInfo] = {}
        self._disks: dict[str, RecordedDisk] = {}
        self._variables: dict[str, str] = {}
        self._listeners: tuple[Listener, ...] = ()
        self._processes: tuple[Process, ...] = ()
        self._reached: dict[str, Reach] = {}

    @property
    def name(self) -> str:
        return self._view.name

    @property
    def recorded(self) -> bool:
        return self._view.recorded

    def query(self, argv: Sequence[str], *, timeout_s: float = QUERY_TIMEOUT_S) -> Outcome:
        outcome = self._view.query(argv, timeout_s=timeout_s)
        return self._keep(lambda: self._commands.__setitem__(stable(tuple(argv)), outcome), outcome)

    def read(self, path: str) -> str | None:
        return self._kept_text(path, self._view.read(path))

    def require_trusted(self, path: str) -> None:
        self._view.require_trusted(path)

    def read_state(self, path: str) -> str | None:
        return self._kept_text(path, self._view.read_state(path))

    def read_link(self, path: str) -> str | None:
        """Handed on and not kept: what it leads to is asked for by its own name."""
        return self._view.read_link(path)

    def _kept_text(self, path: str, text: str | None) -> str | None:
        kept = recordable(path, text) if text is not None else None
        # Nothing left of an environment: whoever asks again is told that there is none, which comes to the same.
        unsaid = kept is None or (not kept and bool(text))
        return self._keep(lambda: self._files.update({} if unsaid or kept is None else {path: kept}), text)

    def read_bytes(self, path: str, limit: int) -> bytes | None:
        """Handed on and not kept: a folder is read by people."""
        return self._view.read_bytes(path, limit)

    def glob(self, pattern: str) -> tuple[str, ...]:
        paths = self._view.glob(pattern)
        for path in paths:
            self.stat(path)
        return paths

    def stat(self, path: str) -> PathInfo | None:
        info = self._view.stat(path)
        return self._keep(lambda: self._paths.update({path: info} if info else {}), info)

    def disk(self, path: str) -> DiskSpace | None:
        disk = self._view.disk(path)
        recorded = RecordedDisk(mount=path, silent=True)
        if disk:
            recorded = RecordedDisk(
                mount=disk.mount,
                total=disk.total,
                free=disk.free,
                filesystem=disk.filesystem,
                inodes_free=disk.inodes_free,
            )
        return self._keep(lambda: self._disks.__setitem__(recorded.mount, recorded), disk)

    def listeners(self) -> tuple[Listener, ...]:
        found = self._view.listeners()
        return self._keep(lambda: setattr(self, "_listeners", found), found)

    def processes(self) -> tuple[Process, ...]:
        found = self._view.processes()
        return self._keep(lambda: setattr(self, "_processes", found), found)

    def variable(self, name: str) -> str | None:
        value = self._view.variable(name)
        return self._keep(lambda: self._variables.update({name: value} if value is not None else {}), value)

    def reach(self, host: str, port: int, *, timeout_s: float) -> Reach | None:
        found = self._view.reach(host, port, timeout_s=timeout_s)
        return self._keep(lambda: self._reached.update({f"{host}:{port}": found} if found else {}), found)

    def bind_problem(self, address: str) -> str | None:
        return self._view.bind_problem(address)

    def save(self, folder: str | Path) -> None:
        """Write the machine folder, ids masked. An older capture in the same place is replaced, nothing else is."""
        target = Path(folder)
        # Whoever could put links into it would have us write elsewhere.
        trust.require(str(target))
        try:
            is_other = target.exists() and not (target / COMMANDS).is_file()
            is_full = is_other and (not target.is_dir() or any(target.iterdir()))
        except OSError as error:
            raise _not_written(folder, error) from error
        if is_full:
            raise UsageError(f"`{folder}` holds something else than a machine", hint="name a new or empty directory")
        masks = Masks(self._names())
        commands = [
            _recorded(argv, outcome, masks) for argv, outcome in sorted(self._commands.items(), key=itemgetter(0))
        ]
        files = {masks.text(path): masks.text(text) for path, text in sorted(self._files.items())}
        try:
            _write(target, files, {VIEW: self._recorded_view(masks), COMMANDS: commands})
        except OSError as error:
            raise _not_written(folder, error) from error

    def _keep(self, remember: Callable[[], object], answer: T) -> T:
        with self._lock:
            remember()
        return answer

    def _names(self) -> set[str]:
        """The words that name this machine and those who use it."""
        texts = [self._view.read(_NAMED_IN), self._view.query(["uname", "-n"]).out]
        texts += [self._view.variable(name) for name in _NAMING_VARIABLES]
        named = {text.strip() for text in texts if text}
        users = {one.user for one in self._listeners if one.user} | {one.user for one in self._processes}
        home = (self._view.variable("HOME") or "").rstrip("/").rpartition("/")[2]
        words = named | users | {home} | {name.partition(".")[0] for name in named}
        return {word for word in words - self._services() if not word.isdecimal()}

    def _services(self) -> set[str]:
        """Accounts that no person has: their names are those of programs (`munge`, `nvidia-persistenced`)."""
        fields = [line.split(":") for line in (self._view.read("/etc/passwd") or "").splitlines()]
        return {each[0] for each in fields if len(each) > _UID and each[_UID].isdecimal() and int(each[_UID]) < _PEOPLE}

    def _recorded_view(self, masks: Masks) -> RecordedView:
        variables = {name: masks.text(value) for name, value in sorted(self._variables.items())}
        variables.update({name: "masked" for name in _MASKED_VARIABLES if name in variables})
        return RecordedView(
            variables=variables,
            # What was read is in the folder as a file and needs no second mention, unless it is of another kind.
            paths={
                masks.text(path): RecordedPath(
                    mode=info.mode,
                    uid=info.uid,
                    owner=masks.name(info.owner),
                    size=info.size,
                    is_directory=info.is_directory,
                    writable=info.writable,
                )
                for path, info in sorted(self._paths.items())
                if path not in self._files or _is_particular(path, info)
            },
            disks=tuple(
                msgspec.structs.replace(disk, mount=masks.text(mount)) for mount, disk in sorted(self._disks.items())
            ),
            listeners=tuple(
                replace(
                    owner,
                    address=masks.text(owner.address),
                    command=masks.text(owner.command) if owner.command else None,
                    user=masks.name(owner.user) if owner.user else None,
                )
                for owner in self._listeners
            ),
            processes=tuple(
                replace(owner, command=masks.text(owner.command), user=masks.name(owner.user))
                for owner in self._processes
            ),
            reached={masks.text(place): reach.state for place, reach in sorted(self._reached.items())},
        )


def _not_written(folder: str | Path, error: OSError) -> ProvisionError:
    failed = files_of_ours.failed("written", str(folder), error)
    return trust.not_permitted(str(folder)) if isinstance(error, PermissionError) else failed


def _is_particular(path: str, info: PathInfo) -> bool:
    """Whether a file is one that not everybody may read: a credential's mode is looked at."""
    return not path.startswith(_KERNEL) and (info.mode != _USUAL_MODE or not info.writable)


def _recorded(argv: tuple[str, ...], outcome: Outcome, masks: Masks) -> Recorded:
    return Recorded(
        argv=tuple(masks.text(word) for word in argv),
        rc=outcome.rc or 0,
        out=masks.text(outcome.out),
        err=masks.text(outcome.err),
        hangs=outcome.installed and outcome.rc is None,
        installed=outcome.installed,
    )


def _write(target: Path, files: Mapping[str, str], documents: Mapping[str, object]) -> None:
    root = target / ROOT
    if root.exists():
        shutil.rmtree(root)
    root.mkdir(parents=True)
    for path, text in files.items():
        there = root / path.lstrip("/")
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_text(text, encoding="utf-8")
    for name, document in documents.items():
        plain = msgspec.to_builtins(document)
        text = yaml.dump(plain, Dumper=_Readable, sort_keys=False, allow_unicode=True, width=1000)
        (target / name).write_text(text, encoding="utf-8")


class _Readable(yaml.SafeDumper):
    """Text of several lines as it looked, because a machine folder is read and edited by people."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Readable.add_representer(str, _represent_text)
