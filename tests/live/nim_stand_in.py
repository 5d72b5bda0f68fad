"""A stand-in for a NIM image: no NVIDIA software, only what sgprov relies on of its contract.

The key in NGC_API_KEY, without which it ends; a cache that its user can write, where the second start finds the model;
port 8000; `/v1/health/live` at once and `/v1/health/ready` when it is ready; `/v1/models`; an OpenAI-compatible chat.
"""

from __future__ import annotations

from pathlib import Path

from live import parts

IMAGE = "sgprov-test/nim-stand-in:2"
# A bare Debian 12 with its own Python, and so with the libraries that any Python loads.
WITH_PYTHON = "sgprov-test/python:12"
MODEL = "meta/llama-3.1-8b-instruct"
# NIM images run as a user of their own.
USER = 1000

_SERVER = r"""
import json, os, pathlib, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODEL = os.environ.get("STAND_IN_MODEL", "meta/llama-3.1-8b-instruct")
if not os.environ.get("NGC_API_KEY", "").startswith("nvapi-"):
    sys.exit("NGC_API_KEY is not set: the model cannot be downloaded")
cache = pathlib.Path("/opt/nim/.cache/model.bin")
try:
    if not cache.exists():
        print("Downloading model", flush=True)
        time.sleep(float(os.environ.get("STAND_IN_DOWNLOAD_S", "2")))
        cache.write_bytes(b"weights")
except PermissionError as error:
    sys.exit(f"the cache cannot be written: {error}")
ready = threading.Event()

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def _say(self, status, body):
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)
    def do_GET(self):
        if self.path == "/v1/health/live":
            self._say(200, {"status": "live"})
        elif self.path == "/v1/health/ready":
            self._say(200 if ready.is_set() else 503, {"status": "ready" if ready.is_set() else "loading"})
        elif self.path == "/v1/models":
            self._say(200, {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "system"}]})
        else:
            self._say(404, {})
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        words, count = "A stand-in has little to say. ".split(), int(body.get("max_tokens", 16))
        usage = {"prompt_tokens": len(str(body)) // 4, "completion_tokens": count, "total_tokens": count + 4}
        if self.path != "/v1/chat/completions":
            return self._say(404, {})
        if not body.get("stream"):
            text = " ".join(words[i % len(words)] for i in range(count))
            message = {"role": "assistant", "content": text}
            return self._say(200, {"id": "1", "object": "chat.completion", "model": MODEL, "usage": usage,
                "choices": [{"index": 0, "message": message, "finish_reason": "length"}]})
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for i in range(count):
            chunk = {"id": "1", "object": "chat.completion.chunk", "model": MODEL,
                "choices": [{"index": 0, "delta": {"content": words[i % len(words)] + " "}, "finish_reason": None}]}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
            self.wfile.flush()
            time.sleep(float(os.environ.get("STAND_IN_TOKEN_S", "0")))
        last = {"id": "1", "object": "chat.completion.chunk", "model": MODEL, "usage": usage,
            "choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}
        self.wfile.write(f"data: {json.dumps(last)}\n\ndata: [DONE]\n\n".encode())
        self.close_connection = True

def load():
    print("Loading model weights", flush=True)
    time.sleep(0.5)
    ready.set()
    print("Application startup complete", flush=True)

threading.Thread(target=load, daemon=True).start()
print("starting on port 8000", flush=True)
ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
"""


def build(folder: Path) -> str:
    """The image, built on a bare Debian with the Python of that Debian."""
    if parts.docker("images", "--quiet", IMAGE):
        return IMAGE
    base = with_python()
    context = folder / "nim"
    context.mkdir()
    (context / "server.py").write_text(_SERVER)
    (context / "Dockerfile").write_text(
        f"FROM {base}\nRUN mkdir -p /opt/nim/.cache && useradd --uid {USER} nim && chown nim /opt/nim/.cache\n"
        f'COPY server.py /opt/nim/server.py\nUSER nim\nEXPOSE 8000\nENTRYPOINT ["python3", "-u", "/opt/nim/server.py"]\n'
    )
    parts.docker("build", "--quiet", "--tag", IMAGE, str(context))
    return IMAGE


def with_python() -> str:
    """A bare Debian 12 with its own Python, which minbase has not got."""
    return parts.debian(WITH_PYTHON, "python3-minimal", "libpython3-stdlib")
