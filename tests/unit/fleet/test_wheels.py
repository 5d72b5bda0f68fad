"""The controller's server of wheels: bound to loopback, closed to whoever lacks the token, serving only this run's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from provision.bundle.sources import Source
from provision.fleet.wheels import WheelServer
from provision.secrets import mask

pytestmark = pytest.mark.usefixtures("real_machine")
NAME = "torch-2.4.0+cu121-cp310-cp310-linux_x86_64.whl"
CONTENT = b"wheel" * 1000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WheelServer]:
    (tmp_path / NAME).write_bytes(CONTENT)
    (tmp_path / "other-1.0-py3-none-any.whl").write_bytes(b"of another run")
    source = Source(name=NAME, url="x", sha256=hashlib.sha256(CONTENT).hexdigest())
    with WheelServer(tmp_path, [source], ["gpu-1", "gpu-2"]) as serving:
        yield serving


def url(server: WheelServer) -> str:
    return server.urls["gpu-1"]


def test_with_the_token(server: WheelServer) -> None:
    page = requests.get(url(server), timeout=5)
    assert f"{NAME.replace('+', '%2B')}#sha256={server.hashes[NAME]}" in page.text
    assert requests.get(url(server) + NAME.replace("+", "%2B"), timeout=5).content == CONTENT
    assert server.sent == {NAME: len(CONTENT)}
    assert requests.head(url(server) + NAME, timeout=5).headers["Content-Length"] == str(len(CONTENT))
    assert server.sent_bytes == len(CONTENT), "a question is not a transfer"


def test_without_it(server: WheelServer) -> None:
    bare = f"http://127.0.0.1:{server.port}/"
    for url in (bare, bare + NAME, f"http://fleet:wrong@127.0.0.1:{server.port}/{NAME}"):
        assert requests.get(url, timeout=5).status_code == 401
    assert server.sent == {}


@pytest.mark.parametrize("path", ["other-1.0-py3-none-any.whl", "../etc/passwd", "%2e%2e/etc/passwd", "a/b"])
def test_nothing_else_is_served(server: WheelServer, path: str) -> None:
    assert requests.get(url(server) + path, timeout=5).status_code == 404


def test_the_token_is_masked_where_the_address_is_shown(server: WheelServer) -> None:
    token = url(server).split(":")[2].split("@")[0]
    assert len(token) > 20 and token not in mask(f"failed to fetch {url(server)}")
    assert server.ssh_arguments == f"-R 127.0.0.1:{server.port}:127.0.0.1:{server.port}"
    assert token not in server.ssh_arguments
