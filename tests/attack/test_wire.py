"""What a hostile server, name or redirect does with a question of ours."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from fakes import FakeHost

from provision.bundle import fetch as fetching
from provision.bundle.sources import Source
from provision.cli import main
from provision.containers import images
from provision.errors import StepFailed, Unreachable, UsageError
from provision.experiments import switcheroo
from provision.host import Outcome
from provision.host.addresses import is_loopback, may_carry_key
from provision.http_client import Authorization, Limits, NoAnswer, asking
from provision.login import asking as login_asking
from provision.login import hub, registry
from provision.login.keys import NGC, Key
from provision.serving.client import Client, base_url

pytestmark = pytest.mark.usefixtures("real_machine")
KEY = "sk-abcdefghijklmnopqrstuvwxyz"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
Talk = Callable[[socket.socket], None]


@contextmanager
def server(talk: Talk) -> Iterator[str]:
    """A server that reads a question and then does as it likes; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=one, args=(connection,), daemon=True).start()

        def one(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                connection.recv(65536)
                talk(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        over.set()


def drip(data: bytes, *, first: bytes = b"", pause: float = 0.05) -> Talk:
    """Says `first` at once, and then `data` byte by byte for as long as it is listened to."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(first)
        for _ in range(400):
            connection.sendall(data)
            time.sleep(pause)

    return talk


def flood(data: bytes, *, first: bytes = b"") -> Talk:
    def talk(connection: socket.socket) -> None:
        connection.sendall(first)
        while True:
            connection.sendall(data)

    return talk


DRIPS = {
    "status line": drip(b"H"),
    "headers": drip(b"X-A: b\r\n", first=b"HTTP/1.1 200 OK\r\n"),
    "one header": drip(b"x", first=b"HTTP/1.1 200 OK\r\nX-A: "),
    "continue": drip(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body with a length": drip(b" ", first=HEAD + b"Content-Length: 100000\r\n\r\n"),
    "body to the end": drip(b" ", first=HEAD + b"\r\n"),
    "chunks": drip(b"1\r\n \r\n", first=HEAD + b"Transfer-Encoding: chunked\r\n\r\n"),
    "length of a chunk": drip(b"0", first=HEAD + b"Transfer-Encoding: chunked\r\n\r\n"),
    "trailers": drip(b"X: y\r\n", first=HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n \r\n0\r\n"),
    "events": drip(b": still here\n", first=b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"),
    "nothing": lambda _: time.sleep(20),
}


@pytest.mark.tried("hostile server", "drip one byte at a time, wherever in an answer, to hold us beyond `--timeout`")
@pytest.mark.parametrize("where", DRIPS)
@pytest.mark.parametrize("question", ["get", "events", "login", "any"])
def test_a_drip_ends_with_the_time_of_the_question(where: str, question: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_asking, "_LIMITS", Limits(seconds=0.2))
    with server(DRIPS[where]) as url:
        start = time.monotonic()
        with pytest.raises((NoAnswer, Unreachable)):  # noqa: PT012  # each question is two lines
            if question == "get":
                Client(url, timeout_s=0.2).get("/v1/models")
            elif question == "events":
                with Client(url, timeout_s=0.2).events("/v1/chat/completions", {}) as (_, data):
                    list(data)
                    raise NoAnswer("the stream ended") if where != "events" else AssertionError
            elif question == "login":
                login_asking.ask(f"{url}/v2/")
            else:
                with asking("GET", url, limits=Limits(seconds=0.2)) as reply:
                    reply.body()
        assert time.monotonic() - start < 1


@pytest.mark.tried("hostile server", "send an answer, a header or an event without end as fast as the line allows")
@pytest.mark.parametrize(
    "talk",
    [
        flood(b" " * 65536, first=HEAD + b"\r\n"),
        flood(b"x" * 65536, first=b"HTTP/1.1 200 OK\r\nX-A: "),
        flood(b"X-A: b\r\n" * 1000, first=b"HTTP/1.1 200 OK\r\n"),
        flood(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
        flood(b"f" * 65536, first=HEAD + b"Transfer-Encoding: chunked\r\n\r\n"),
        flood(b"1;" + b"a" * 65536, first=HEAD + b"Transfer-Encoding: chunked\r\n\r\n"),
        flood(b"data: " + b"x" * 65536, first=b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"),
    ],
)
def test_a_flood_ends_at_the_limit_of_bytes(talk: Talk) -> None:
    with server(talk) as url, pytest.raises(NoAnswer):
        read_all(url, Limits(seconds=20, most_bytes=1 << 20))


def read_all(url: str, limits: Limits) -> None:
    with asking("GET", url, limits=limits) as reply:
        for _ in reply.lines():
            pass


@pytest.mark.tried("hostile server", "answer with a few bytes that unpack to gigabytes")
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "GZIP"])
def test_what_is_compressed_is_never_unpacked(encoding: str) -> None:
    packed = gzip.compress(bytes(16 << 20))
    answer = HEAD + f"Content-Encoding: {encoding}\r\nContent-Length: {len(packed)}\r\n\r\n".encode() + packed
    with server(lambda connection: connection.sendall(answer)) as url:
        with pytest.raises(NoAnswer, match="not asked for"):
            Client(url, timeout_s=5).get("/v1/models")
        with pytest.raises(Unreachable):
            login_asking.ask(f"{url}/v2/")


@pytest.mark.tried("hostile server", "answer with JSON that is nested a hundred thousand times, or with no JSON at all")
@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe", b"NaN", b"1" * 10_000, b""])
def test_no_answer_ends_in_a_traceback(body: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    answer = HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
    with server(lambda connection: connection.sendall(answer)) as url:
        assert main(["smoke", "--url", url, "--timeout", "5", "--json"]) == 6
        assert json.loads(capsys.readouterr().out)["ok"] is False
        assert switcheroo.summarise(url, api_key=None, timeout_s=5).problem
        view = FakeHost()
        view.variables["HF_ENDPOINT"] = url
        with pytest.raises(Unreachable):
            hub.prove(view, Key(KEY, "HF_TOKEN"))


@pytest.mark.tried("hostile server", "never end the search for its name, or the handshake of TLS")
def test_names_and_handshakes_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(lambda _: time.sleep(20)) as url:
        start = time.monotonic()
        with (
            pytest.raises(NoAnswer) as caught,
            asking("GET", url.replace("http:", "https:"), limits=Limits(seconds=0.2)),
        ):
            pass
        assert caught.value.timed_out and time.monotonic() - start < 1
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(3))
    start = time.monotonic()
    with pytest.raises(NoAnswer) as caught, asking("GET", "http://slow.example/", limits=Limits(seconds=0.2)):
        pass
    assert caught.value.timed_out and time.monotonic() - start < 1


@pytest.mark.tried("hostile server", "drip in the handshake of TLS, or as a proxy in front of another server")
@pytest.mark.parametrize(
    "talk", [drip(b"x", first=b"\x16\x03\x03\x40\x00"), drip(b"X-A: b\r\n", first=b"HTTP/1.1 200 OK\r\n")]
)
@pytest.mark.parametrize("proxied", [True, False])
def test_a_drip_before_the_answer(talk: Talk, monkeypatch: pytest.MonkeyPatch, *, proxied: bool) -> None:
    with server(talk) as url:
        asked = url.replace("http:", "https:")
        if proxied:
            monkeypatch.setenv("HTTPS_PROXY", url)
            monkeypatch.delenv("NO_PROXY", raising=False)
            asked = "https://hub.example/"
        start = time.monotonic()
        with pytest.raises(NoAnswer), asking("GET", asked, limits=Limits(seconds=0.3)):
            pass
        assert time.monotonic() - start < 1.5


@pytest.mark.tried("hostile server", "hand out a file byte by byte for ever")
def test_a_download_that_stalls_is_named_and_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_LIMITS", Limits(most_bytes=None, stall_s=0.3, least_bytes=1000))
    monkeypatch.setattr(fetching, "_ATTEMPTS", 2)
    with server(drip(b"x", first=b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")) as url:
        start = time.monotonic()
        with pytest.raises(StepFailed, match=r"`a\.whl` broke off"):
            fetching.fetch([Source(name="a.whl", url=f"{url}/a.whl", sha256="0" * 64)], tmp_path)
        assert time.monotonic() - start < 5


LOOKALIKES = [
    *("localhost.evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "127.0.0.1@evil.example"),
    *("127.0.0.1:80@evil.example", "evil.example#127.0.0.1", "evil.example?127.0.0.1", "evil.example/127.0.0.1"),
    *("evil.example\\@127.0.0.1", "127.0.0.1\\.evil.example", "127.0.0.1\t.evil.example", "127.0.0.1%2eevil.example"),
    *("127.0.0.1\u3002evil.example", "\uff11\uff12\uff17.0.0.1", "l\u043ecalhost", "\u24dbocalhost", "127.0.0.1\u200b"),
    *("2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0x7f.1", "017700000001", "127.0.0.1.", "127.0.0.1.."),
    *(
        "0.0.0.0",
        "[::]",
        "[::ffff:8.8.8.8]",
        "[::ffff:0.0.0.0]",
        "[fe80::1%lo]",
        "[::1].evil.example",
        "[::1]evil.example",
    ),
    *("localhost..", ".localhost", "localhost.localdomain", "evil.localhost", "ip6-localhost", "", "[", "[::1", "::1]"),
    *(
        "127.0.0.1:0",
        "127.0.0.1:99999",
        "127.0.0.1:http",
        "localhost:80:80",
        "128.0.0.1",
        "126.255.255.255",
        "evil:127",
    ),
]


@pytest.mark.tried(
    "false loopback", "call another host so that it looks like this machine, to turn TLS off or get a key"
)
@pytest.mark.parametrize("address", LOOKALIKES)
def test_what_only_looks_like_this_machine(address: str) -> None:
    url = f"http://{address}"
    assert not is_loopback(address) and not is_loopback(url) and not may_carry_key(url)
    with pytest.raises((UsageError, NoAnswer)):
        Client(base_url(url), api_key=KEY, timeout_s=0.2).get("/")
    asked = Asked()
    # What cannot be the name of an image is refused; what can is asked with TLS.
    with suppress(UsageError):
        images.ask(asked, f"{address}/x/y:1", "amd64")
    assert "--insecure" not in asked.argv


class Asked(FakeHost):
    """Keeps what it is asked."""

    argv: Sequence[str] = ()

    def query(self, argv: Sequence[str], *, timeout_s: float = 10) -> Outcome:
        self.argv = argv
        return super().query(argv, timeout_s=timeout_s)


@pytest.mark.parametrize(
    "address",
    ["localhost", "LOCALHOST:1", "localhost.", "127.0.0.1", "127.255.0.9:80", "::1", "[::1]:80", "::ffff:127.0.0.1"],
)
def test_this_machine_in_every_spelling(address: str) -> None:
    assert is_loopback(address) and may_carry_key(f"http://{address if address[0] != ':' else f'[{address}]'}")


@pytest.mark.tried("key in the clear", "have a key sent over the network without encryption")
@pytest.mark.parametrize(
    "command",
    [
        ["smoke", "--url", "http://192.0.2.1:30000"],
        ["smoke", "--url", "192.0.2.1:30000"],
        ["smoke", "--url", "http://user:password@192.0.2.1:30000"],
        ["smoke", "--url", "http://127.0.0.1@192.0.2.1"],
        ["experiment", "switcheroo", "http://192.0.2.1", "http://192.0.2.2"],
        ["login", "hf"],
    ],
)
def test_a_key_is_not_sent_in_the_clear(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("socket.create_connection", lambda *_, **__: pytest.fail("a connection was made"))
    monkeypatch.setenv("SGPROV_API_KEY", KEY)
    monkeypatch.setenv("HF_TOKEN", "hf_" + "a" * 30)
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example")
    assert main([*command, "--json"]) == 2
    told = json.loads(capsys.readouterr().out)["error"]
    assert "--insecure" in told["hint"] and "password" not in told["text"]


@pytest.mark.tried("key in the clear", "have a model and its token go through a hub without encryption")
def test_a_hub_without_encryption_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = ["plan", "--target", "cpu", "--model", "org/name", "--prefix", str(tmp_path), "--json"]
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    for hub_url, more, refused in (
        ("http://hub.example", [], True),
        ("http://127.0.0.1.hub.example", [], True),
        ("http://hub.example", ["--insecure"], False),
        ("https://hub.example", [], False),
        ("http://127.0.0.1:9", [], False),
    ):
        monkeypatch.setenv("HF_ENDPOINT", hub_url)
        # Whether such a hub answers here is told by another status.
        assert (main([*command, *more]) == UsageError.exit_status) is refused
        assert (json.loads(capsys.readouterr().out).get("error", {}).get("code") == "usage") is refused


@contextmanager
def web(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[tuple[str, list[str | None]]]:
    """A server that keeps each `Authorization` that it is sent."""
    seen: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization"))
            answer(self)

        do_POST = do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}", seen
        listening.shutdown()


def say(status: int, body: bytes = b"{}", **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@pytest.mark.tried("redirect", "send a question elsewhere, so that its key goes along")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_never_carries_a_key(status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_ATTEMPTS", 1)
    with web(say(200)) as (thief, seen), web(say(status, Location=f"{thief}/a.whl")) as (url, asked):
        assert Client(url, api_key=KEY).get("/v1/models").status == status
        assert Client(url, api_key=KEY).post("/v1/chat/completions", {}).status == status
        assert login_asking.ask(f"{url}/v2/", Authorization.bearer(KEY)).status == status
        source = Source(name="a.whl", url=f"{url}/a.whl", sha256="0" * 64)
        with pytest.raises(StepFailed, match="not what was locked"):
            fetching.fetch([source], tmp_path, logins={url: ("me", "word")})
        assert asked == [*[f"Bearer {KEY}"] * 3, "Basic bWU6d29yZA=="] and seen == [None]


@pytest.mark.tried("redirect", "send a question round in circles, or from this machine to a file or a broken address")
@pytest.mark.parametrize("place", ["/again", "file:///etc/passwd", "gopher://x", "http://[", "http:///x", "//\\evil"])
def test_a_redirect_leads_to_an_answer_or_an_error(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_ATTEMPTS", 1)
    with web(say(302, Location=place)) as (url, seen):
        with pytest.raises(StepFailed):
            fetching.fetch([Source(name="a.whl", url=f"{url}/a.whl", sha256="0" * 64)], tmp_path)
        assert len(seen) <= 6


@pytest.mark.tried(
    "redirect", "name a place without encryption, or on this machine, as where a registry makes its tokens"
)
@pytest.mark.parametrize(
    "realm",
    ["http://evil.example/", "http://127.0.0.1:1/", "https://localhost:1/", "http://127.0.0.1@evil.example/", "x"],
)
def test_a_realm_gets_no_key(realm: str) -> None:
    with pytest.raises(Unreachable, match="not encrypted"):
        registry._token(
            registry.Challenge(realm=realm), Authorization.bearer(KEY), NGC, Key(KEY, "x"), None, insecure=False
        )


@pytest.mark.tried(
    "login of another", "have ~/.netrc win over the key of a server on this machine, or go to it unasked"
)
def test_nothing_comes_from_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, there in (("NETRC", tmp_path / "netrc"), ("HOME", tmp_path)):
        monkeypatch.setenv(name, str(there))
    for file in ("netrc", ".netrc"):
        (tmp_path / file).write_text("machine 127.0.0.1 login me password word\ndefault login you password other\n")
        (tmp_path / file).chmod(0o600)
    with web(say(200)) as (url, seen):
        Client(url, api_key=KEY).get("/v1/models")
        Client(url).get("/v1/models")
        login_asking.ask(f"{url}/v2/")
        login_asking.ask(f"{url}/v2/", Authorization.bearer(KEY))
        assert seen == [f"Bearer {KEY}", None, None, f"Bearer {KEY}"]


def test_a_login_for_an_index_may_be_in_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A choice of the user's, as with uv; docs/security.md says so."""
    monkeypatch.setattr(fetching, "_ATTEMPTS", 1)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password word\n")
    (tmp_path / "netrc").chmod(0o600)
    with web(say(401)) as (url, seen), pytest.raises(StepFailed, match="without the right login"):
        fetching.fetch([Source(name="a.whl", url=f"{url}/a.whl", sha256="0" * 64)], tmp_path)
    assert seen == ["Basic bWU6d29yZA=="]
