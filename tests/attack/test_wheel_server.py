"""What a host of the fleet can do with the way to the wheels that it is given: ask for these wheels, and no more."""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from provision.bundle.sources import Source
from provision.fleet import wheels
from provision.fleet.wheels import WheelServer

pytestmark = pytest.mark.usefixtures("real_machine")
KIND = "wheel server"
NAME = "small-1.0-py3-none-any.whl"
CONTENT = b"wheel" * 1000


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WheelServer]:
    monkeypatch.setattr(wheels, "QUESTION_S", 1.0)
    (tmp_path / NAME).write_bytes(CONTENT)
    (tmp_path / "other.whl").write_bytes(b"of another run")
    with WheelServer(
        tmp_path, [Source(name=NAME, url="x", sha256=hashlib.sha256(CONTENT).hexdigest())], ["a", "b"]
    ) as it:
        yield it


def connect(server: WheelServer) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    connection.settimeout(10)
    return connection


def login(server: WheelServer, host: str) -> str:
    given = server.urls[host].split("//")[1].split("@")[0]
    return base64.b64encode(given.encode()).decode()


def closed_after(connection: socket.socket) -> float:
    start = time.monotonic()
    with suppress(ConnectionError):
        while connection.recv(1 << 16):
            pass
    return time.monotonic() - start


def works(server: WheelServer, host: str = "b") -> bool:
    return requests.get(server.urls[host] + NAME, timeout=10).content == CONTENT


@pytest.mark.tried(KIND, "no token, another host's name, a wrong one, parts of one, and headers that are no login")
def test_without_the_token(server: WheelServer) -> None:
    user, token = server.urls["a"].split("//")[1].split("@")[0].split(":")
    other = server.urls["b"].split("//")[1].split(":")[0]
    given = [
        f"{user}:{token[:-1]}",
        f"{user}:",
        f":{token}",
        f"{other}:{token}",
        "",
        "fleet:x",
        f"{user}:{token}x",
        "é:é",
    ]
    headers = [f"Basic {base64.b64encode(each.encode()).decode()}" for each in given]
    for header in (*headers, "Basic", "Bearer x", "Basic =", "Basic \\x00", "x" * 9000):
        with suppress(requests.ConnectionError):
            answer = requests.get(
                f"http://127.0.0.1:{server.port}/{NAME}", headers={"Authorization": header}, timeout=10
            )
            assert answer.status_code in {400, 401, 431}, header[:40]
    assert server.sent_bytes == 0 and works(server)


@pytest.mark.tried(KIND, "paths that lead out of the wheels of this run")
@pytest.mark.parametrize(
    "path",
    [
        "../../etc/passwd",
        "%2e%2e%2fetc%2fpasswd",
        "/etc/passwd",
        "//etc/passwd",
        "other.whl",
        "./other.whl",
        f"{NAME}/..",
        f"{NAME}%00",
        "%",
        "\\\\",
        f"x/{NAME}",
        "http://127.0.0.1:22/",
    ],
)
def test_other_paths(server: WheelServer, path: str) -> None:
    with connect(server) as connection:
        connection.sendall(f"GET /{path} HTTP/1.0\r\nAuthorization: Basic {login(server, 'a')}\r\n\r\n".encode())
        answer = connection.recv(1 << 16)
    assert answer.split()[1] in {b"404", b"400"}, answer[:100]
    assert server.sent_bytes == 0


@pytest.mark.tried(KIND, "a question that drips in, byte by byte")
def test_a_question_that_drips(server: WheelServer) -> None:
    with connect(server) as connection:
        start = time.monotonic()
        with suppress(OSError):
            while time.monotonic() - start < 8:
                connection.sendall(b"G")
                time.sleep(0.05)
        assert time.monotonic() - start < 5, "the whole question has a time, and not each of its bytes"


@pytest.mark.tried(KIND, "a header, a line and a body without end")
@pytest.mark.parametrize(
    "beginning",
    [
        b"GET /",
        b"GET / HTTP/1.1\r\nx: ",
        b"GET / HTTP/1.1\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
    ],
)
def test_a_question_without_end(server: WheelServer, beginning: bytes) -> None:
    with connect(server) as connection:
        sent = 0
        with suppress(OSError):
            connection.sendall(beginning)
            for _ in range(2000):
                connection.sendall(b"x: y\r\n" * 500)
                sent += 3000
        assert sent < 5_000_000, "it is not read, so it is not kept"
        assert closed_after(connection) < 5
    assert works(server)


@pytest.mark.tried(KIND, "hundreds of silent connections from one host")
def test_silent_connections_do_not_keep_others_out(server: WheelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "QUESTION_S", 60.0)
    held = [connect(server) for _ in range(wheels.MOST_WAITING + 50)]
    try:
        assert works(server)
        for _ in range(100):
            if threading.active_count() <= wheels.MOST_WAITING * 2 + 60:
                break
            time.sleep(0.05)
        assert closed_after(held[0]) < 5, "the oldest are given up"
    finally:
        for connection in held:
            connection.close()


@pytest.mark.tried(KIND, "more connections of one host than it may have, which take nothing of what they ask for")
def test_a_host_holds_up_nobody_but_itself(server: WheelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "MOST_CONNECTIONS", 5)
    monkeypatch.setattr(wheels, "QUESTION_S", 60.0)
    held = [connect(server) for _ in range(9)]
    try:
        for connection in held:
            connection.sendall(f"GET /{NAME} HTTP/1.1\r\nAuthorization: Basic {login(server, 'a')}\r\n\r\n".encode())
        statuses = sorted(connection.recv(12)[9:] for connection in held)
        assert statuses == [b"200"] * 5 + [b"503"] * 4
        assert works(server, "b")
    finally:
        for connection in held:
            connection.close()
    for _ in range(100):
        if requests.get(server.urls["a"], timeout=10).ok:
            return
        time.sleep(0.05)
    pytest.fail("what is closed does not count any more")


@pytest.mark.tried(KIND, "connections that break off in the middle: nothing of it is on the controller's screen")
def test_a_broken_connection_is_not_told(server: WheelServer, capfd: pytest.CaptureFixture[str]) -> None:
    for text in (b"", b"GET", b"\x00\xff" * 100, b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00"):
        connection = connect(server)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        connection.sendall(text)
        connection.close()
    assert works(server)
    time.sleep(0.3)
    assert capfd.readouterr() == ("", "")
