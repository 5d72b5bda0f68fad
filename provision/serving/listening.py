"""Who listens on a server's ports: nobody before it starts, itself when it is ready."""

from __future__ import annotations

from urllib.parse import urlsplit

from provision.errors import ProbeError, ServingFailed
from provision.host.view import HostView, Listener
from provision.serving.launch import Launch
from provision.serving.record import Server, members


def check_free(view: HostView, launch: Launch, *, instead_of: Server | None = None) -> None:
    """Raise `ServingFailed` where somebody has a port that the server needs, but for the server that it replaces.

    The engine itself would say so only after minutes of loading. Where listeners cannot be seen, that is left to it.
    """
    if launch.container or (instead_of and instead_of.container):
        return  # an engine says so at once; where it has the port for the one that is replaced, it gives it up
    needed = [port for port in launch.ports if port.fixed]
    taken = [(port, one) for one in _listeners(view) for port in needed if port.holds(one.port)]
    ours = _pids(view, instead_of) if taken and instead_of else frozenset[int]()
    for port, one in taken:
        if one.pid is None or one.pid not in ours:
            raise ServingFailed(
                f"port {one.port}, which the server needs ({port.name}), is taken by {_named(one)}",
                hint="choose another with `--port`, or `--port auto`",
            )


def check_owner(view: HostView, server: Server) -> None:
    """Raise `ServingFailed` where somebody else is seen to listen on the port of a server that seems to be ready.

    An owner who cannot be seen may be the server.
    """
    if server.container:
        return  # its engine listens, and lets no two containers have one port
    port = urlsplit(server.url).port
    found = [one for one in _listeners(view) if one.port == port]
    if not found or any(one.pid is None for one in found):
        return
    ours = _pids(view, server)
    if not any(one.pid in ours for one in found):
        raise ServingFailed(
            f"the server `{server.name}` does not listen on port {port}: {_named(found[0])} answers there",
            hint="choose another port with `--port`, or `--port auto`",
        )


def _listeners(view: HostView) -> tuple[Listener, ...]:
    try:
        return view.listeners()
    except ProbeError:
        return ()


def _pids(view: HostView, server: Server) -> frozenset[int]:
    return frozenset(process.pid for process in members(view, server))


def _named(one: Listener) -> str:
    return f"`{one.process}` (pid {one.pid})" if one.pid else "another user's process"
