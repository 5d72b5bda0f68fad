"""An engine of a few lines in the place of SGLang: its processes, port, log and signals are real, and it is ready at once."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from provision.host.local import LocalHost
from provision.serving import processes, record, server
from provision.serving.launch import Launch
from provision.serving.ports import DerivedPort
from provision.serving.record import Server
from provision.serving.status import status

ROOT = Path(__file__).parents[2]
# Such as SGLang: on SIGINT it closes its door and answers what it has, on SIGTERM it goes on as if nothing were.
CODE = """
import http.server, os, pathlib, signal, sys, threading, time
port, how = int(sys.argv[1]), sys.argv[2]
class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path == "/health" and how == "busy":
            for _ in range(4):
                print("Decode batch. #running-req: 1", flush=True)
                time.sleep(0.5)
            return self.say(503)
        if self.path == "/health" and how == "hangs":
            time.sleep(60)
        if self.path.startswith("/slow/"):
            time.sleep(float(self.path[6:]))
        self.say(200)
    def say(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"{}")
        self.close_connection = True
    def log_message(self, *_):
        pass
if how == "breaks":
    sys.exit("unrecognized arguments: --no-such-flag")
if how == "once":
    flag = pathlib.Path(sys.argv[3])
    if flag.exists():
        sys.exit("it does not start any more")
    flag.touch()
class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 64
serving = Server(("127.0.0.1", port), Answers)
def drain(*_):
    threading.Thread(target=serving.shutdown).start()
signal.signal(signal.SIGINT, drain)
signal.signal(signal.SIGTERM, lambda *_: None)
try:
    print("The server is fired up and ready to roll!", flush=True)
except OSError:
    pass
serving.serve_forever()
serving.server_close()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def local_host() -> LocalHost:
    return LocalHost({"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/root")})


def launch(port: int, how: str = "serves", *more: str) -> Launch:
    return Launch(
        engine="sglang",
        version="0.5.23",
        argv=(sys.executable, "-c", CODE, str(port), how, *more),
        url=f"http://127.0.0.1:{port}",
        model="/m",
        ports=(DerivedPort(name="http", first=port, last=port, fixed=True),),
    )


def started(host: LocalHost, servers: str, wanted: Launch, *, name: str = "a") -> Server:
    """A server that is ready."""
    return server.wait_until_ready(host, server.start(host, servers, wanted, name=name), timeout_s=20)


def serves(host: LocalHost, servers: str, *, name: str = "a") -> bool:
    known = record.load(host, f"{servers}/{name}")
    return known is not None and status(host, known).health == "running"


def left_over(directory: str) -> list[int]:
    """Every living process that inherited the mark of a server below a directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            text = path.read_bytes()
        except OSError:
            continue
        pid = int(path.parent.name)
        if f"{processes.DIRECTORY}={directory}".encode() in text and processes.find(local_host(), pid):
            found.append(pid)
    return found


def end_all(directory: str) -> None:
    """Kill what a test left below a directory."""
    for pid in left_over(directory):
        os.kill(pid, signal.SIGKILL)


@contextmanager
def small_disk(path: Path, *, megabytes: int = 4, inodes: int | None = None) -> Iterator[str]:
    """A file system of its own in memory; needs root."""
    path.mkdir()
    options = f"size={megabytes}m,mode=0700" + (f",nr_inodes={inodes}" if inodes else "")
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "sgprov-test", str(path)], check=True)
    try:
        yield str(path)
    finally:
        end_all(str(path))
        for _ in range(50):
            if subprocess.run(["umount", str(path)], check=False, stderr=subprocess.DEVNULL).returncode == 0:
                break
            time.sleep(0.1)
        else:
            subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(directory: str) -> Path:
    """Take all the room that is left there; the file that has it."""
    ballast = Path(directory, "ballast")
    with ballast.open("wb", buffering=0) as stream:
        for size in (65536, 4096, 512, 1):
            try:
                while True:
                    stream.write(b"\0" * size)
            except OSError:
                continue
    return ballast
