"""Which Python the archive of an operating system has: the one that a command of its own gives."""

from __future__ import annotations

from functools import cache
from importlib import resources

import msgspec


class Archive(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which Python an operating system's own packages have; `extra` is a source that has others too."""

    os: str
    version: str
    python: str
    source: str
    extra: str | None = None


def archive_of(system: str, version: str) -> Archive | None:
    """The archive of an operating system, such as `debian` `12`."""
    return next((row for row in archives() if (row.os, row.version) == (system, version)), None)


@cache
def archives() -> tuple[Archive, ...]:
    """The rows of `archives.yml`."""
    text = resources.files("provision.catalog").joinpath("data/archives.yml").read_bytes()
    return msgspec.yaml.decode(text, type=tuple[Archive, ...])
