"""What hosts, servers, logs, GPUs, bundles and indexes say is shown, and never obeyed; no credential is shown with it."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text
from unit.serving.test_smoke import server

from provision import config, secrets
from provision.cli import diagnose, fleet_table, main, progress, render
from provision.cli.progress import Work
from provision.cli.screen import Screen
from provision.diagnosis.matcher import diagnose as match
from provision.fleet import answers, page
from provision.fleet.answers import Machine
from provision.fleet.grouping import group
from provision.fleet.model import FleetReport, HostState, State
from provision.host.local import LocalHost
from provision.output import json_text, masked, printable, readable
from provision.report import Finding, Report, Severity, Status, StepResult
from provision.secrets import mask
from provision.serving import record
from provision.steps import Progress

HOSTS = Path(__file__).parents[1] / "hosts"
# Each in front of `word`: what a terminal would do, and what people would not see.
HOSTILE = {
    "colour": "\x1b[31m",
    "clear": "\x1b[2J\x1b[H",
    "title": "\x1b]0;owned\x07",
    "title without end": "\x1b]0;owned",
    "clipboard": "\x1b]52;c;Y3VybCBldmlsfHNo\x1b\\",
    "link": "\x1b]8;;http://evil.example\x1b\\",
    "answer": "\x1b[6n\x1b[c\x1bZ",
    "device string": '\x1bP$q"p\x1b\\',
    "printer": "\x1b[5i",
    "escape alone": "\x1b",
    "C1": "\x9b31m\x9d0;owned\x9c\x90q\x9c",
    "nested": "\x1b\x1b[31[31m",
    "back": "fine\b\b\b\bevil\x7f\x08",
    "return": "all is well\r",
    "bell and others": "\x07\x00\x0b\x0c\x0e\x0f",
    "bidi": "\u202e\u2066\u2069\u200f\u061c",
    "no width": "\u200b\u200d\u2060\ufeff\u00ad\u034f",
    "tags": "\U000e0001\U000e0041\U000e007f",
    "variations": "\ufe0f\U000e0100\u180e",
    "lines": "\u2028\u2029\x85",
    "fillers": "\u3164\u115f\uffa0\u2800",
    "no character": "\udcff\ud800",
}
MARKUP = [
    "[red]",
    "[/]",
    "[/red]",
    "[link=http://evil.example]",
    "[bold",
    "\\[x]",
    "[@click=app.quit]",
    ":skull:",
    "[[",
    "{0}",
]
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


@pytest.mark.tried("hostile words", "have a terminal obey, or not show, what a text holds")
@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_is_left_that_a_terminal_obeys(name: str) -> None:
    for text in (HOSTILE[name] + "word", "a" + HOSTILE[name] + "word" + HOSTILE[name], HOSTILE[name] * 50 + "word"):
        seen = printable(text)
        assert "word" in seen and not OBEYED.search(seen)
        assert not any(unicodedata.category(sign) in {"Cf", "Cs", "Zl", "Zp"} for sign in seen)
        assert printable(seen) == seen
        whole = json_text({"text": text}, "utf-8")
        assert not OBEYED.search(whole) and "word" in json.loads(whole)["text"]
        assert json.loads(json_text({"text": text}, "ascii")) == json.loads(whole)


@given(st.text(st.characters()))
def test_whatever_is_said(text: str) -> None:
    seen = printable(text)
    assert not OBEYED.search(seen) and printable(seen) == seen
    assert not OBEYED.search(json_text({text: text}, "utf-8"))
    json.loads(json_text({text: [text]}, "latin-1"))


@given(st.text(st.characters(codec="utf-8")))
def test_json_keeps_what_came(text: str) -> None:
    told = json.loads(json_text({"text": text}, "utf-8"))["text"]
    assert told == text or mask(printable(text)) != printable(text)


def terminal(width: int = 100) -> Screen:
    return Screen(file=io.StringIO(), force_terminal=True, color_system=None, width=width)


def written(screen: Screen) -> str:
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def fleet(text: str) -> FleetReport:
    hosts = tuple(
        HostState(
            name=f"{state.value}{text}",
            state=state,
            step=text,
            progress=text,
            finding=f"{text}\n{text}" if state is not State.OK else "",
            report=answers.report({"endpoint": text, "findings": [{"severity": "error", "check": text, "text": text}]}),
            machine=Machine(gpus=[text], driver=text),
        )
        for state in State
    )
    return FleetReport(command="bootstrap", hosts=hosts, groups=group(hosts), seconds=1.0, stopped=text)


def show_fleet(text: str, screen: Screen) -> None:
    fleet_table.show(fleet(text), screen)


def show_report(text: str, screen: Screen) -> None:
    found = tuple(Finding(check=text, severity=one, text=text, fix=(text,), seconds=0.1) for one in Severity)
    steps = tuple(StepResult(step=text, status=one, note=text, error=text, hint=text) for one in Status)
    render.show_report(Report(host=text, command=text, steps=steps, findings=found), screen)


def show_lines(text: str, screen: Screen) -> None:
    screen.print(text, (text, 1), {text: text})
    screen.print(text, style="bold", markup=True)
    screen.print(Text(text), Text.assemble((text, "red")))
    render.line(screen, text, (text, "bold"))


def show_diagnosis(text: str, screen: Screen) -> None:
    raw = f"{text} torch.OutOfMemoryError: CUDA out of memory. {text}\n{text}\n".encode("utf-8", "surrogatepass")
    diagnose._show(match(io.BytesIO(raw), explain=True), screen)


@pytest.mark.tried(
    "hostile words", "put control sequences, marks of direction and markup into every place that is shown"
)
@pytest.mark.parametrize("show", [show_fleet, show_report, show_lines, show_diagnosis])
@pytest.mark.parametrize("width", [20, 100])
def test_every_place_on_a_terminal(show: Callable[[str, Screen], None], width: int) -> None:
    for text in [*(f"{words}word" for words in HOSTILE.values()), *MARKUP, "".join(MARKUP), ""]:
        screen = terminal(width)
        show(text, screen)
        assert not OBEYED.search(written(screen)), repr(text)


@pytest.mark.tried("hostile words", "be read as markup of our own: colours, links, a tag without its end")
@pytest.mark.parametrize("text", MARKUP)
def test_markup_is_words(text: str) -> None:
    for show in (show_report, show_lines, show_fleet):
        screen = terminal(200)
        show(text, screen)
        assert text in written(screen)
    screen = terminal(200)
    render.line(screen, f"`{text}`")
    assert written(screen) == f"`{text}`\n"


@pytest.mark.tried("hostile words", "reach the terminal by a live line: of a step's progress, of a fleet's table")
def test_live_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    everything = "".join(HOSTILE.values()) + "".join(MARKUP)

    def run() -> None:
        with progress.watching(as_json=False) as watcher:
            step = Work(f"step{everything}")
            watcher.started(step)
            for stays in (False, True):
                watcher.progress(step, Progress(text=everything, done=1, total=2, milestone=True, stays=stays))
            watcher.ended(step, StepResult(step="x", status=Status.FAILED, note=everything, error=everything))
        with fleet_table.watching(as_json=False) as live:
            live.hosts(fleet(everything).hosts)
            live.say(everything)
            for host in fleet(everything).hosts:
                live.changed(host)

    run()
    assert not OBEYED.search(capsys.readouterr().out)
    screen = terminal()
    monkeypatch.setattr(render, "console", lambda **_: screen)
    run()
    # What rich says to the terminal: hide and show the cursor, go up, erase a line.
    assert not OBEYED.search(re.sub(r"\x1b\[(\?25[lh]|\d?A|2K|1A)|\r", "", written(screen)))
    assert "owned" not in written(screen).replace("0;owned", "")


@pytest.mark.tried("hostile words", "write tags and scripts into the page of a fleet's report")
@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>", *HOSTILE.values()])
def test_a_page_holds_data(text: str) -> None:
    made = page.render(fleet(text))
    assert "<script>" not in made and "<img" not in made and not OBEYED.search(made)


@pytest.mark.usefixtures("real_machine")
@pytest.mark.tried("hostile words", "be an error, an argument, or the name of a file")
@pytest.mark.parametrize(
    "command",
    [
        ["{}"],
        ["plan", "--target", "{}"],
        ["plan", "--host", "/no/such/{}"],
        ["doctor", "--host", "/no/such/{}"],
        ["diagnose", "/no/such/{}"],
        ["serve", "logs", "{}"],
        ["smoke", "--url", "{}"],
        ["login", "{}"],
        ["bundle", "verify", "/no/such/{}"],
        ["plan", "--{}"],
        ["fleet", "status", "-i", "/no/such/{}"],
    ],
)
def test_errors_repeat_nothing_that_is_obeyed(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for words in [*HOSTILE.values(), *MARKUP]:
        # No argument holds a zero, and of half characters only those that stand for a byte.
        words = words.replace("\0", "").replace("\ud800", "")  # noqa: PLW2901
        argv = [word.replace("{}", f"{words}word") for word in command]
        assert main(argv) in {2, 3, 4, 5}
        told = capsys.readouterr()
        assert not OBEYED.search(told.err) and not OBEYED.search(told.out)
        assert main([*argv, "--json"]) in {2, 3, 4, 5}
        out = capsys.readouterr().out
        assert json.loads(out)["ok"] is False and not OBEYED.search(out)


@pytest.mark.tried("hostile words", "be the name of a GPU, or of a process on a port")
@pytest.mark.parametrize("command", ["facts", "doctor", "targets", "plan"])
def test_a_hostile_machine(command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shutil.copytree(HOSTS / "a40-runpod", tmp_path / "host")
    words = json.dumps("\x1b[2J\x1b]0;owned\x07\u202e\u200b[red]")[1:-1]
    for name in ("commands.yml", "view.yml"):
        file = tmp_path / "host" / name
        plain = json.dumps(yaml.safe_load(file.read_text(encoding="utf-8")))
        for real in ("jupyter-lab", "NVIDIA A40"):
            plain = plain.replace(real, f"{real}{words}")
        file.write_text(plain, encoding="utf-8")
    for more in ((), ("--json",)):
        main([command, "--host", str(tmp_path / "host"), *more])
        told = capsys.readouterr()
        assert not OBEYED.search(told.out) and not OBEYED.search(told.err)
        assert not more or json.loads(told.out)


@pytest.mark.usefixtures("real_machine")
@pytest.mark.tried("hostile words", "be the model, the answer or the error of a server")
@pytest.mark.parametrize("status", [200, 401, 500])
def test_a_hostile_server(status: int, capsys: pytest.CaptureFixture[str]) -> None:
    words = "".join(HOSTILE.values()).encode("utf-8", "replace").decode()
    models = (status, "application/json", json.dumps({"data": [{"id": words}], "error": words}))
    chat = (200, "application/json", json.dumps({"choices": [{"message": {"content": words}}]}))
    with server({"/health": models, "/v1/models": models, "/v1/chat/completions": chat}) as url:
        for command in (["smoke", "--url", url], ["experiment", "switcheroo", url, url]):
            for more in ((), ("--json",)):
                main([*command, *more])
                told = capsys.readouterr()
                assert not OBEYED.search(told.out) and not OBEYED.search(told.err)


@pytest.fixture
def logged(tmp_path: Path) -> Path:
    """The log of a server of ours, known under a prefix."""
    directory = tmp_path / "servers" / "a"
    directory.mkdir(parents=True)
    made = record.Server(
        id="1", name="a", directory=str(directory), engine="sglang", version="0.5.23", stack="s", model="m",
        url="http://127.0.0.1:9", argv=(), variables={}, log=str(directory / "server.log"), started="", machine="",
        boot="", ports=(), key_file=str(directory / "api-key"), state="stopped",
    )  # fmt: skip
    for path in (tmp_path, directory.parent, directory):
        path.chmod(0o700)
    record.save(LocalHost({}), made)
    (directory / "api-key").write_text(f"{KEY}\n", encoding="utf-8")
    (directory / "api-key").chmod(0o600)
    return directory / "server.log"


@pytest.mark.tried("hostile words", "be in the log of a server, which is shown and followed")
def test_a_hostile_log(logged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = b"\n".join(words.encode("utf-8", "surrogatepass") + b"word \xff\xfe\x00" for words in HOSTILE.values())
    logged.write_bytes(raw + f"\nusing {KEY} and {KEY[:30]}\n".encode())
    for more in ([], ["--json"], ["--explain"]):
        assert main(["serve", "logs", "a", "--prefix", str(tmp_path), *more]) == 0
        told = capsys.readouterr()
        assert not OBEYED.search(told.out) and KEY[:20] not in told.out and not told.err
        assert ("word" in told.out) == (more != ["--explain"])


KEY = "s3cr3t-0f-this-run/and+no=other"
FORMS = {
    "as it is": KEY,
    "in an address": quote(KEY, safe=""),
    "as a form": quote_plus(KEY),
    "every sign escaped": "".join(f"%{byte:02x}" for byte in KEY.encode()),
    "in JSON": json.dumps(KEY).replace("/", "\\/"),
    "in JSON, escaped": "".join(f"\\u{ord(sign):04X}" for sign in KEY),
    "in HTML": "".join(f"&#{ord(sign)};" for sign in KEY),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "base64 for addresses": base64.urlsafe_b64encode(KEY.encode()).decode(),
    "a login": base64.b64encode(f"user:{KEY}".encode()).decode(),
    "a longer login": base64.b64encode(f"users:{KEY}\n".encode()).decode(),
    "hex": KEY.encode().hex(),
    "the first half": KEY[:20],
    "the last half": KEY[-20:],
    "with signs in between": "\u200b".join(KEY),
    "in colours": "\x1b[31m".join(KEY),
}


@pytest.mark.tried(
    "known secret", "have a key shown in another form than it was given: escaped, encoded, cut, in colours"
)
@pytest.mark.parametrize("form", FORMS)
def test_a_known_secret_is_masked_in_every_form(form: str) -> None:
    secrets.know(KEY)
    for text in (FORMS[form], f"it said {FORMS[form]}!", f'{{"a": "{FORMS[form]}"}}'):
        for seen in (readable(text), json.dumps(masked({"text": text, text: [text]}))):
            assert "***" in seen
            for part in (KEY[:12], KEY[-12:], FORMS[form][4:-6]):
                assert part not in seen


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("SGPROV_API_KEY", "plainword-without-shape", "plainword-without-shape"),
        ("HF_TOKEN", "nothing.like.a.token", "nothing.like.a.token"),
        ("NGC_API_KEY", "/starts/like/a/path", "/starts/like/a/path"),
        ("UV_INDEX_OURS_PASSWORD", "hunter2", "hunter2"),
        ("UV_DEFAULT_INDEX", "https://me:p%40ss@word@index.example/simple", "p@ss@word"),
        ("UV_INDEX", "https://tokenonly@one.example/ ours=https://u:second-one@two.example/", "second-one"),
        ("UV_INDEX", "https://tokenonly@one.example/ ours=https://u:second-one@two.example/", "tokenonly"),
        ("HTTPS_PROXY", "http://me:proxyword@proxy.example:3128", "proxyword"),
        ("AWS_SECRET_ACCESS_KEY", "abcdefghijklmnop", "abcdefghijklmnop"),
    ],
)
@pytest.mark.tried("known secret", "repeat what is in the environment: keys, passwords of indexes and of proxies")
def test_what_is_in_the_environment_is_known(
    name: str, value: str, secret: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    for more in ((), ("--json",)):
        assert main(["diagnose", f"/no/such/x{secret}x", *more]) == 2
        told = capsys.readouterr()
        assert secret not in told.out + told.err and "***" in told.out + told.err


@pytest.mark.tried("known secret", "make masking slow with a long line, or a key as long as keys get")
def test_masking_takes_no_time() -> None:
    secrets.know("a" * 512, "ab" * 200)
    for text in ("a" * 400 + "b", ("a" * 399 + "b") * 500, "x" * 200_000, "%61" * 60_000, KEY * 5_000):
        start = time.monotonic()
        readable(text)
        assert time.monotonic() - start < 3


def test_a_path_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_known", set[str]())
    monkeypatch.setenv("SSL_KEY", "/etc/ssl/private")
    monkeypatch.setenv("API_KEY", "short")
    config.know_secrets()
    assert mask("/etc/ssl/private and short") == "/etc/ssl/private and short"


def test_a_key_that_was_made_is_shown_this_once() -> None:
    secrets.know(KEY)
    screen = terminal()
    render.show_secret(screen, "key ", KEY, " (shown this once)")
    assert written(screen) == f"key {KEY} (shown this once)\n"


def test_nobody_else_prints() -> None:
    """Words reach people through `render` and `Screen` alone, and no markup is asked for."""
    package = Path(render.__file__).parents[1]
    for path in package.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path.name in {"render.py", "screen.py"}:
            continue
        assert not re.search(r"(?<![\w.])Console\(|from_markup|markup=True|\[bold|\[/\]", text), path


@pytest.fixture(autouse=True)
def _forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test knows is no secret of the next."""
    monkeypatch.setattr(secrets, "_known", set[str]())
