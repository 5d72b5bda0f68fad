"""Images built from a lock for real, saved, loaded, and served; on a bare Debian, with small wheels of our own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import make_wheel
from live import nim_stand_in, parts
from live.real_command import Ran, sgprov
from msgspec import structs

from provision import launches
from provision.catalog.load import Catalog
from provision.config import Options
from provision.containers import dockerfile
from provision.decision import Decision, Hosting, Places
from provision.host.local import LocalHost
from provision.serving import server
from provision.serving.client import Client

pytestmark = pytest.mark.container
TAG = "sgprov-test/built:1"
_ENGINE = """
import argparse, http.server, json, os
parser = argparse.ArgumentParser()
parser.add_argument("--model-path")
parser.add_argument("--host")
parser.add_argument("--port", type=int)
given, _ = parser.parse_known_args()
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"user": os.getuid(), "model": given.model_path}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
serving = http.server.ThreadingHTTPServer((given.host, given.port), Answers)
print("The server is fired up and ready to roll!", flush=True)
serving.serve_forever()
"""


@pytest.fixture(scope="module")
def base() -> str:
    return nim_stand_in.with_python()


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    (folder / "lock.txt").write_text("".join(make_wheel(folder / "wheels", name) for name in ("alpha", "beta")))
    return folder


@pytest.fixture(scope="module", autouse=True)
def _tidy() -> Iterator[None]:
    """The stage that installs stays behind as an image without a name."""
    yield
    label = dockerfile.STAGE.replace('"', "")
    left = parts.docker("images", "--quiet", "--filter", "dangling=true", "--filter", f"label={label}").split()
    if left:
        parts.docker("rmi", *left, check=False)


def build(base: str, wheels: Path, *more: str, lock: str = "lock.txt") -> Ran:
    stack = ("--stack", "sglang-0.5.23", "--python", "3.11", "--lockfile", str(wheels / lock))
    return sgprov(
        "image", "build", *stack, "--base", base, "--wheels", str(wheels / "wheels"), "--tag", TAG, *more, "--json"
    )


def test_built_saved_and_loaded(base: str, wheels: Path, tmp_path: Path) -> None:
    ran = build(base, wheels)
    assert ran.rc == 0, ran.out + ran.err
    assert ran.json["user"] == "10001:10001"
    labels = json.loads(parts.docker("image", "inspect", "--format", "{{json .Config.Labels}}", TAG))
    assert labels["sgprov.lock-digest"] == ran.json["labels"]["sgprov.lock-digest"]
    inside = parts.docker(
        "run", "--rm", TAG, "python3", "-c", "import alpha, beta, os; print(alpha.VERSION, os.getuid())"
    )
    assert inside == "1.0 10001"
    assert "uv" not in parts.docker("run", "--rm", TAG, "ls", "/usr/local/bin"), "the installer stays behind"
    file = str(tmp_path / "built.tar.gz")
    saved = sgprov("image", "save", TAG, file, "--json")
    assert saved.rc == 0, saved.out + saved.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["built.tar.gz", "built.tar.gz.json"]
    assert sgprov("image", "load", file, "--json").json["changed"] is False
    parts.docker("rmi", TAG)
    loaded = sgprov("image", "load", file, "--json")
    assert (loaded.rc, loaded.json["changed"], loaded.json["id"]) == (0, True, ran.json["id"])
    parts.docker("rmi", TAG)
    with Path(file).open("ab") as stream:
        stream.write(b"x")
    broken = sgprov("image", "load", file, "--json")
    assert broken.rc == 4 and "is not what was saved" in broken.json["error"]["text"]


def test_what_was_built_is_served(base: str, tmp_path: Path) -> None:
    """By a stand-in for the engine of a few lines: what is tried is the image, its Python and its launch, as the caller."""
    line = make_wheel(tmp_path / "wheels", "sglang", "0.5.14", modules={"launch_server": _ENGINE})
    (tmp_path / "lock.txt").write_text(line)
    assert build(base, tmp_path).rc == 0
    for name in ("model", "hub"):
        (tmp_path / name).mkdir()
    host = LocalHost({name: os.environ[name] for name in ("PATH", "HOME")})
    catalog, servers = Catalog(), str(tmp_path / "servers")
    row = structs.replace(catalog.image("sglang-0.5.14-cu130"), reference=TAG, digests={})
    target = catalog.target("sglang-image")
    decision = Decision(
        target=target,
        places=Places(prefix=str(tmp_path), models=str(tmp_path), huggingface=str(tmp_path)),
        serve=structs.replace(target.serve, model=str(tmp_path / "model"), port=parts.free_port(), host="127.0.0.1"),
        image=row,
        hosting=Hosting(program="docker", reference=TAG, arch="amd64"),
    )
    launch = launches.of(host, decision, str(tmp_path / "model"), Options(), name="test-built")
    try:
        ready = server.wait_until_ready(host, server.start(host, servers, launch, name="test-built"), timeout_s=60)
        said = Client(ready.url).get("/v1/models").body
        assert isinstance(said, dict) and (said["user"], said["model"]) == (os.geteuid(), str(tmp_path / "model"))
    finally:
        server.stop(host, servers, name="test-built", grace_s=1)
        parts.docker("rmi", TAG)


def test_a_wheel_that_is_not_the_locked_one_ends_the_build(base: str, wheels: Path) -> None:
    (wheels / "wrong.txt").write_text("alpha==1.0 \\\n    --hash=sha256:" + "0" * 64 + "\n")
    before = parts.docker("ps", "--all", "--quiet", "--filter", "status=exited", "--filter", f"ancestor={base}")
    ran = build(base, wheels, lock="wrong.txt")
    assert ran.rc == 5
    after = parts.docker("ps", "--all", "--quiet", "--filter", "status=exited", "--filter", f"ancestor={base}")
    assert after == before, "a build that fails leaves no container behind"
    assert "Hash mismatch" in ran.json["error"]["text"]


def test_the_variant_for_aws_is_rendered(base: str, wheels: Path) -> None:
    ran = build(base, wheels, "--variant", "efa", "--show")
    assert ran.rc == 0
    text = ran.json["dockerfile"]
    assert "aws-efa-installer-1.43.2.tar.gz" in text and text.rstrip().endswith("USER 10001:10001")
    assert text.count("--require-hashes") == 1
