"""The real parts that container tests use: an engine, a small image made on the spot, and a registry with logins."""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

USER = "$oauthtoken"


def docker(*arguments: str, check: bool = True) -> str:
    """What one call of Docker printed."""
    ran = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, timeout=300)
    assert ran.returncode == 0 or not check, ran.stdout + ran.stderr
    return ran.stdout.strip()


def debian(tag: str, *packages: str, root: str | None = None) -> str:
    """The image `tag`: a bare Debian 12 with those packages, made by debootstrap where it is not here yet.

    `root` is one that is there already. No image can be fetched without a network.
    """
    if docker("images", "--quiet", tag):
        return tag
    with tempfile.TemporaryDirectory() as made:
        if not root:
            if shutil.which("debootstrap") is None:
                pytest.skip("NOT RUN: debootstrap is not installed")
            root = f"{made}/root"
            command = ["debootstrap", "--variant=minbase", f"--include={','.join(packages)}", "bookworm", root]
            subprocess.run(command, check=True, capture_output=True)
        with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as packed:
            subprocess.run(["docker", "import", "-", tag], stdin=packed.stdout, check=True, capture_output=True)
    return tag


def free_port() -> int:
    """A TCP port that is free now, outside the range that the system hands out by itself."""
    found = next((port for port in range(22000, 22900, 37) if not listens(port)), None)
    return found or pytest.fail("no port is free")


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass(frozen=True)
class Registry:
    """A registry that lets in the user `$oauthtoken` with the keys of its password file."""

    host: str
    folder: Path

    def admit(self, key: str) -> None:
        """From now on this key alone is right; the registry reads the file again when it has changed."""
        made = subprocess.run(["htpasswd", "-niB", USER], input=key, capture_output=True, text=True, check=True).stdout
        (self.folder / "users").write_text(made)
        # It looks at the file's time in whole seconds.
        time.sleep(1.1)


@dataclass
class Line:
    """The way to a registry, which breaks: once for each (method, part of a path) in `cuts`, in the middle of the answer.

    `asked` has the method, the path and the `Range` of every question that came through.
    """

    host: str
    cuts: set[tuple[str, str]] = field(default_factory=set)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)

    def pass_on(self, handler: BaseHTTPRequestHandler, to: str) -> None:
        self.asked.append((handler.command, handler.path, handler.headers.get("Range")))
        connection = http.client.HTTPConnection(to)
        connection.putrequest(handler.command, handler.path, skip_host=True, skip_accept_encoding=True)
        for name, value in handler.headers.items():
            # Some are there more than once.
            connection.putheader(name, value)
        connection.endheaders()
        with connection.getresponse() as answer:
            body = answer.read()
        cut = next((cut for cut in self.cuts if cut[0] == handler.command and cut[1] in handler.path), None)
        if cut and answer.status == HTTPStatus.OK:
            self.cuts.remove(cut)
            body, handler.close_connection = body[: len(body) // 2], True
            if handler.command == "HEAD":
                return
        handler.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"connection", "transfer-encoding"}:
                handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)


@contextmanager
def breaking_line(to: str) -> Iterator[Line]:
    """A second address of the registry `to`, whose connections break where a test says so."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Who tries TLS first is answered in a way that says that this is none.
        default_request_version = "HTTP/1.1"

        def do_GET(self) -> None:
            line.pass_on(self, to)

        def do_HEAD(self) -> None:
            line.pass_on(self, to)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        line = Line(f"127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield line
        server.shutdown()


@contextmanager
def registry(folder: Path, key: str) -> Iterator[Registry]:
    """A real registry (CNCF Distribution) on this machine."""
    if not (shutil.which("docker-registry") and shutil.which("htpasswd")):
        pytest.skip("NOT RUN: docker-registry or htpasswd is not installed")
    port = free_port()
    found = Registry(f"127.0.0.1:{port}", folder)
    found.admit(key)
    (folder / "registry.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}/store}}, "
        f"delete: {{enabled: true}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n"
        f"auth: {{htpasswd: {{realm: test, path: {folder}/users}}}}\n"
    )
    with (folder / "registry.log").open("w") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(folder / "registry.yml")], stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 30
            while not listens(port) and time.monotonic() < deadline:
                time.sleep(0.1)
            yield found
        finally:
            process.terminate()
            process.wait(10)
