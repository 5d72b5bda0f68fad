"""What a lock's wheels weigh, from `lockfiles/sizes.yml`; a lock that is not listed there is of unknown size."""

from __future__ import annotations

from pathlib import Path

import msgspec

from provision.errors import ProvisionError
from provision.locks.lockfile import Lock

FILE = "sizes.yml"
# Wheels are zip archives. Those of the locks that were measured unpack to 1.9 to 2.4 times their size; the larger one
# is taken, because a disk that is thought too small can be named another place, and one that runs full cannot.
_UNPACKED = 2.4


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """Of one lock, in bytes: what is fetched, and what lies on disk afterwards (None where nobody measured it)."""

    download_bytes: int
    wheels: int
    installed_bytes: int | None = None

    @property
    def disk_bytes(self) -> int:
        """What lies on disk afterwards: measured, or estimated from what is fetched."""
        return self.installed_bytes or int(self.download_bytes * _UNPACKED)


def of(lock: Lock) -> Sizes | None:
    """The sizes of a lock, from the `sizes.yml` beside it, or None. Raises `ProvisionError` on an unreadable list."""
    return load(lock.path.parent / FILE).get(lock.name)


def load(path: Path) -> dict[str, Sizes]:
    """Lock file name to sizes; empty where there is no list."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return {}
    try:
        return msgspec.yaml.decode(text, type=dict[str, Sizes])
    except msgspec.DecodeError as error:
        raise ProvisionError(f"`{path}` is not a list of sizes: {error}", hint="make it again with `tools/`") from error
