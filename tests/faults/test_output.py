"""Nobody reads, nobody can, or somebody stops it: the work ends as it would have, with its status and no traceback."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import random
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO, cast

import pytest
from unit.serving.test_lifecycle import launch, runs, step

from provision.cli import progress, render
from provision.cli.progress import Work
from provision.cli.streams import Stream, standard_streams
from provision.host.local import LocalHost
from provision.report import Status, StepResult
from provision.serving import server
from provision.steps import Progress

pytestmark = pytest.mark.usefixtures("real_machine")
HOST = str(Path(__file__).parents[1] / "hosts" / "a40-runpod")
WELL = {
    "text": ["plan", "--host", HOST, "--target", "runpod-a40", "--port", "9000"],
    "JSON": ["facts", "--host", HOST, "--json"],
    "help": ["bootstrap", "--help"],
    "version": ["--version"],
    "targets": ["targets", "--host", HOST],
}
WRONG = {"usage": ["plan", "--target", "nope"], "usage as JSON": ["plan", "--target", "nope", "--json"]}
SGPROV = (sys.executable, "-m", "provision")


def sgprov(words: Sequence[str], redirection: str = "", **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run it behind a shell's redirection, or in front of a pipe; the status is its own, not that of the pipe."""
    line = f'"$@" {redirection}' + ("; exit ${PIPESTATUS[0]}" if "|" in redirection else "")
    return subprocess.run(
        ["bash", "-c", line, "bash", *SGPROV, *words],
        check=False,
        capture_output=True,
        timeout=60,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **variables},
    )


def quiet(ran: subprocess.CompletedProcess[bytes]) -> bool:
    said = ran.stderr + ran.stdout
    return b"Traceback" not in said and b"Exception ignored" not in said and b"Error:" not in said


