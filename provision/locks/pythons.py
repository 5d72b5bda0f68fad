"""The Pythons that a bundle may carry, by hash, from `lockfiles/pythons.yml`: what the pinned uv fetches, too."""

from __future__ import annotations

from typing import Annotated

import msgspec

from provision.catalog.shipped import folder
from provision.errors import ProvisionError, UsageError

FILE = "pythons.yml"
# What every address begins with that is known; a mirror takes the place of it, as with uv.
ORIGIN = "https://github.com/astral-sh/python-build-standalone/releases/download"


class KnownPython(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One archive. `version` is full ("3.12.16"), `path` is below `ORIGIN` or its mirror, escaped as in an address."""

    version: Annotated[str, msgspec.Meta(pattern=r"^3\.\d+\.\d+$")]
    arch: str
    path: str
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]

    @property
    def minor(self) -> str:
        return self.version.rpartition(".")[0]


def known() -> tuple[KnownPython, ...]:
    """The rows of `pythons.yml`."""
    path = folder("lockfiles") / FILE
    try:
        return msgspec.yaml.decode(path.read_bytes(), type=tuple[KnownPython, ...])
    except (OSError, msgspec.DecodeError) as error:
        raise ProvisionError(f"`{path}` cannot be read: {error}", hint="make it again with `tools/pythons`") from error


def one_for(python: str, arch: str) -> KnownPython:
    """The archive of a minor version. Raises `UsageError` where none is known."""
    found = next((row for row in known() if (row.minor, row.arch) == (python, arch)), None)
    if found is None:
        there = ", ".join(sorted({row.minor for row in known() if row.arch == arch})) or "none"
        raise UsageError(f"no Python {python} for {arch} is known by its hash", hint=f"there are {there}")
    return found
