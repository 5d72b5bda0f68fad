"""Wheels once: the controller fetches and verifies them, and hosts take them through the SSH connection that is there.

A server on the controller's loopback, which SSH lets each host reach as its own loopback (`ssh -R`): nothing listens
on a network, no host needs the internet, and what crosses is encrypted. Each host has a token of its own, which keeps
other users of the machines out and lives as long as the run. On the host uv takes only what its cache lacks, and checks
every hash again.

A host that is not what it was can ask for these wheels and for nothing else. What it can hold up is bounded: how long
a question may take to arrive and how long it may be, how many connections may not have shown a token yet (the oldest is
given up for a new one), and how many a host may have.
"""

from __future__ import annotations

import base64
import hmac
import html
import io
import secrets
import socket
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from provision.bundle.sources import Source
from provision.errors import StepFailed

if TYPE_CHECKING:
    from typing_extensions import Self

# Below what systems hand out by themselves, so that the same number is free on most hosts.
_PORTS = range(21900, 29900)
_ATTEMPTS = 50
_CHUNK = 1 << 18
# How long the end of a run may wait for the server to see that it is over.
_POLL_S = 0.05
# How long a question may take to arrive, and how many bytes it may have.
QUESTION_S = 20.0
_QUESTION_BYTES = 16 << 10
# How long a host may take nothing of an answer, or ask nothing more.
_SILENCE_S = 60.0
# How many connections may not have shown a token yet, and how many a host may have: uv asks 50 things at once.
MOST_WAITING = 200
MOST_CONNECTIONS = 128


class WheelServer:
    """Serves the wheels of one run to its hosts. `sent` counts bytes by file name."""

    def __init__(self, folder: Path, sources: Iterable[Source], hosts: Iterable[str]) -> None:
        self.folder = folder
        self.hashes = {source.name: source.sha256 for source in sources}
        self.sent: Counter[str] = Counter()
        self._tokens = {host: secrets.token_urlsafe(24) for host in hosts}
        # By what the header says: a host's place in it is no secret, its token is not looked up but compared.
        self._users = {f"h{number}": host for number, host in enumerate(self._tokens)}
        self._connected: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._server = self._bind()

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": _POLL_S}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def urls(self) -> dict[str, str]:
        """Host to its address; secrets: they hold the token, in the place where uv and our own logs mask it."""
        return {
            host: f"http://{user}:{self._tokens[host]}@127.0.0.1:{self.port}/" for user, host in self._users.items()
        }

    @property
    def ssh_arguments(self) -> str:
        """The same port on the host's loopback leads here."""
        return f"-R 127.0.0.1:{self.port}:127.0.0.1:{self.port}"

    @property
    def sent_bytes(self) -> int:
        return sum(self.sent.values())

    def host_of(self, header: str) -> str | None:
        """Which host asks, by the token that it shows; None for all others."""
        try:
            user, _, token = base64.b64decode(header.removeprefix("Basic "), validate=True).decode().partition(":")
        except ValueError:
            return None
        host = self._users.get(user)
        if host is None or not hmac.compare_digest(token.encode(), self._tokens[host].encode()):
            return None
        return host

    def enter(self, host: str) -> bool:
        """Whether this host may have one more connection."""
        with self._lock:
            free = self._connected[host] < MOST_CONNECTIONS
            self._connected[host] += free
        return free

    def leave(self, host: str) -> None:
        with self._lock:
            self._connected[host] -= 1

    def page(self) -> bytes:
        rows = (
            f'<a href="{html.escape(name, quote=True).replace("+", "%2B")}#sha256={digest}">{html.escape(name)}</a>\n'
            for name, digest in sorted(self.hashes.items())
        )
        return "".join(["<!DOCTYPE html>\n", *rows]).encode()

    def count(self, name: str, size: int) -> None:
        with self._lock:
            self.sent[name] += size

    def _bind(self) -> _Server:
        handler = type("Handler", (_Handler,), {"wheels": self})
        for _ in range(_ATTEMPTS):
            with suppress(OSError):
                return _Server(("127.0.0.1", secrets.choice(_PORTS)), handler)
        raise StepFailed("no port is free on this machine for the wheels")


class _Server(ThreadingHTTPServer):
    """Connections that have shown no token are few: for one more, the oldest of them is closed."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, *arguments: Any) -> None:
        self._waiting: OrderedDict[int, socket.socket] = OrderedDict()
        self._waiting_lock = threading.Lock()
        super().__init__(*arguments)

    def waits(self, connection: socket.socket) -> None:
        with self._waiting_lock:
            self._waiting[id(connection)] = connection
            oldest = self._waiting.popitem(last=False)[1] if len(self._waiting) > MOST_WAITING else None
        if oldest:
            with suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)

    def known(self, connection: socket.socket) -> None:
        with self._waiting_lock:
            self._waiting.pop(id(connection), None)

    # A host that goes away in the middle is nothing to be told on our screen.
    def handle_error(self, request: Any, client_address: Any) -> None: ...


class _Question(io.RawIOBase):
    """What arrives on a connection, up to the size of a question; `begin` allows for the next one."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._left = 0

    def begin(self) -> None:
        self._left = _QUESTION_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: self._left]
        count = self._connection.recv_into(view) if view else 0
        self._left -= count
        return count


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _SILENCE_S
    wheels: WheelServer
    server: _Server

    def setup(self) -> None:
        super().setup()
        self._host: str | None = None
        self._question = _Question(self.connection)
        self.rfile = io.BufferedReader(self._question, 4096)
        self.server.waits(self.connection)
        # Of the whole question, and not of each of its bytes.
        self._patience = threading.Timer(QUESTION_S, self._give_up)
        self._patience.daemon = True
        self._patience.start()

    def finish(self) -> None:
        self._patience.cancel()
        self.server.known(self.connection)
        if self._host:
            self.wheels.leave(self._host)
        super().finish()

    def handle_one_request(self) -> None:
        self._question.begin()
        super().handle_one_request()

    def do_GET(self) -> None:
        host = self.wheels.host_of(self.headers.get("Authorization") or "")
        if host is None:
            self._answer(HTTPStatus.UNAUTHORIZED, b"", **{"WWW-Authenticate": "Basic"})
        elif self._host or self.wheels.enter(host):
            self._host = self._host or host
            self._patience.cancel()
            self.server.known(self.connection)
            self._serve()
        else:
            self.close_connection = True
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, b"", **{"Retry-After": "1"})

    do_HEAD = do_GET  # noqa: N815  # the names are http.server's

    def _give_up(self) -> None:
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        name = unquote(urlsplit(self.path).path).strip("/")
        if not name:
            self._answer(HTTPStatus.OK, self.wheels.page(), **{"Content-Type": "text/html"})
        elif name in self.wheels.hashes:
            self._send(name)
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"")

    def _send(self, name: str) -> None:
        path = self.wheels.folder / name
        size = path.stat().st_size
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Length", str(size))
        self.send_header("Content-Type", "application/octet-stream")
        self.end_headers()
        if self.command == "GET":
            with path.open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    self.wheels.count(name, len(chunk))  # first: whoever has read the last byte finds all of it counted
                    self.wfile.write(chunk)

    def _answer(self, status: HTTPStatus, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...
