"""A registry of our own that answers like those behind a token service, on this machine, for one test."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

GOOD_KEY = "nvapi-" + "g" * 64
NARROW_KEY = "nvapi-" + "n" * 64
USER = "$oauthtoken"


@dataclass
class StandIn:
    """`forbidden` are keys that are known and not let in; `entitled` is what the good key may fetch."""

    host: str = ""
    forbidden: tuple[str, ...] = (NARROW_KEY,)
    entitled: tuple[str, ...] = ("nim/meta/llama",)
    seen: list[str] = field(default_factory=list)

    def answer(self, path: str, authorization: str) -> tuple[int, dict[str, str], object]:
        url = urlsplit(path)
        self.seen.append(path)
        if url.path == "/token":
            user, _, key = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
            if key in self.forbidden:
                return 403, {}, {}
            if (user, key) != (USER, GOOD_KEY):
                return 401, {}, {}
            return 200, {}, {"token": "for:" + parse_qs(url.query).get("scope", [""])[0]}
        if not authorization.startswith("Bearer "):
            return 401, {"WWW-Authenticate": f'Bearer realm="http://{self.host}/token",service="stand-in"'}, {}
        repository = url.path.removeprefix("/v2/").partition("/manifests/")[0]
        if f"repository:{repository}:pull" not in authorization or repository not in self.entitled:
            return 403, {}, {}
        return (404 if url.path.endswith("/absent") else 200), {}, {}

    def hub(self, authorization: str) -> tuple[int, dict[str, str], object]:
        return (200, {}, {"name": "ada"}) if authorization == "Bearer hf_" + "a" * 34 else (401, {}, {})


@contextmanager
def running() -> Iterator[StandIn]:
    """The stand-in, listening on a port of its own."""
    registry = StandIn()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            authorization = self.headers.get("Authorization", "")
            if self.path == "/api/whoami-v2":
                status, headers, body = registry.hub(authorization)
            else:
                status, headers, body = registry.answer(self.path, authorization)
            raw = json.dumps(body).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(raw)

        do_HEAD = do_GET  # noqa: N815  # the name that http.server calls

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    registry.host = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
