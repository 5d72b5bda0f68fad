"""Connections of `requests` that are paid from one budget, to the last byte."""

from __future__ import annotations

import io
import socket
from typing import TYPE_CHECKING, Any, cast

from provision.http_client.budget import Budget, within

if TYPE_CHECKING:
    import requests


class _Reader(io.RawIOBase):
    """Reads a socket for as long as its budget lasts."""

    def __init__(self, sock: socket.socket, budget: Budget) -> None:
        self._sock, self._budget = sock, budget
        # Holds the socket open, as `http.client` expects of what `makefile` gives.
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        self._sock.settimeout(self._budget.remaining())
        count = cast("io.RawIOBase", self._raw).readinto(buffer)
        self._budget.spend(count or 0)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _BoundedSocket:
    """A socket whose reader has a budget; everything else it leaves to the socket itself."""

    def __init__(self, sock: socket.socket, budget: Budget) -> None:
        self._sock, self._budget = sock, budget

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def makefile(self, *_: Any, **__: Any) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._sock, self._budget))


def session(budget: Budget) -> requests.Session:
    """A session whose connections, those through proxies as well, are all paid from one budget."""
    import requests  # noqa: PLC0415  # 70 ms that a run with nothing to ask does not pay

    class Adapter(requests.adapters.HTTPAdapter):
        def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
            pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
            pool.ConnectionCls = _bounded(pool.ConnectionCls, budget)
            return pool

    made = requests.Session()
    made.mount("http://", Adapter())
    made.mount("https://", Adapter())
    return made


def _bounded(kind: Any, budget: Budget) -> Any:
    """That class of connections, paid from a budget."""
    if hasattr(kind, "budget"):
        return kind

    class Connection(kind):  # type: ignore[misc]  # plain or with TLS
        sock: Any

        def _new_conn(self) -> Any:
            # A proxy is asked for its tunnel before there is TLS: this socket is bounded already.
            sock = within(budget.remaining(), super()._new_conn)
            # The handshake of TLS has this for the whole of it.
            sock.settimeout(budget.remaining())
            return _BoundedSocket(sock, budget)

        def connect(self) -> None:
            super().connect()
            if not isinstance(self.sock, _BoundedSocket):
                self.sock = _BoundedSocket(self.sock, budget)

    Connection.budget = budget
    return Connection
