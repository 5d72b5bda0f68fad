"""What sgprov itself needs to run, by hash: `lockfiles/own/run.txt`, of which each Python and CPU takes its part."""

from __future__ import annotations

from functools import lru_cache

from packaging.markers import Marker

from provision.catalog.shipped import folder
from provision.errors import ProvisionError
from provision.locks.lockfile import Requirement, parse

FILE = "own/run.txt"


@lru_cache
def pins() -> tuple[Requirement, ...]:
    """Every line of the lock."""
    path = folder("lockfiles") / FILE
    try:
        return parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProvisionError(f"`{path}` cannot be read: {error}", hint="make it again with `tools/lock-own`") from error


def pinned(python: str, arch: str) -> tuple[Requirement, ...]:
    """The lines for one Python ("3.11") on Linux."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "platform_machine": arch,
        "platform_system": "Linux",
        "sys_platform": "linux",
        "os_name": "posix",
    }
    return tuple(pin for pin in pins() if pin.marker is None or Marker(pin.marker).evaluate(environment))


def digests() -> frozenset[str]:
    """The sha256 of every wheel that may be installed for sgprov itself."""
    return frozenset(digest for pin in pins() for digest in pin.sha256)
