"""Have a server that was started kept up: by its container's engine, by systemd, or by a supervisor of ours."""

from __future__ import annotations

from provision.catalog.load import Catalog
from provision.config import Options
from provision.decision.choose import places_of
from provision.errors import UsageError
from provision.host.local import LocalHost
from provision.serving import server, watchman

# How often a container's engine starts it again by itself.
RESTARTS = 5


def keep(host: LocalHost, wishes: Options, name: str | None) -> str:
    """Who keeps the server up from now on, in a sentence."""
    layout = Catalog().target(wishes.target).layout if wishes.target else None
    home = host.variable("HOME") or "/root"
    prefix = places_of(layout, wishes, home).prefix if layout else wishes.prefix or ""
    known = server.known(host, f"{prefix}/servers", name=name or "")
    if known.container:
        if not known.container.restarts:
            raise UsageError(
                f"the container of `{known.name}` was started without a restart policy",
                hint=f"`sgprov serve stop {known.name}`, then `sgprov serve start {known.name} --restart"
                f" --target {known.target or 'NAME'}`",
            )
        return f"its engine starts it again, at most {known.container.restarts} times"
    return watchman.start(host, known)
