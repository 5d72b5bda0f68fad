"""Files fetched by hash: resumed where they broke off, refused if they are not what was locked."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from provision.bundle.fetch import fetch
from provision.bundle.sources import Machine, Source, tags
from provision.errors import StepFailed

pytestmark = pytest.mark.usefixtures("real_machine")
CONTENT = bytes(range(256)) * 4000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Web:
    url: str = ""
    ranges: list[str] = field(default_factory=list)
    break_off: int = 0
    honours_ranges: bool = True


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    state = Web()
    monkeypatch.setattr("time.sleep", lambda _: None)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = self.headers.get("Range") or ""
            state.ranges.append(asked)
            if self.path == "/missing.whl":
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = int(asked[6:-1]) if asked and state.honours_ranges else 0
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(CONTENT) - start))
            self.end_headers()
            body = CONTENT[start:]
            if state.break_off:
                state.break_off -= 1
                body = body[: len(body) // 2]
                self.close_connection = True
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield state
    server.shutdown()
    server.server_close()


def source(web: Web, name: str = "a.whl", digest: str = DIGEST) -> Source:
    return Source(name=name, url=f"{web.url}/{name}", sha256=digest)


def test_fetched_once_and_then_believed_only_after_it_was_hashed(web: Web, tmp_path: Path) -> None:
    told: list[int] = []
    found = fetch([source(web)], tmp_path, tell=told.append)
    assert (found.files, found.bytes, found.kept) == (1, len(CONTENT), 0)
    assert (tmp_path / "a.whl").read_bytes() == CONTENT and told[-1] == len(CONTENT)
    assert fetch([source(web)], tmp_path).kept == 1
    (tmp_path / "a.whl").write_bytes(CONTENT[:-1] + b"x")
    assert fetch([source(web)], tmp_path).files == 1
    assert (tmp_path / "a.whl").read_bytes() == CONTENT


def test_one_that_broke_off_goes_on_where_it_was(web: Web, tmp_path: Path) -> None:
    web.break_off = 2
    assert fetch([source(web)], tmp_path).bytes == len(CONTENT)
    assert web.ranges[0] == "" and web.ranges[1].startswith("bytes=") and len(web.ranges) == 3


def test_a_server_without_ranges_sends_it_again(web: Web, tmp_path: Path) -> None:
    web.break_off, web.honours_ranges = 1, False
    fetch([source(web)], tmp_path)
    assert (tmp_path / "a.whl").read_bytes() == CONTENT


def test_a_part_of_an_earlier_call_is_used(web: Web, tmp_path: Path) -> None:
    (tmp_path / "a.whl.part").write_bytes(CONTENT[:1000])
    assert fetch([source(web)], tmp_path).bytes == len(CONTENT) - 1000
    assert not (tmp_path / "a.whl.part").exists()


def test_another_file_under_the_name_is_refused_and_not_kept(web: Web, tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="is not what was locked"):
        fetch([source(web, digest="0" * 64)], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_never_comes_is_named(web: Web, tmp_path: Path) -> None:
    web.break_off = 99
    with pytest.raises(StepFailed, match=r"the download of `a.whl` broke off") as caught:
        fetch([source(web)], tmp_path)
    assert "what has arrived is kept" in (caught.value.hint or "")
    assert (tmp_path / "a.whl.part").exists()
    web.break_off = 0
    with pytest.raises(StepFailed, match=r"`missing.whl` is no longer"):
        fetch([source(web, "missing.whl")], tmp_path)


def test_a_folder_is_a_source_too(tmp_path: Path) -> None:
    (tmp_path / "there.whl").write_bytes(CONTENT)
    local = Source(name="a.whl", url=str(tmp_path / "there.whl"), sha256=DIGEST)
    assert fetch([local], tmp_path / "out").bytes == len(CONTENT)
    with pytest.raises(StepFailed, match="cannot be read"):
        fetch([Source(name="b.whl", url=str(tmp_path / "gone.whl"), sha256=DIGEST)], tmp_path / "out")


def test_tags_of_a_machine_that_is_not_here() -> None:
    found = [str(tag) for tag in tags(Machine(python="3.10", arch="aarch64", glibc="2.28"))]
    assert found[0] == "cp310-cp310-manylinux_2_28_aarch64"
    assert "cp310-cp310-manylinux2014_aarch64" in found and "py3-none-any" in found
    assert not any("x86_64" in tag or "manylinux_2_29" in tag for tag in found)
