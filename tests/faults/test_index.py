"""An index that refuses, drips, says nothing or is something else: told in time, by its name, with what helps."""

from __future__ import annotations

import fcntl
import hashlib
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from faults.boxes import Box

from provision.environments import leftovers, path_for, read_stamp, stalls, verify
from provision.errors import StepFailed
from provision.host.local import LocalHost
from provision.steps.base import Progress

pytestmark = [pytest.mark.usefixtures("real_machine"), pytest.mark.fault]
SLOW, WORDS = "slow index", "index that refuses"
NAMES = ("alpha", "beta")
PORTAL = b"<html><head><title>Log in to Hotel</title></head><body><a href='/login'>Log in</a></body></html>"


class Index:
    """The wheels of a box as an index; `act` may answer a question itself, and says so."""

    def __init__(self, box: Box) -> None:
        index = self
        self.act: Callable[[SimpleHTTPRequestHandler], bool] = lambda _: False
        self.asked = 0

        class Handler(SimpleHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                index.asked += 1
                if index.act(self):
                    return
                if self.path.endswith(".whl"):
                    answer(self, 200, (box.wheels / self.path.rpartition("/")[2]).read_bytes(), kind="application/zip")
                    return
                wheel = next(box.wheels.glob(f"{self.path.strip('/').replace('-', '_')}-*.whl"))
                digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
                link = f'<html><a href="/files/{wheel.name}#sha256={digest}">{wheel.name}</a></html>'
                answer(self, 200, link.encode())

            do_HEAD = do_GET  # noqa: N815  # the names are http.server's

            def log_message(self, *_: object) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Those who asked go away at any time."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def answer(handler: SimpleHTTPRequestHandler, status: int, body: bytes = b"", *, kind: str = "text/html") -> bool:
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
    return True


@pytest.fixture
def box(tmp_path: Path) -> Box:
    found = Box(tmp_path)
    (tmp_path / "uv.toml").write_text("")
    return found


@pytest.fixture
def index(box: Box) -> Iterator[Index]:
    found = Index(box)
    yield found
    found.server.shutdown()
    found.server.server_close()


def machine(box: Box, url: str, **more: str) -> LocalHost:
    return LocalHost({**box.variables, "UV_DEFAULT_INDEX": url, "UV_HTTP_RETRIES": "1", **more})


def drip(handler: SimpleHTTPRequestHandler) -> bool:
    """A wheel at 10 B/s."""
    if not handler.path.endswith(".whl"):
        return False
    handler.send_response(200)
    handler.send_header("Content-Length", "50000")
    handler.end_headers()
    for _ in range(600):
        handler.wfile.write(b"PK\x03\x04......"[:10])
        handler.wfile.flush()
        time.sleep(1)
    return True


def say_nothing(_: SimpleHTTPRequestHandler) -> bool:
    time.sleep(300)
    return True


def wheel_says_nothing(handler: SimpleHTTPRequestHandler) -> bool:
    return handler.path.endswith(".whl") and say_nothing(handler)


@pytest.mark.tried(SLOW, "a wheel at 10 B/s, a wheel that never begins, an index that says nothing")
@pytest.mark.parametrize(
    ("act", "named"),
    [(drip, "alpha"), (wheel_says_nothing, "alpha"), (say_nothing, "an answer")],
    ids=["dripping wheel", "silent wheel", "silent index"],
)
def test_a_stall_is_named_and_tried_again_and_has_an_end(
    box: Box, index: Index, monkeypatch: pytest.MonkeyPatch, act: Callable[[SimpleHTTPRequestHandler], bool], named: str
) -> None:
    assert stalls.PATIENCE_S <= 55, "it is told within a minute"
    monkeypatch.setattr(stalls, "PATIENCE_S", 4.0)
    index.act = act
    lock, told, start = box.lock(names=NAMES), list[Progress](), time.monotonic()
    with pytest.raises(StepFailed, match=r"nothing came for 4 s.*twice") as caught:
        box.step(lock).apply(machine(box, index.url), told.append)
    assert time.monotonic() - start < 30
    assert named in str(caught.value) and f"127.0.0.1:{index.server.server_port}" in str(caught.value)
    assert any("trying again" in each.text for each in told)
    assert read_stamp(box.host, path_for(box.prefix, lock)) is None


@pytest.mark.tried(SLOW, "a wheel that stalls once, and comes the second time")
def test_what_stalled_once_is_installed_in_the_end(box: Box, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalls, "PATIENCE_S", 4.0)
    stalled: list[str] = []

    def once(handler: SimpleHTTPRequestHandler) -> bool:
        if handler.path.endswith(".whl") and handler.path not in stalled:
            stalled.append(handler.path)
            return drip(handler)
        return False

    index.act = once
    lock = box.lock(names=NAMES)
    box.step(lock).apply(machine(box, index.url), lambda _: None)
    assert verify(box.host, path_for(box.prefix, lock)).ok


def test_a_slow_line_is_no_stall(box: Box, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalls, "PATIENCE_S", 4.0)

    def slowly(handler: SimpleHTTPRequestHandler) -> bool:
        if not handler.path.endswith(".whl"):
            return False
        content = (box.wheels / handler.path.rpartition("/")[2]).read_bytes()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        for start in range(0, len(content), 60_000):
            handler.wfile.write(content[start : start + 60_000])
            handler.wfile.flush()
            time.sleep(1)
        return True

    index.act = slowly
    lock = box.lock(names=NAMES, data=600_000)
    box.step(lock).apply(machine(box, index.url), lambda _: None)
    assert verify(box.host, path_for(box.prefix, lock)).ok


@pytest.mark.tried("growth", "what ten killed downloads left half unpacked in uv's cache, and then an install")
def test_killed_downloads_leave_nothing_in_the_cache(box: Box, index: Index) -> None:
    lock = box.lock(names=NAMES, data=3_000_000)
    for number in range(10):
        # As a killed uv leaves them; one that is alive keeps its own.
        for folder in (box.cache / f".tmp{number}", box.cache / f"archive-v0/.tmp{number}"):
            (folder / "alpha").mkdir(parents=True)
            (folder / "alpha/data.bin").write_bytes(b"x" * 3_000_000)
    (box.cache / ".lock").touch()
    with (box.cache / ".lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        leftovers.sweep(str(box.cache))
        assert len(list(box.cache.glob("**/.tmp*"))) == 20, "another uv is at work"
    box.step(lock).apply(machine(box, index.url), lambda _: None)
    assert list(box.cache.glob("**/.tmp*")) == []
    size = sum(each.stat().st_size for each in box.cache.rglob("*") if each.is_file())
    assert size < 1.2 * 2 * 3_000_000


def status(number: int, *, wheels: bool = False) -> Callable[[SimpleHTTPRequestHandler], bool]:
    return lambda handler: (not wheels or handler.path.endswith(".whl")) and answer(handler, number, b"no")


def portal(handler: SimpleHTTPRequestHandler) -> bool:
    return answer(handler, 200, PORTAL)


def portal_for_wheels(handler: SimpleHTTPRequestHandler) -> bool:
    return handler.path.endswith(".whl") and answer(handler, 200, PORTAL)


def portal_elsewhere(handler: SimpleHTTPRequestHandler) -> bool:
    if handler.path.startswith("/portal"):
        return portal(handler)
    handler.send_response(302)
    handler.send_header("Location", "/portal?from=index")
    handler.send_header("Content-Length", "0")
    handler.end_headers()
    return True


@pytest.mark.tried(WORDS, "401, 403, 404, 500, 503, and a login page in the place of the index or of a wheel")
@pytest.mark.parametrize(
    ("act", "said", "hint"),
    [
        (status(401), "401 or 403", "login"),
        (status(403), "401 or 403", "login"),
        (status(401, wheels=True), "401 or 403", "login"),
        (status(403, wheels=True), "401 or 403", "login"),
        (status(404, wheels=True), "404", "mirror"),
        (status(500), "in trouble", "later"),
        (status(503), "in trouble", "later"),
        (portal, "something else answers for the index", "browser"),
        (portal_elsewhere, "something else answers for the index", "browser"),
        (portal_for_wheels, "a web page came in the place of the wheel `alpha-1.0", "browser"),
    ],
    ids=["401", "403", "wheel-401", "wheel-403", "wheel-404", "500", "503", "portal", "redirect", "wheel-portal"],
)
def test_a_refusal_is_told_for_what_it_is(
    box: Box, index: Index, act: Callable[[SimpleHTTPRequestHandler], bool], said: str, hint: str
) -> None:
    index.act = act
    with pytest.raises(StepFailed) as caught:
        box.step(box.lock(names=("alpha",))).apply(machine(box, index.url), lambda _: None)
    assert said in str(caught.value).splitlines()[0]
    assert hint in (caught.value.hint or "")


@pytest.mark.tried(WORDS, "an address of an index that is none")
@pytest.mark.parametrize(
    "value", ["not a url", "htp://x/", "http://", "127.0.0.1:9/simple", "http://[::1/", "http://h:99999/"]
)
@pytest.mark.parametrize("variable", ["UV_DEFAULT_INDEX", "UV_INDEX_URL"])
def test_a_malformed_address_is_named(box: Box, variable: str, value: str) -> None:
    host = LocalHost({**box.variables, "UV_HTTP_RETRIES": "0", variable: value})
    with pytest.raises(StepFailed) as caught:
        box.step(box.lock(names=("alpha",))).apply(host, lambda _: None)
    first = str(caught.value).splitlines()[0]
    assert "is not the address of an index" in first and value in first
    assert variable in (caught.value.hint or "")


@pytest.mark.tried(WORDS, "a proxy where nothing listens")
@pytest.mark.parametrize(
    ("variable", "scheme"), [("HTTPS_PROXY", "https"), ("http_proxy", "http"), ("ALL_PROXY", "https")]
)
def test_a_dead_proxy_is_named(box: Box, variable: str, scheme: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        proxy = f"http://user:hunter2@127.0.0.1:{unused.getsockname()[1]}"
        host = machine(box, f"{scheme}://index.invalid/simple", **{variable: proxy})
        with pytest.raises(StepFailed) as caught:
            box.step(box.lock(names=("alpha",))).apply(host, lambda _: None)
    first = str(caught.value).splitlines()[0]
    assert variable in first and "127.0.0.1" in first and "hunter2" not in str(caught.value)
    assert f"unset {variable}" in (caught.value.hint or "")


@pytest.mark.tried(WORDS, "a certificate that has expired")
def test_an_expired_certificate_is_told_from_one_that_is_not_trusted(box: Box, index: Index, tmp_path: Path) -> None:
    made = (
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=ca -days 2 && "
        "openssl req -newkey rsa:2048 -nodes -keyout k.pem -out r.csr -subj /CN=127.0.0.1 && "
        "printf 'subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n' > ext && "
        "touch index.txt && echo 01 > serial && printf '[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nserial=serial\n"
        "new_certs_dir=.\ndefault_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n' > ca.cnf && "
        "openssl ca -batch -config ca.cnf -cert ca.pem -keyfile ca.key -in r.csr -out c.pem -extfile ext -notext "
        "-startdate 20200101000000Z -enddate 20210101000000Z"
    )
    subprocess.run(["sh", "-c", made], cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "c.pem", tmp_path / "k.pem")
    index.server.socket = context.wrap_socket(index.server.socket, server_side=True)
    host = machine(box, index.url.replace("http:", "https:"), SSL_CERT_FILE=str(tmp_path / "ca.pem"))
    with pytest.raises(StepFailed) as caught:
        box.step(box.lock(names=("alpha",))).apply(host, lambda _: None)
    assert "has expired" in str(caught.value).splitlines()[0]
    assert "`date`" in (caught.value.hint or "")
