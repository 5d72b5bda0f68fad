"""A stand-in for an image of SGLang: no engine, only what a launch relies on of one that asks its clients for a key."""

from __future__ import annotations

from pathlib import Path

from live import nim_stand_in, parts

IMAGE = "sgprov-test/sglang-stand-in:1"
SERVER = r"""
import http.server, os, sys
given = dict(zip(sys.argv[1:], sys.argv[2:]))
key = next((word.partition("=")[2] for word in sys.argv if word.startswith("--api-key=")), None)

class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        well = key is None or self.headers.get("Authorization") == f"Bearer {key}"
        body = b'{"object": "list", "data": [{"id": "stand-in", "object": "model"}]}'
        self.send_response(200 if well else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass

serving = http.server.ThreadingHTTPServer((given["--host"], int(given["--port"])), Answers)
names = ("CapEff", "NoNewPrivs", "Uid", "Umask")
facts = [line for line in open("/proc/self/status").read().splitlines() if line.startswith(names)]
print("facts:", facts, flush=True)
print("variables:", sorted(os.environ), flush=True)
print("token:", os.path.exists(os.path.join(os.path.dirname(os.environ["HF_HUB_CACHE"]), "token")), flush=True)
print("The server is fired up and ready to roll!", flush=True)
serving.serve_forever()
"""


def build(folder: Path) -> str:
    """The image, built on a bare Debian with the Python of that Debian."""
    if parts.docker("images", "--quiet", IMAGE):
        return IMAGE
    base = nim_stand_in.with_python()
    context = folder / "sglang"
    context.mkdir()
    (context / "launch_server.py").write_text(SERVER)
    (context / "Dockerfile").write_text(
        f"FROM {base}\nCOPY launch_server.py /usr/lib/python3/dist-packages/sglang/launch_server.py\n"
    )
    parts.docker("build", "--quiet", "--tag", IMAGE, str(context))
    return IMAGE
