"""The command that ends a server of another prefix, as it is printed where its process stands in somebody's way."""

from __future__ import annotations

import shlex
from contextlib import suppress

from provision.errors import ProvisionError
from provision.host.view import HostView
from provision.serving import record


def stop(view: HostView, prefix: str, pid: int) -> str:
    """What ends the server under a prefix (`processes.prefix_of`) that a process belongs to.

    All of that prefix where it is not known which; the process itself where the prefix is not known.
    """
    if not prefix:
        return f"kill {pid}"
    servers = f"{prefix}/servers"
    with suppress(ProvisionError):
        for name in record.names(view, servers):
            one = record.load(view, record.directory_of(servers, name))
            if one and pid in {process.pid for process in record.members(view, one)}:
                return f"sgprov serve stop {name} --prefix {shlex.quote(prefix)}"
    return f"sgprov serve stop --all --prefix {shlex.quote(prefix)}"
