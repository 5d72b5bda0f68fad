"""Logins against a real registry: right, wrong, kept, forgotten, and a planted key that is found nowhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import parts
from live.parts import Registry
from live.real_command import Ran, sgprov

pytestmark = pytest.mark.container
KEY = "nvapi-planted" + "K" * 50
OTHER = "nvapi-" + "o" * 64


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with parts.registry(tmp_path_factory.mktemp("registry"), KEY) as found:
        yield found


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def login(registry: Registry, home: Path, *more: str, key: str = KEY) -> Ran:
    arguments = ("login", registry.host, "--user", parts.USER, *more, "--json")
    return sgprov(*arguments, HOME=str(home), DOCKER_CONFIG=str(home / ".docker"), SGPROV_REGISTRY_KEY=key)


def kept(home: Path) -> dict[str, object]:
    path = home / ".docker" / "config.json"
    found: dict[str, object] = json.loads(path.read_text())["auths"] if path.exists() else {}
    return found


def test_a_right_key_is_kept_for_its_owner_only(registry: Registry, home: Path) -> None:
    ran = login(registry, home)
    assert ran.rc == 0, ran.out + ran.err
    assert [one["severity"] for one in ran.json["findings"]] == ["ok", "warning"]
    assert registry.host in kept(home)
    assert (home / ".docker" / "config.json").stat().st_mode & 0o777 == 0o600
    out = sgprov("logout", registry.host, "--json", HOME=str(home), DOCKER_CONFIG=str(home / ".docker"))
    assert (out.rc, out.json["logged_out"]) == (0, True)
    assert registry.host not in kept(home)


def test_a_wrong_key_is_refused_and_the_old_login_survives(registry: Registry, home: Path) -> None:
    assert login(registry, home).rc == 0
    before = kept(home)
    ran = login(registry, home, key=OTHER)
    assert (ran.rc, ran.json["error"]["code"]) == (4, "login-refused")
    assert "does not know the key of SGPROV_REGISTRY_KEY (401)" in ran.json["error"]["text"]
    assert kept(home) == before


def test_a_registry_that_is_not_there(home: Path) -> None:
    nobody = Registry(f"127.0.0.1:{parts.free_port()}", home)
    ran = login(nobody, home)
    assert (ran.rc, ran.json["error"]["code"]) == (4, "unreachable")
    assert "refused the connection" in ran.json["error"]["text"]


def test_an_image_that_is_not_there(registry: Registry, home: Path) -> None:
    ran = login(registry, home, "--image", f"{registry.host}/nim/absent:1")
    assert (ran.rc, ran.json["error"]["code"]) == (4, "no-entitlement")
    assert kept(home) == {}


def test_a_credential_helper_is_used_where_there_is_one(registry: Registry, home: Path) -> None:
    programs = home / "bin"
    programs.mkdir()
    store = home / "held.json"
    (programs / "docker-credential-stand-in").write_text(
        f"#!{sys.executable}\nimport json, pathlib, sys\nheld = pathlib.Path({str(store)!r})\nverb = sys.argv[1]\n"
        "given = sys.stdin.read()\n"
        "if verb == 'store':\n    held.write_text(given)\n"
        "elif verb == 'get':\n    print(held.read_text() if held.exists() else 'credentials not found in native keychain')\n"
        "    sys.exit(not held.exists())\n"
        "elif verb == 'list':\n    print('{}')\n"
        "else:\n    held.unlink(missing_ok=True)\n"
    )
    (programs / "docker-credential-stand-in").chmod(0o755)
    (home / ".docker").mkdir()
    (home / ".docker" / "config.json").write_text('{"credsStore": "stand-in"}')
    path = f"{programs}:{os.environ['PATH']}"
    arguments = ("login", registry.host, "--user", parts.USER, "--json")
    docker = str(home / ".docker")
    ran = sgprov(*arguments, HOME=str(home), DOCKER_CONFIG=docker, PATH=path, SGPROV_REGISTRY_KEY=KEY)
    assert ran.rc == 0, ran.out + ran.err
    assert "docker-credential-stand-in" in ran.json["findings"][1]["text"]
    assert json.loads(store.read_text())["Secret"] == KEY
    assert KEY not in (home / ".docker" / "config.json").read_text()


@pytest.mark.parametrize("way", ["stdin", "file", "environment"])
def test_a_planted_key_is_found_nowhere(registry: Registry, home: Path, way: str) -> None:
    """Not in any command line while it runs, nor in what it prints or leaves, but for the login itself."""
    (home / "key").write_text(KEY)
    (home / "key").chmod(0o600)
    watcher = Watcher(KEY)
    variables = {**os.environ, "HOME": str(home), "DOCKER_CONFIG": str(home / ".docker")}
    more = {"stdin": ["--stdin"], "file": ["--key-file", str(home / "key")], "environment": []}[way]
    if way == "environment":
        variables["SGPROV_REGISTRY_KEY"] = KEY
    argv = [sys.executable, "-m", "provision", "login", registry.host, "--user", parts.USER, *more]
    with watcher:
        ran = subprocess.run(
            argv, input=KEY if way == "stdin" else "", env=variables, capture_output=True, text=True, check=False
        )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert watcher.looks > 10
    assert watcher.arguments == []
    assert watcher.environments <= {"python", "python3"} | {Path(sys.executable).resolve().name}, "ours alone holds it"
    assert way == "environment" or not watcher.environments
    assert KEY not in ran.stdout + ran.stderr
    left = [path for path in home.rglob("*") if path.is_file() and KEY in path.read_text(errors="replace")]
    assert left == [home / "key"]
    assert KEY not in (registry.folder / "registry.log").read_text()


@pytest.mark.parametrize("way", ["refused", "unreachable", "not kept"])
def test_a_planted_key_that_is_not_taken_is_found_nowhere_and_the_old_login_stays(
    registry: Registry, home: Path, way: str
) -> None:
    assert login(registry, home).rc == 0
    before, text = kept(home), (home / ".docker" / "config.json").read_text()
    planted = "nvapi-planted" + {"refused": "R", "unreachable": "U", "not kept": "N"}[way] * 50
    docker, path = str(home / ".docker"), os.environ["PATH"]
    host, code = registry.host, "login-refused"
    if way == "unreachable":
        host, code = f"127.0.0.1:{parts.free_port()}", "unreachable"
    if way == "not kept":
        # The registry takes it, and Docker cannot keep it: as with a home that is full.
        registry.admit(planted)
        (home / "bin").mkdir()
        (home / "bin" / "docker").write_text(
            '#!/bin/sh\n[ "$1" = login ] || exec /usr/bin/env PATH="${PATH#*:}" docker "$@"\n'
            'echo "Error saving credentials: $(cat): no space left on device" >&2\nexit 1\n'
        )
        (home / "bin" / "docker").chmod(0o755)
        path, code = f"{home / 'bin'}:{path}", "command-failed"
    watcher = Watcher(planted)
    try:
        with watcher:
            arguments = ("login", host, "--user", parts.USER, "--json")
            ran = sgprov(*arguments, HOME=str(home), DOCKER_CONFIG=docker, PATH=path, SGPROV_REGISTRY_KEY=planted)
    finally:
        registry.admit(KEY)
    assert ran.rc in {4, 5} and ran.json["error"]["code"] == code, ran.out
    assert planted not in ran.out + ran.err
    assert watcher.arguments == []
    assert kept(home) == before and (home / ".docker" / "config.json").read_text() == text
    left = [path for path in home.rglob("*") if path.is_file() and planted in path.read_text(errors="replace")]
    assert left == [] and planted not in (registry.folder / "registry.log").read_text()


def test_a_key_that_is_typed_is_not_shown(registry: Registry, home: Path) -> None:
    if shutil.which("script") is None:
        pytest.skip("NOT RUN: script (util-linux) is not installed")
    typed = f"{sys.executable} -m provision login {registry.host} --user '{parts.USER}'"
    variables = {**os.environ, "HOME": str(home), "DOCKER_CONFIG": str(home / ".docker"), "TERM": "dumb"}
    variables.pop("SGPROV_REGISTRY_KEY", None)
    # A terminal of its own, in which nothing is answered before it is asked for.
    argv = ["script", "--quiet", "--return", "--command", typed, "/dev/null"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(argv, env=variables, bufsize=0, **pipes) as process:  # type: ignore[call-overload]
        shown = b""
        while b"the key for" not in shown or not shown.endswith(b": "):
            shown += (one := process.stdout.read(1))
            assert one, shown
        process.stdin.write(f"{KEY}\n".encode())
        shown += process.stdout.read()
    assert process.returncode == 0, shown
    assert KEY.encode() not in shown and registry.host in kept(home)


def test_a_shells_history_has_nothing_of_a_key(registry: Registry, home: Path) -> None:
    (home / "key").write_text(KEY)
    (home / "key").chmod(0o600)
    history = home / "history"
    typed = f"{sys.executable} -m provision login {registry.host} --user '{parts.USER}' --key-file {home / 'key'}\n"
    variables = {**os.environ, "HOME": str(home), "DOCKER_CONFIG": str(home / ".docker"), "HISTFILE": str(history)}
    argv = ["bash", "--norc", "--noprofile", "-i"]
    ran = subprocess.run(argv, input=f"{typed}exit $?\n", env=variables, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "provision login" in history.read_text() and KEY not in history.read_text() + ran.stdout + ran.stderr


@pytest.mark.parametrize("arguments", [("ngc", KEY), ("ngc", f"--key={KEY}"), (KEY,), ("ngc", "--image", KEY, KEY)])
def test_a_key_on_the_command_line_is_refused_and_not_repeated(arguments: tuple[str, ...]) -> None:
    for more in ((), ("--json",)):
        ran = sgprov("login", *arguments, *more)
        assert ran.rc == 2 and KEY not in ran.out + ran.err


class Watcher:
    """Looks at every process's command line and environment as fast as it can, for one word."""

    def __init__(self, word: str) -> None:
        self._word = word.encode()
        self._going = True
        self._thread = threading.Thread(target=self._watch)
        self.arguments: list[str] = []
        self.environments: set[str] = set()
        self.looks = 0

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._going = False
        self._thread.join()

    def _watch(self) -> None:
        while self._going:
            self.looks += 1
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    if self._word in (process / "cmdline").read_bytes():
                        self.arguments.append((process / "comm").read_text())
                    if self._word in (process / "environ").read_bytes() and process.name != str(os.getpid()):
                        self.environments.add((process / "exe").readlink().name)
                except OSError:
                    continue
            time.sleep(0.002)
