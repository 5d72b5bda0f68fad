"""Who listens on a server's ports: nobody before it starts, itself when it is ready."""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit

from provision.containers import engine
from provision.errors import ProbeError, ServingFailed, UsageError
from provision.host.view import HostView, Listener
from provision.http_client import NoAnswer
from provision.serving import keys
from provision.serving.client import Client, Key
from provision.serving.launch import Inside, Launch
from provision.serving.record import Server, members

# The version of IP whose wildcard address may take connections of both.
_BOTH = 6
# The state of a listening socket in /proc/net/tcp.
_LISTEN = "0A"
_ESTABLISHED = "01"


def check_address(view: HostView, address: str) -> None:
    """Raise `UsageError` for an address that this machine has not: an engine says so after minutes, as it may."""
    if problem := view.bind_problem(address):
        raise UsageError(
            f"`{address}` {problem}, so no server can listen on it",
            hint="`ip -brief address` lists the addresses of this machine; `--bind 127.0.0.1` is for itself alone",
        )


def check_free(view: HostView, launch: Launch, *, instead_of: Server | None = None) -> None:
    """Raise `ServingFailed` where somebody has a port that the server needs, but for the server that it replaces.

    Raises `UsageError` where the machine has not the address.

    The engine itself would say so only after minutes of loading. Where listeners cannot be seen, that is left to it.
    """
    if address := launch.container.address if launch.container else launch.serve.host if launch.serve else None:
        check_address(view, address)
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
    """Raise `ServingFailed` where somebody else listens on the port of a server that seems to be ready.

    An owner who cannot be seen may be the server, unless it has a key, which is for nobody else.
    """
    if problem := _stranger(view, server):
        raise ServingFailed(problem, hint="choose another port with `--port`, or `--port auto`")


def client(view: HostView, server: Server, *, timeout_s: float = 60.0) -> Client:
    """A client of a server of ours, with its key."""
    return Client(server.url, api_key=key_of(view, server), timeout_s=timeout_s, ours=True)


def key_of(view: HostView, server: Server, otherwise: str | None = None) -> Key:
    """The key of a server (`otherwise` where it has none), given out as long as that very server listens on its port.

    Whoever else has the port is asked without it. It is looked at again before every request: a server may have died.
    """
    key = keys.of(view, server.directory) if server.key_file else otherwise
    if key is None:
        return None

    def given() -> str:
        if problem := _stranger(view, server, keyed=True) or _nobody(view, server):
            raise NoAnswer(f"{problem}; the key was not sent")
        return key

    return given


def _stranger(view: HostView, server: Server, *, keyed: bool = False) -> str | None:
    """Who else answers where the server should, or that it cannot be told; None where nobody does."""
    keyed = keyed or server.key_file is not None
    if server.container:
        return _contained_stranger(view, server.container) if keyed else None
    port = urlsplit(server.url).port
    try:
        found = _answering(view, server.url)
    except ProbeError as error:
        return str(error) if keyed else None
    ours = _pids(view, server)
    others = [one for one in found if one.pid not in ours and (keyed or one.pid is not None)]
    # Without a key, one of ours among those that listen is enough.
    if not others or (not keyed and any(one.pid is None or one.pid in ours for one in found)):
        return None
    return f"the server `{server.name}` does not listen on port {port}: {_named(others[0])} answers there"


def _contained_stranger(view: HostView, container: Inside) -> str | None:
    """As `_stranger`. The engine listens for a container: as root, or as the caller where it is rootless."""
    seen = engine.look(view, container.program, container.name)
    if isinstance(seen, engine.Silent):
        return f"`{container.program}` does not say whether `{container.name}` runs: {seen.reason}"
    published = seen is not None and seen.label == container.name and seen.runs and container.port in seen.published
    if not published:
        return f"the container `{container.name}` does not serve on port {container.port}"
    uids = set(_sockets(view, container.port, _LISTEN))
    if uids - {0, os.geteuid()}:
        return f"the container `{container.name}` does not listen on port {container.port}: another user's process does"
    return None


def _nobody(view: HostView, server: Server) -> str | None:
    if server.container or _answering(view, server.url):
        return None
    return f"`{server.url}` refused the connection: nothing listens there"


def _answering(view: HostView, url: str) -> list[Listener]:
    """Those who listen where a connection to `url` ends. Raises `ProbeError`."""
    parts = urlsplit(url)
    found = [one for one in view.listeners() if one.port == parts.port]
    try:
        asked = ipaddress.ip_address(parts.hostname or "")
    except ValueError:
        return found  # a name may be any of them
    return [
        one
        for one in found
        if (address := _unmapped(one.address)) == asked
        or (address.is_unspecified and address.version in {asked.version, _BOTH})
    ]


def _unmapped(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Without a zone, and of `::ffff:127.0.0.1` the address of version 4."""
    found = ipaddress.ip_address(address.partition("%")[0])
    return getattr(found, "ipv4_mapped", None) or found


def connections(view: HostView, url: str) -> int:
    """How many clients are connected to a server on this machine."""
    return len(_sockets(view, urlsplit(url).port or 0, _ESTABLISHED))


def _sockets(view: HostView, port: int, state: str) -> list[int]:
    """Whose sockets are in a state on a port. Everybody may see that, but not which process it is (proc(5))."""
    uids = []
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in (view.read(path) or "").splitlines()[1:]:
            # Such as `0: 0100007F:7530 00000000:0000 0A 00000000:00000000 00:00000000 00000000 1000 …`.
            words = line.split()
            if len(words) > 7 and words[3] == state and int(words[1].rpartition(":")[2], 16) == port:  # noqa: PLR2004
                uids.append(int(words[7]))
    return uids


def _listeners(view: HostView) -> tuple[Listener, ...]:
    try:
        return view.listeners()
    except ProbeError:
        return ()


def _pids(view: HostView, server: Server) -> frozenset[int]:
    return frozenset(process.pid for process in members(view, server))


def _named(one: Listener) -> str:
    return f"`{one.process}` (pid {one.pid})" if one.pid else "another user's process"
