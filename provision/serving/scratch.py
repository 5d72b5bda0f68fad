"""The temporary files of a server: in a directory of its own that nobody else can enter, gone when it has ended.

Engines leave files in TMPDIR and segments in /dev/shm, a few with every start, and keep sockets in TMPDIR over which
they send each other pickles. The directory lies where the machine has its temporary files, because the path of a socket
may not be longer than 107 bytes and other file systems may have none.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from provision import trust
from provision.errors import ServingFailed
from provision.host.view import HostView
from provision.serving import processes

_PREFIX, _OWNER = "sgprov-", ".sgprov.json"
_NAME = re.compile(rf"{_PREFIX}[0-9a-f]{{32}}")
SHARED = "/dev/shm/"  # noqa: S108  # what servers left there is removed from it
# One that was only just made may not say yet whose it is.
_STALE_S = 3600.0


class _Owner(msgspec.Struct, frozen=True, kw_only=True):
    """Whose directory it is, and the segments of shared memory that its processes were seen to use."""

    pid: int
    started: int
    boot: str
    segments: tuple[str, ...] = ()


def make(view: HostView, marker: str) -> str:
    """A new directory for the start with that marker. What others made by that name is not taken.

    Raises `UntrustedPath` where TMPDIR is a directory in which it could be exchanged.
    """
    path = Path(tempfile.gettempdir(), f"{_PREFIX}{marker}")
    # In a directory where others may rename what is ours, it would not stay ours.
    trust.require(str(path))
    try:
        path.mkdir(mode=0o700)
    except OSError as error:
        raise ServingFailed(
            f"a directory for the server's temporary files could not be made: `{path}`: {error.strerror}",
            hint="see that the disk has room, or set `TMPDIR`",
        ) from error
    # Until the server runs it is ours: killed before that, we leave a directory that is known to be nobody's.
    ourselves = processes.find(view, os.getpid())
    _write(view, path, pid=os.getpid(), started=ourselves.started if ourselves else 0)
    return str(path)


def note(view: HostView, directory: str, *, pid: int, started: int) -> None:
    """Write down whose the directory is, and which segments its processes use now."""
    path = Path(directory)
    marker, known = path.name.removeprefix(_PREFIX), _owner(path)
    pids = [one.pid for one in processes.tree(view, pid=pid, started=started, marker=marker)]
    segments = {*(known.segments if known else ()), *_segments(view, pids)}
    _write(view, path, pid=pid, started=started, segments=tuple(sorted(segments)))


def _write(view: HostView, path: Path, *, pid: int, started: int, segments: tuple[str, ...] = ()) -> None:
    owner = _Owner(pid=pid, started=started, boot=processes.boot_id(view), segments=segments)
    with suppress(OSError):
        descriptor = os.open(path / _OWNER, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(msgspec.json.encode(owner))


def remove(view: HostView, directory: str) -> None:
    """Remove what the server left that has ended."""
    path = Path(directory)
    if not _is_ours(path):
        return
    owner = _owner(path)
    _unlink(view, owner.segments if owner else ())
    shutil.rmtree(path, ignore_errors=True)


def sweep(view: HostView) -> None:
    """Remove what dead servers left: those that ended by themselves, whose record is gone, or before a reboot."""
    boot = processes.boot_id(view)
    if boot != _boot_here():
        return  # the processes that are seen are of another machine than these files
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if not _is_ours(path):
            continue
        owner = _owner(path)
        if owner is None and time.time() - path.lstat().st_mtime < _STALE_S:
            continue
        if owner is None or owner.boot != boot or not _lives(view, path, owner):
            remove(view, str(path))


def _lives(view: HostView, path: Path, owner: _Owner) -> bool:
    if owner.pid == os.getpid():
        return True
    marker = path.name.removeprefix(_PREFIX)
    return bool(processes.tree(view, pid=owner.pid, started=owner.started, marker=marker))


def _boot_here() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _is_ours(path: Path) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    named = _NAME.fullmatch(path.name) is not None
    return named and stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def _owner(path: Path) -> _Owner | None:
    try:
        return msgspec.json.decode((path / _OWNER).read_bytes(), type=_Owner)
    except (OSError, msgspec.MsgspecError):
        return None


def _segments(view: HostView, pids: Iterable[int]) -> Iterator[str]:
    """Names of the segments that processes have mapped."""
    for pid in pids:
        for line in (view.read(f"/proc/{pid}/maps") or "").splitlines():
            _, found, name = line.partition(f" {SHARED}")
            if found and "/" not in name and not name.endswith(" (deleted)"):
                yield name


def _unlink(view: HostView, segments: tuple[str, ...]) -> None:
    there = [name for name in segments if (Path(SHARED) / name).exists()]
    used = set(_segments(view, _pids(view))) if there else set[str]()
    for name in there:
        path = Path(SHARED) / name
        with suppress(OSError):
            if "/" not in name and name not in used and path.lstat().st_uid == os.geteuid():
                path.unlink()


def _pids(view: HostView) -> Iterator[int]:
    for path in view.glob("/proc/[0-9]*/stat"):
        yield int(path.split("/")[2])
