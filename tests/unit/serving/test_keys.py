"""A server's key is in one file, and in nothing that anyone else can read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fakes import FakeHost

from provision.bootstrap import Manner, make_plan
from provision.catalog.rows import Serve
from provision.config import Options
from provision.errors import UsageError
from provision.serving import keys
from provision.serving.launch import at, render
from provision.steps.server import StartServer

KEY = "k3y-" + "0123456789abcdef" * 2
# An engine that logs its settings, as engines do, and shows what the system shows of it.
ENGINE = """
import logging, sys
from pathlib import Path
logging.basicConfig(level="INFO", stream=sys.stdout)
print("sees the key:", sys.argv[1] == "--api-key=" + KEY, sys.argv[2:])
logging.info(f"settings: {sys.argv}")
logging.info("the key is %s of %d", KEY, 1)
print("shown:", Path("/proc/self/cmdline").read_text().split(chr(0))[1:])
print("main:", __name__, sys.modules["__main__"].__spec__.name)
print("own directory:", "with_key.py" in str(sys.path))
"""


def keyed(key: str | None = KEY, *, host: FakeHost | None = None) -> StartServer:
    wishes = Options(target="cpu", prefix="/p")
    made = make_plan(host or FakeHost(), wishes, Manner(api_key=key), assumed="target")
    assert KEY not in repr(made)
    return next(step for step in made.steps if isinstance(step, StartServer))


def test_the_command_names_the_file_and_not_the_key() -> None:
    launch = keyed().launch
    assert launch.argv[1:4] == ("/p/servers/cpu/with_key.py", "/p/servers/cpu/api-key", "-m")
    assert launch.argv[4:] == keyed(None).launch.argv[2:]
    assert at(launch, "/elsewhere").argv[2] == "/p/servers/cpu/api-key"


def test_a_server_that_has_one_keeps_it() -> None:
    host = FakeHost()
    keys.give(host, "/p/servers/cpu", KEY)
    step = keyed(None, host=host)
    assert (step.key, step.launch) == (KEY, keyed().launch)


@pytest.mark.parametrize("key", ["short", "with space in it", "quote'quote'", "x" * 600, "new\nline-new-line"])
def test_what_cannot_be_a_key_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(UsageError, match="SGPROV_API_KEY") as caught:
        keyed(key)
    assert key not in str(caught.value)


def test_an_engine_that_would_show_it_is_refused() -> None:
    with pytest.raises(UsageError, match=r"lmdeploy 0\.12\.3 cannot ask for a key, or only"):
        render("lmdeploy", "0.12.3", Serve(), python="/e/bin/python", model_path="/m", key_file="/s/a/api-key")


@pytest.mark.usefixtures("real_machine")
def test_the_engine_gets_it_and_neither_its_log_nor_its_command_line_shows_it(tmp_path: Path) -> None:
    host = FakeHost()
    keys.give(host, "/s", KEY)
    for name in (keys.FILE, keys.SCRIPT):
        (tmp_path / name).write_text(host.files[f"/s/{name}"])
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "engine.py").write_text(f"KEY = {KEY!r}\n{ENGINE}")
    launch: tuple[str, ...] = (str(tmp_path / keys.SCRIPT), str(tmp_path / keys.FILE), "-m", "engine", "--port", "1")
    out = subprocess.run(
        [sys.executable, *launch], env={"PYTHONPATH": str(modules)}, capture_output=True, text=True, check=True
    ).stdout
    assert "sees the key: True ['--port', '1']" in out
    assert f"shown: {[*launch, '']}" in out
    assert "settings: ['" in out and "the key is *** of 1" in out
    assert "main: __main__ engine" in out and "own directory: False" in out
    assert KEY not in out


def test_the_key_of_a_replaced_server_comes_back_with_it() -> None:
    host = FakeHost()
    keys.give(host, "/s", KEY)
    keys.remember_replaced(host, "/s")
    keys.give(host, "/s", "another-key")
    keys.restore_replaced(host, "/s")
    assert keys.of(host, "/s") == KEY
    keys.forget_replaced(host, "/s")
    assert KEY not in [text.strip() for path, text in host.files.items() if "previous" in path]
