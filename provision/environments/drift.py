"""A note in an environment of what was found to differ from its wheels: until it is made anew, it is not complete."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import msgspec

from provision.environments.layout import DRIFT
from provision.errors import ProvisionError
from provision.host import Host, HostView


def note(host: Host, path: str, packages: Iterable[str]) -> None:
    """Note it, so that the next run makes the environment anew, and fetches those packages. Left out where it cannot
    be written."""
    with suppress(ProvisionError):
        host.write(f"{path}/{DRIFT}", msgspec.json.encode(sorted(packages)).decode())


def packages(view: HostView, path: str) -> tuple[str, ...]:
    """The packages that are noted."""
    text = view.read_state(f"{path}/{DRIFT}")
    with suppress(msgspec.DecodeError):
        return msgspec.json.decode(text, type=tuple[str, ...]) if text else ()
    return ()
