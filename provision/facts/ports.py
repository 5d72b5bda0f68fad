"""Who listens on this host."""

from __future__ import annotations

from dataclasses import replace

from provision.host import HostView, Listener
from provision.secrets import mask


def probe_listeners(view: HostView) -> tuple[Listener, ...]:
    """Listening TCP sockets with their owners; secrets in command lines are hidden before anyone can print them."""
    return tuple(
        replace(listener, command=mask(listener.command)) if listener.command else listener
        for listener in view.listeners()
    )
