"""Wheels once: the controller fetches and verifies them, and hosts take them through the SSH connection that is there.

A server on the controller's loopback, which SSH lets each host reach as its own loopback (`ssh -R`): nothing listens
on a network, no host needs the internet, and what crosses is encrypted. A token keeps other users of the machines out,
and lives as long as the run. On the host uv takes only what its cache lacks, and checks every hash again.
"""

from __future__ import annotations

import base64
import hmac
import html
import secrets
import threading
from collections.abc import Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from provision.bundle.sources import Source
from provision.errors import StepFailed

if TYPE_CHECKING:
    from typing_extensions import Self

_USER = "fleet"
# Below what systems hand out by themselves, so that the same number is free on most hosts.
_PORTS = range(21900, 29900)
_ATTEMPTS = 50
_CHUNK = 1 << 18
# How long the end of a run may wait for the server to see that it is over.
_POLL_S = 0.05


class WheelServer:
    """Serves the wheels of one run. `sent` counts bytes by file name."""

    def __init__(self, folder: Path, sources: Iterable[Source]) -> None:
        self.folder = folder
        self.hashes = {source.name: source.sha256 for source in sources}
        self.sent: dict[str, int] = {}
        self._token = secrets.token_urlsafe(24)
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
    def url(self) -> str:
        """A secret: it holds the token, in the place where uv and our own logs mask it."""
        return f"http://{_USER}:{self._token}@127.0.0.1:{self.port}/"

    @property
    def ssh_arguments(self) -> str:
        """The same port on the host's loopback leads here."""
        return f"-R 127.0.0.1:{self.port}:127.0.0.1:{self.port}"

    @property
    def sent_bytes(self) -> int:
        return sum(self.sent.values())

    def allowed(self, header: str) -> bool:
        wanted = base64.b64encode(f"{_USER}:{self._token}".encode()).decode()
        return hmac.compare_digest(header, f"Basic {wanted}")

    def page(self) -> bytes:
        rows = (
            f'<a href="{html.escape(name, quote=True).replace("+", "%2B")}#sha256={digest}">{html.escape(name)}</a>\n'
            for name, digest in sorted(self.hashes.items())
        )
        return "".join(["<!DOCTYPE html>\n", *rows]).encode()

    def count(self, name: str, size: int) -> None:
        with self._lock:
            self.sent[name] = self.sent.get(name, 0) + size

    def _bind(self) -> ThreadingHTTPServer:
        handler = type("Handler", (_Handler,), {"wheels": self})
        for _ in range(_ATTEMPTS):
            try:
                server = ThreadingHTTPServer(("127.0.0.1", secrets.choice(_PORTS)), handler)
            except OSError:
                continue
            server.daemon_threads = True
            return server
        raise StepFailed("no port is free on this machine for the wheels")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wheels: WheelServer

    def do_GET(self) -> None:
        if not self.wheels.allowed(self.headers.get("Authorization") or ""):
            self._answer(HTTPStatus.UNAUTHORIZED, b"", **{"WWW-Authenticate": "Basic"})
            return
        name = unquote(urlsplit(self.path).path).strip("/")
        if not name:
            self._answer(HTTPStatus.OK, self.wheels.page(), **{"Content-Type": "text/html"})
        elif name in self.wheels.hashes:
            self._send(name)
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"")

    do_HEAD = do_GET  # noqa: N815  # the names are http.server's

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