@pytest.mark.fault
@pytest.mark.tried(
    "nobody reads", "close stdout or stderr before the start, or have the reader go away at once or later"
)
@pytest.mark.parametrize(
    "redirection", ["| true", "| head -1", "| head -c 7", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"]
)
@pytest.mark.parametrize("name", ["text", "JSON", "usage", "version"])
def test_a_reader_that_is_gone_changes_nothing(name: str, redirection: str) -> None:
    ran = sgprov((WELL | WRONG)[name], redirection)
    assert ran.returncode == (2 if name in WRONG else 0), ran.stderr.decode()
    assert quiet(ran)


@pytest.mark.fault
@pytest.mark.tried(
    "nobody can read", "write to a full disk: the status says that the result was lost, unless there is a worse one"
)
@pytest.mark.parametrize("redirection", [">/dev/full", "2>/dev/full", ">/dev/full 2>&1"])
@pytest.mark.parametrize("name", ["text", "JSON", "help", "version", "usage as JSON"])
def test_a_full_disk_is_a_status(name: str, redirection: str) -> None:
    ran = sgprov((WELL | WRONG)[name], redirection)
    lost = redirection != "2>/dev/full"
    assert ran.returncode == (2 if name in WRONG else 5 if lost else 0)
    assert quiet(ran)
    if redirection == ">/dev/full" and name in WELL:
        assert b"could not be written: No space left on device" in ran.stderr


@pytest.mark.tried("nobody can read", "fill the disk behind a file that is written to, in the middle of a result")
def test_half_a_result_is_told(tmp_path: Path) -> None:
    limited = f"ulimit -f 1; exec {' '.join(SGPROV)} facts --host {HOST} --json > {tmp_path}/facts.json"
    ran = subprocess.run(["bash", "-c", limited], check=False, capture_output=True, timeout=60)
    assert ran.returncode == 5 and b"could not be written: File too large" in ran.stderr and quiet(ran)


@pytest.mark.tried("nobody reads", "keep a file from the place of a stream that was closed")
def test_a_file_never_takes_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    for redirection in (">&-", "2>&-", "<&- >&- 2>&-"):
        ran = sgprov(["facts", "--host", HOST, "--capture", str(tmp_path / "copy")], redirection)
        assert ran.returncode == 0
        for path in (tmp_path / "copy").rglob("*.yml"):
            assert "captured in" not in path.read_text(encoding="utf-8")


class Broken(io.TextIOBase):
    """A stream that takes a few words and then fails, each time in the way that it is given."""

    encoding = "utf-8"

    def __init__(self, error: Exception, words: int = 3) -> None:
        self.error, self.words, self.said = error, words, ""

    def write(self, text: str, /) -> int:
        self.words -= 1
        if self.words < 0:
            raise self.error
        self.said += text
        return len(text)

    def flush(self) -> None:
        if self.words < 0:
            raise self.error

    def isatty(self) -> bool:
        return True


ERRORS = [
    BrokenPipeError(32, "Broken pipe"),
    OSError(28, "No space left on device"),
    OSError(5, "Input/output error"),
    OSError(9, "Bad file descriptor"),
    BlockingIOError(11, "Resource temporarily unavailable"),
    ValueError("I/O operation on closed file"),
]


@pytest.mark.tried("nobody reads", "break stdout in the middle of a run: on a terminal, in a log, in JSON")
@pytest.mark.parametrize("error", ERRORS, ids=[repr(error) for error in ERRORS])
@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("words", [0, 3, 40])
def test_what_is_said_never_raises_into_the_work(
    error: Exception, words: int, monkeypatch: pytest.MonkeyPatch, *, terminal: bool
) -> None:
    monkeypatch.setattr(Broken, "isatty", lambda _: terminal)
    monkeypatch.setattr(sys, "stdout", Broken(error, words))
    monkeypatch.setattr(sys, "stderr", Broken(error, words))
    done = 0
    with standard_streams() as (out, _):
        for as_json in (False, True):
            with progress.watching(as_json=as_json) as watcher:
                for number in range(30):
                    step = Work(f"step-{number}")
                    watcher.started(step)
                    watcher.progress(step, Progress(text="working", done=1, total=3, milestone=True, stays=True))
                    watcher.ended(step, StepResult(step=step.id, status=Status.DONE, seconds=0.2))
                    done += 1
            render.print_json({"ok": True})
            render.show_bug(RuntimeError("x"), command="plan", as_json=as_json)
            render.line(render.console(), "the end")
    assert done == 60
    assert (out.problem is None) == (isinstance(error, ValueError) or getattr(error, "errno", 0) in {9, 32})


@pytest.mark.tried("nobody reads", "go away while a server is being started: it is started, and stays")
@pytest.mark.parametrize("error", [ERRORS[0], ERRORS[1]], ids=["closed pipe", "full disk"])
def test_a_server_is_up_though_nobody_hears_of_it(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, servers = LocalHost({"PATH": os.environ["PATH"]}), str(tmp_path / "servers")
    starting = step(servers, launch(free_port()))
    monkeypatch.setattr(sys, "stdout", Broken(error, 1))
    try:
        with standard_streams(), progress.watching(as_json=False) as watcher:
            for _ in range(3):
                watcher.progress(starting, Progress(text="about to start", milestone=True, stays=True))
            starting.apply(host, lambda told: watcher.progress(starting, told))
        assert runs(host, servers).pid
    finally:
        server.stop(host, servers, name="a")


@pytest.mark.tried("nobody reads", "go away from a log that is followed, in which nothing is said any more: it ends")
def test_a_log_is_followed_for_as_long_as_somebody_reads(tmp_path: Path) -> None:
    host, servers = LocalHost({"PATH": os.environ["PATH"]}), str(tmp_path / "servers")
    step(servers, launch(free_port())).apply(host, lambda _: None)
    Path(servers, "a", "server.log").write_text("said\n", encoding="utf-8")
    try:
        words = ["serve", "logs", "a", "--prefix", str(tmp_path), "--follow"]
        ran = sgprov(words, "| head -c 1")
        assert ran.returncode == 0 and quiet(ran) and ran.stdout == b"s"
    finally:
        server.stop(host, servers, name="a")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def test_a_stream_that_works_is_as_it_was() -> None:
    kept = io.StringIO()
    stream = Stream(cast("TextIO", kept))
    assert stream.write("a") == 1 and stream.getvalue() == "a" and stream.problem is None
    stream.flush()


@pytest.mark.fault
@pytest.mark.tried("stopped", "send SIGINT, SIGTERM or SIGHUP at any moment, while it is still being imported, too")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
@pytest.mark.parametrize("as_json", [False, True])
def test_a_signal_is_130_and_no_traceback(number: signal.Signals, *, as_json: bool) -> None:
    chance = random.Random(f"{number}{as_json}")  # noqa: S311  # nothing secret
    ends = []
    for _ in range(6):
        words = ["doctor", "--host", HOST, *(["--json"] if as_json else [])]
        child = subprocess.Popen([*SGPROV, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_for_handler(child.pid)
        time.sleep(chance.uniform(0, 0.4))
        child.send_signal(number)
        out, err = child.communicate(timeout=30)
        assert b"Traceback" not in err + out and b"Exception ignored" not in err
        ends.append(child.returncode)
        if child.returncode == 130:
            assert b"interrupted" in (out if as_json else err)
            assert not as_json or json.loads(out)["error"]["code"] == "interrupted"
    assert set(ends) <= {0, 4, 130} and 130 in ends


def wait_for_handler(pid: int) -> None:
    """Until it has a handler for SIGTERM: before that, Python itself is being started."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        caught = int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)
        if caught >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.001)
    raise AssertionError("it never began")


@pytest.mark.tried("stopped", "send a second signal while the first one is answered")
def test_a_second_signal_changes_nothing() -> None:
    child = subprocess.Popen([*SGPROV, "doctor", "--host", HOST], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for_handler(child.pid)
    for _ in range(50):
        child.send_signal(signal.SIGINT)
        time.sleep(0.005)
    _, err = child.communicate(timeout=30)
    assert b"Traceback" not in err and child.returncode in {130, -signal.SIGINT}


@pytest.mark.fault
@pytest.mark.tried("narrow terminal", "show everything on a terminal of one, ten or no columns, or of another encoding")
@pytest.mark.parametrize("columns", [0, 1, 39])
@pytest.mark.parametrize("name", ["text", "targets", "help", "usage"])
def test_a_narrow_terminal(name: str, columns: int) -> None:
    status, said = on_a_terminal((WELL | WRONG)[name], columns)
    assert status == (2 if name in WRONG else 0) and "Traceback" not in said and said.strip()


def on_a_terminal(words: Sequence[str], columns: int, **variables: str) -> tuple[int, str]:
    """The status and what a terminal of that width got."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    child = subprocess.Popen(
        [*SGPROV, *words], stdin=theirs, stdout=theirs, stderr=theirs, env={**environment, "TERM": "xterm", **variables}
    )
    os.close(theirs)
    read = bytearray()

    def reading() -> None:
        while True:
            try:
                block = os.read(ours, 65536)
            except OSError:
                return  # nobody writes any more
            if not block:
                return
            read.extend(block)

    thread = threading.Thread(target=reading)
    thread.start()
    status = child.wait(60)
    thread.join(10)
    os.close(ours)
    return status, read.decode("utf-8", "replace")


@pytest.mark.tried("narrow terminal", "have a success and a failure look alike where there are no signs but ASCII's")
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "koi8-r", "no-such-encoding"])
def test_signs_differ_in_every_encoding(encoding: str) -> None:
    if encoding == "no-such-encoding":
        ran = sgprov(WELL["targets"], LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    else:
        ran = sgprov(WELL["targets"], PYTHONIOENCODING=encoding)
    assert ran.returncode == 0 and quiet(ran)
    signs = {line[:1] for line in ran.stdout.splitlines() if line[:1] != b" "}
    assert len(signs) == 2 and b"?" not in ran.stdout


@pytest.mark.tried("not text", "give names of files, settings and arguments that are no UTF-8")
@pytest.mark.parametrize(
    "words",
    [
        [b"plan", b"--target", b"\xff"],
        [b"plan", b"--prefix", b"/tmp/\xff\xfe"],
        [b"plan", b"--host", b"/tmp/\xff"],
        [b"plan", b"--config", b"/tmp/\xff.yml"],
        [b"diagnose", b"/tmp/\xff"],
        [b"\xff"],
        [b"plan", b"--\xff"],
        [b"plan", b"--", b"--\xff"],
        [b"plan", b"--target", b"cpu", b"--model", b"/\xff"],
        [b"bundle", b"verify", b"/tmp/\xff.tar"],
        [b"serve", b"logs", b"\xff"],
        [b"facts", b"--capture", b"/proc/\xff"],
        [b"login", b"\xff"],
    ],
)
@pytest.mark.parametrize("more", [[], [b"--json"]])
def test_what_is_no_text_is_an_error(words: list[bytes], more: list[bytes]) -> None:
    at = words.index(b"--") if b"--" in words else len(words)
    line: Any = [*SGPROV, *words[:at], *more, *words[at:]]
    ran = subprocess.run(line, check=False, capture_output=True, timeout=60)
    assert ran.returncode in {0, 2, 3, 4, 5} and quiet(ran), ran.stderr
    assert not more or json.loads(ran.stdout)["ok"] is (ran.returncode == 0)
