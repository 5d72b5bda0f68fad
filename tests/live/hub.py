"""A hub of models on this machine: the endpoints that a download by huggingface_hub asks."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_" + "t" * 20


@dataclass
class Hub:
    """It has `org/open`, `org/gated` and `org/large`, each with the same `files`."""

    files: Mapping[str, bytes]
    url: str = ""
    seen: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.split("?")[0].replace("%2F", "/")
        self.seen.append(f"{handler.command} {path}")
        token = (handler.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.tokens.add(token)
        parts = path.strip("/").split("/")
        model = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        if model == "org/gated" and token != TOKEN:
            send(handler, 403 if token else 401, b"{}", {"X-Error-Code": "GatedRepo"})
        elif model not in {"org/open", "org/gated", "org/large"}:
            send(handler, 404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif "nowhere" in parts:
            send(handler, 404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif "tree" in parts:
            entries = [
                {"type": "file", "path": name, "size": len(self.files[name]), "oid": "0" * 40} for name in self.files
            ]
            send(handler, 200, json.dumps(entries).encode(), {"Content-Type": "application/json"})
        elif parts[0] == "api":
            send(handler, 200, self.information(model), {"Content-Type": "application/json"})
        else:
            content = self.files[parts[-1]]
            digest = hashlib.sha256(content).hexdigest()
            send(handler, 200, content, {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT})

    def information(self, model: str) -> bytes:
        scale = 10**9 if model == "org/large" else 1
        siblings = [{"rfilename": name, "size": len(content) * scale} for name, content in self.files.items()]
        return json.dumps({"_id": "1", "id": model, "modelId": model, "sha": COMMIT, "siblings": siblings}).encode()


def send(handler: BaseHTTPRequestHandler, status: int, content: bytes, headers: dict[str, str]) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(content)), **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    if handler.command == "GET":
        handler.wfile.write(content)


@contextmanager
def serving(files: Mapping[str, bytes]) -> Iterator[Hub]:
    """A hub that answers while the block runs."""
    state = Hub(files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
