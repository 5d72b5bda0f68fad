"""Which unpacked wheels in uv's cache were compared with their source before, so that they need not be read again.

uv links files from its cache. What it unpacked in this run came from a wheel whose hash is in the lock; what lay in the
cache before may have been changed since. The second time it is enough that RECORD says the same as when it came, and
that every file is the same inode, of the same size, mode and time: an edit or a power cut changes one of them. Kept in
the caller's state directory, a file for each wheel; without it, everything is read.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from provision import trust
from provision.environments.manifest import Claim, File
from provision.errors import ProvisionError
from provision.host import HostView
from provision.host.files import write
from provision.host.scratch import state_directory
from provision.locks.lockfile import Requirement

_FOLDER = "known-wheels"
# What uv writes into an environment itself, besides the programs in `bin`.
_WRITTEN_BY_UV = {"INSTALLER", "REQUESTED", "RECORD", "direct_url.json", "uv_cache.json", "uv_build.json"}


class Known(msgspec.Struct, array_like=True, frozen=True):
    """One wheel, as it was when it was compared. `record` is the sha256 of RECORD in the environment, `origin` the
    digest of what it says of the wheel's own files; `times` and `inodes` are of `files`, one by one.
    """

    record: str
    origin: str
    files: tuple[File, ...]
    times: tuple[int, ...]
    inodes: tuple[int, ...]

    def changed(self, tree: Mapping[str, os.stat_result]) -> list[File]:
        """The files that are not the very ones that were compared then, or are not there."""
        found = []
        for file, time_ns, inode in zip(self.files, self.times, self.inodes, strict=True):
            now = tree.get(file.path)
            if (
                now is None
                or now.st_ino != inode
                or now.st_mtime_ns != time_ns
                or now.st_size != file.size
                or now.st_mode != file.mode | stat.S_IFREG
            ):
                found.append(file)
        return found


class KnownWheels:
    """Found by the hash that the lock has of a wheel, and by the directory that it is installed into.

    Under another Python that has another name, and so have the files.
    """

    def __init__(self, view: HostView) -> None:
        self._folder: Path | None = None
        with suppress(ProvisionError):
            self._folder = state_directory(view) / _FOLDER

    def get(self, pin: Requirement, site: str) -> Known | None:
        with suppress(ProvisionError, OSError, msgspec.DecodeError):
            if self._folder:
                with os.fdopen(trust.open_state(str(self._folder / _name(pin, site))), "rb") as stream:
                    return msgspec.json.decode(stream.read(), type=Known)
        return None

    def put(self, pin: Requirement, site: str, known: Known) -> None:
        """Remember it. That it cannot be written only costs time."""
        with suppress(ProvisionError):
            if self._folder:
                write(str(self._folder / _name(pin, site)), msgspec.json.encode(known).decode(), mode=0o600)


def origin_of(claims: Iterable[Claim], unlisted: Iterable[str]) -> str:
    """The digest of what a RECORD says of the wheel's own files; `unlisted` are files that it leaves out."""
    lines = [f"{one.path},{one.sha256},{one.size}" for one in claims if not _is_written_by_uv(one.path)]
    text = "\n".join((*sorted(lines), *sorted(unlisted)))
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _is_written_by_uv(path: str) -> bool:
    folder, _, name = path.rpartition("/")
    return folder == "bin" or (name in _WRITTEN_BY_UV and folder.endswith(".dist-info"))


def _name(pin: Requirement, site: str) -> str:
    return hashlib.sha256(",".join((site, pin.name, pin.version, *pin.sha256)).encode()).hexdigest()[:32] + ".json"
