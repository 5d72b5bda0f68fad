"""Which unpacked wheels in uv's cache were compared with their source before, so that they need not be read again.

uv links files from its cache. What it unpacked in this run came from a wheel whose hash is in the lock; what lay in the
cache before may have been changed since. The second time it is enough that RECORD says the same as when it came, and
that every file is the same inode, of the same size and time: what an edit or a power cut changes. Kept in the caller's
state directory; without it, everything is read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress

import msgspec

from provision.environments.manifest import Claim
from provision.errors import ProvisionError
from provision.host import Host
from provision.host.scratch import state_directory
from provision.locks.lockfile import Requirement

_FILE = "known-wheels.json"
# What uv writes into an environment itself, besides the programs in `bin`.
_WRITTEN_BY_UV = {"INSTALLER", "REQUESTED", "RECORD", "direct_url.json", "uv_cache.json", "uv_build.json"}


class Known(msgspec.Struct, array_like=True, frozen=True):
    """`record` is the digest of what RECORD says, `files` that of how the files looked."""

    record: str
    files: str


class KnownWheels:
    """By the hash that the lock has of the wheel."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._wheels = self._read()
        self._new: dict[str, Known] = {}

    def get(self, pin: Requirement) -> Known | None:
        return self._wheels.get(_key(pin))

    def add(self, pin: Requirement, known: Known) -> None:
        if self._wheels.get(_key(pin)) != known:
            self._new[_key(pin)] = known

    def save(self) -> None:
        """What was added, over what others may have added meanwhile. That it cannot be written only costs time."""
        if self._new:
            with suppress(ProvisionError):
                wheels = {**self._read(), **self._new}
                text = msgspec.json.encode(wheels).decode()
                self._host.write(str(state_directory(self._host) / _FILE), text, mode=0o600)

    def _read(self) -> dict[str, Known]:
        with suppress(ProvisionError, msgspec.DecodeError):
            text = self._host.read_state(str(state_directory(self._host) / _FILE))
            return msgspec.json.decode(text.encode(), type=dict[str, Known]) if text else {}
        return {}


def record_digest(claims: Iterable[Claim], unlisted: Iterable[str]) -> str:
    """The digest of what a RECORD says of the wheel's own files; `unlisted` are files that it leaves out."""
    lines = [f"{one.path},{one.sha256},{one.size}" for one in claims if not _is_written_by_uv(one.path)]
    return _digest((*sorted(lines), *sorted(unlisted)))


def files_digest(files: Iterable[tuple[str, os.stat_result]]) -> str:
    """The digest of how files look; those that are not linked from the cache are left out: they are read."""
    return _digest(
        sorted(f"{path},{one.st_size},{one.st_mtime_ns},{one.st_ino}" for path, one in files if one.st_nlink > 1)
    )


def _is_written_by_uv(path: str) -> bool:
    folder, _, name = path.rpartition("/")
    return folder == "bin" or (name in _WRITTEN_BY_UV and folder.endswith(".dist-info"))


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def _key(pin: Requirement) -> str:
    return hashlib.sha256(",".join((pin.name, pin.version, *pin.sha256)).encode()).hexdigest()
