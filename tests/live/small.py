"""sgprov with small locks and an index of our own: the whole way of a fleet or a bundle in seconds instead of gigabytes.

The catalog, the decision and the code are the real ones: a copy of the package in which only the lockfiles pin other,
tiny wheels. What a host gets is made of that copy, so the host pins the same.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fakes import make_wheel

ROOT = Path(__file__).parents[2]
# Big enough that bytes can be told from pages and retries.
WHEEL_BYTES = 300_000


@dataclass
class Index:
    """A folder of projects, served; how many bytes of which wheel were asked for."""

    folder: Path
    url: str = ""
    sent: dict[str, int] = field(default_factory=dict)
    # Those who ask for wheels from here wait as long as it is not set.
    held: set[str] = field(default_factory=set)
    let_go: threading.Event = field(default_factory=threading.Event)

    def serve(self, address: str = "127.0.0.1", *, login: str | None = None) -> ThreadingHTTPServer:
        """On the loopback that is `url`; on another address, for hosts that ask for themselves, it is only served, and
        so it is to those alone who log in with `login` (`user:password`).
        """
        index = self
        wanted = f"Basic {base64.b64encode(login.encode()).decode()}" if login else None

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                if wanted and self.headers.get("Authorization") != wanted:
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", "Basic")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                name = self.path.rsplit("/", 1)[-1]
                if name.endswith(".whl"):
                    if self.client_address[0] in index.held:
                        index.let_go.wait(120)
                    size = (index.folder / self.path.strip("/")).stat().st_size
                    index.sent[name] = index.sent.get(name, 0) + size
                # A host that was interrupted takes no more.
                with suppress(BrokenPipeError):
                    super().do_GET()

            def log_message(self, *_: object) -> None: ...

        server = ThreadingHTTPServer((address, 0), partial(Handler, directory=str(self.folder)))
        server.daemon_threads = True
        if address == "127.0.0.1" and not login:
            self.url = f"http://127.0.0.1:{server.server_port}/"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server


@dataclass
class Small:
    """The copy: `sgprov(...)` runs it, `index` is where its stacks' wheels are."""

    root: Path
    index: Index
    home: Path

    def environment(self, **more: str) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SGPROV_", "UV_", "ANSIBLE_", "PYTHONDONTWRITE"))
        }
        return {
            **kept,
            "PYTHONPATH": str(self.root),
            "HOME": str(self.home),
            "UV_INDEX": self.index.url,
            "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR") or str(Path.home() / ".cache" / "uv"),
            **more,
        }

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "provision", *arguments],
            env=self.environment(**more),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def sgprov(self, *arguments: str, **more: str) -> tuple[int, dict[str, Any], str]:
        """Status, JSON object and what was said to people."""
        process = self.start(*arguments, "--json", **more)
        out, err = process.communicate()
        try:
            return process.returncode, json.loads(out), err
        except ValueError:
            raise AssertionError(f"{arguments} printed no JSON (status {process.returncode}):\n{out}\n{err}") from None


def make(root: Path) -> Small:
    """The copy and its wheels; the index is not served yet."""
    package = root / "copy"
    for name in ("provision", "playbooks"):
        shutil.copytree(ROOT / name, package / name, ignore=shutil.ignore_patterns("__pycache__", "_shipped"))
    index = Index(root / "index")
    locks = package / "lockfiles"
    locks.mkdir()
    (locks / "sizes.yml").write_text("{}\n")
    shutil.copyfile(ROOT / "lockfiles" / "pythons.yml", locks / "pythons.yml")
    shutil.copytree(ROOT / "lockfiles" / "own", locks / "own")
    pins: dict[str, str] = {}
    for lock in (ROOT / "lockfiles").glob("*.txt"):
        stack = lock.name.split(".cp3")[0].replace(".", "_").replace("-", "_")
        if stack not in pins:
            pins[stack] = "".join(_wheels(index.folder, stack))
        (locks / lock.name).write_text(pins[stack])
    home = root / "home"
    home.mkdir()
    return Small(package, index, home)


def _wheels(folder: Path, stack: str) -> list[str]:
    lines = []
    for name in ("alpha", "beta", "gamma"):
        project = f"small_{stack}_{name}"
        data = (project * WHEEL_BYTES)[:WHEEL_BYTES].encode()
        lines.append(make_wheel(folder / project.replace("_", "-"), project, data=data))
        _describe(next((folder / project.replace("_", "-")).glob("*.whl")))
    return lines


def _describe(wheel: Path) -> None:
    """What an index says of a wheel, so that nobody has to fetch it to know it: its hash, and its metadata beside it."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = archive.read(name)
    wheel.with_name(f"{wheel.name}.metadata").write_bytes(metadata)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    known = f"sha256={hashlib.sha256(metadata).hexdigest()}"
    link = f'<a href="{wheel.name}#sha256={digest}" data-core-metadata="{known}">{wheel.name}</a>'
    (wheel.parent / "index.html").write_text(f"<!DOCTYPE html><html><body>{link}</body></html>")
