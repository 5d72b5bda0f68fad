"""Configuration that somebody else wrote, or that was made to hang or to fill the memory, has no say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from provision import config
from provision.cli import main
from provision.errors import CommandFailed, UsageError
from provision.host.local import LocalHost
from provision.options import OPTIONS
from provision.report import Finding, noticing
from provision.serving import preflight
from provision.serving.launch import Launch

STRANGER = 54321
KIND = "foreign configuration"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("SGPROV_")]:
        monkeypatch.delenv(name)
    place = tmp_path / "here"
    place.mkdir(mode=0o755)
    monkeypatch.chdir(place)
    (place / "sgprov.yml").write_text("port: 31000\n")
    return place


def found(**flags: str) -> tuple[config.Options, list[Finding]]:
    heard: list[Finding] = []
    with noticing(heard.append):
        return config.load(flags), heard


def given(path: Path) -> None:
    os.chown(path, STRANGER, STRANGER, follow_symlinks=False)


def opened_folder(place: Path) -> None:
    place.chmod(0o777)


def sticky_folder(place: Path) -> None:
    place.chmod(0o1777)


def opened_file(place: Path) -> None:
    (place / "sgprov.yml").chmod(0o666)


def folder_above(place: Path) -> None:
    place.parent.chmod(0o777)


def a_link(place: Path) -> None:
    (place / "sgprov.yml").rename(place / "other.yml")
    (place / "sgprov.yml").symlink_to("other.yml")


def a_hard_link(place: Path) -> None:
    (place / "other.yml").hardlink_to(place / "sgprov.yml")


def a_pipe(place: Path) -> None:
    (place / "sgprov.yml").unlink()
    os.mkfifo(place / "sgprov.yml")


def a_directory(place: Path) -> None:
    (place / "sgprov.yml").unlink()
    (place / "sgprov.yml").mkdir()


def a_strangers_file(place: Path) -> None:
    given(place / "sgprov.yml")


def a_strangers_folder(place: Path) -> None:
    given(place)


WAYS = [
    *(opened_folder, sticky_folder, opened_file, folder_above, a_link, a_hard_link, a_pipe, a_directory),
    *(pytest.param(way, marks=pytest.mark.attack) for way in (a_strangers_file, a_strangers_folder)),
]


def test_a_file_of_ours_in_a_folder_of_ours_is_read() -> None:
    assert (found()[0].port, found()[1]) == ("31000", [])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.tried(KIND, "`sgprov.yml` in the current directory that another user wrote or could: ignored, and told")
def test_what_others_could_have_written_is_ignored(folder: Path, way: Callable[[Path], None]) -> None:
    way(folder)
    options, heard = found()
    assert options == config.Options()
    assert [one.check for one in heard] == ["config-ignored"] and str(folder / "sgprov.yml") in heard[0].text


@pytest.mark.usefixtures("real_machine")
@pytest.mark.tried(KIND, "The same, in what a command says: on stderr, and as a finding in its JSON")
def test_a_command_tells_of_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "sgprov.yml").write_text("target: no-such-target\n")
    folder.chmod(0o777)
    main(["plan", "--target", "cpu", "--json"])
    printed = capsys.readouterr()
    said = json.loads(printed.out)
    assert said["target"] == "cpu" and said["findings"][0]["check"] == "config-ignored"
    assert printed.err.count("config-ignored") == 1
    main(["plan", "--target", "nonsense", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert said["error"]["code"] == "usage" and said["findings"][0]["check"] == "config-ignored"


@pytest.mark.parametrize("key", ["python", "prefix", "image", "model_directory", "cache_directory", "extra"])
@pytest.mark.tried(KIND, "A key that runs code or says where state lies, in a `sgprov.yml` that nobody named")
def test_what_runs_code_is_taken_from_a_named_file_only(folder: Path, key: str) -> None:
    example = next(one.example for one in OPTIONS if one.name == key)
    (folder / "sgprov.yml").write_text(f"{key}: {example}\n")
    with pytest.raises(UsageError, match=f"`{key}` is not taken from") as refused:
        found()
    assert "--config sgprov.yml" in str(refused.value.hint)
    assert getattr(config.load({}, file="sgprov.yml"), key)


@pytest.mark.usefixtures("real_machine")
@pytest.mark.tried(KIND, "`python: ./x.sh` in the current directory is not run")
def test_no_program_of_it_is_run(folder: Path) -> None:
    (folder / "x.sh").write_text(f"#!/bin/sh\ntouch {folder}/ran\n")
    (folder / "x.sh").chmod(0o755)
    (folder / "sgprov.yml").write_text(f"target: cpu\npython: {folder}/x.sh\n")
    for mode in (0o755, 0o777):
        folder.chmod(mode)
        for command in ("plan", "doctor", "facts", "targets"):
            main([command, "--json"])
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.tried(KIND, "A named file that another user wrote or could, or that is no file: refused")
def test_a_named_file_must_be_trusted_too(folder: Path, way: Callable[[Path], None]) -> None:
    way(folder)
    if way is a_link:
        assert config.load({}, file="sgprov.yml").port == "31000"  # the link and what it leads to are ours
        return
    with pytest.raises(UsageError, match=r"sgprov\.yml"):
        config.load({}, file="sgprov.yml")


DEEP = "[" * 100_000
BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(12)
)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        pytest.param(DEEP, id="deep lists"),
        pytest.param("a: " * 50_000, id="deep mappings"),
        pytest.param("\n".join(f"{' ' * n}a:" for n in range(600)), id="deep blocks"),
        pytest.param(BOMB, id="aliases of aliases"),
        pytest.param("a: &a [*a]\n", id="an alias of itself"),
        pytest.param("target: " + "x" * (2 << 20), id="huge"),
        pytest.param("target: \x00\n", id="a zero byte"),
        pytest.param("port: " + "9" * 20_000, id="a number without end"),
        pytest.param("!!python/object/apply:os.system ['touch ran']\n", id="a Python object"),
        pytest.param("? [a, b]\n: c\n", id="a list as a key"),
        pytest.param("target: a\x1b[2Jb\n", id="control characters"),
        pytest.param('target: "a\\nb"\n', id="a line break"),
    ],
)
@pytest.mark.tried(KIND, "YAML that is deep, huge, full of aliases, or makes objects: a usage error at once")
def test_hostile_yaml_is_a_usage_error(folder: Path, text: str, named: bool) -> None:
    (folder / "sgprov.yml").write_text(text)
    start = time.monotonic()
    with pytest.raises(UsageError):
        config.load({}, file="sgprov.yml" if named else None)
    assert time.monotonic() - start < 2
    assert not (folder / "ran").exists()


@pytest.mark.usefixtures("real_machine")
@pytest.mark.parametrize("path", ["/dev/zero", "/dev/full", "/proc/self/mem", "pipe", ".", "missing", "x\0y", "a\nb"])
@pytest.mark.tried(KIND, "Devices, pipes and directories named as the configuration: a usage error at once")
def test_what_is_no_file_is_a_usage_error(folder: Path, path: str) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(UsageError):
        config.load({}, file=path)


@pytest.mark.usefixtures("real_machine")
@pytest.mark.parametrize(
    "words",
    [
        ("--prefix", "/srv/a\nb"),
        ("--prefix", "/srv/a\x1b[31mb"),
        ("--prefix", "/srv/a\u202eb"),
        ("--prefix", "/srv/a\u0085b"),
        ("--model-directory", "/srv/a\rb"),
        ("--cache-directory", "/srv/a\tb"),
        ("--model", "a\nb"),
        ("--name", "a\nb"),
        ("--python", "/usr/bin/python3 && touch ran"),
        ("--python", "/usr/bin/python3;touch ran"),
        ("--python", "/usr/bin/python3\ntouch"),
        ("--python", "$(touch ran)/x"),
        ("--python", "/usr/bin/python3 -c pass"),
        ("--stack", "a\x7fb"),
        ("--bind", "127.0.0.1\n0.0.0.0"),
    ],
)
@pytest.mark.tried(KIND, "Line breaks, control characters and commands in the value of an option")
def test_values_hold_no_control_characters(folder: Path, words: tuple[str, str]) -> None:
    (folder / "sgprov.yml").unlink()
    done = subprocess.run(
        [sys.executable, "-m", "provision", "plan", "--target", "cpu", "--json", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(config.__file__).parents[1])},
    )
    said = json.loads(done.stdout)
    assert (done.returncode, said["error"]["code"]) == (2, "usage"), done.stdout
    assert "Traceback" not in done.stderr and not (folder / "ran").exists()


@pytest.mark.tried(KIND, "Modules and programs in the current directory, under the names of those that are looked for")
@pytest.mark.usefixtures("real_machine")
def test_nothing_is_imported_from_where_sgprov_was_called(tmp_path: Path, folder: Path) -> None:
    canary = tmp_path / "ran"
    for name in ("colorsys", "importlib", "usercustomize", "sitecustomize"):
        (folder / f"{name}.py").write_text(f"open({str(canary)!r}, 'w')\n")
    host = LocalHost({"PATH": os.environ["PATH"]})
    launch = Launch(
        engine="sglang",
        version="0.5.23",
        argv=(sys.executable, "-m", "colorsys"),
        python=sys.executable,
        url="http://127.0.0.1:9",
        model="x",
    )
    preflight.check_launch(host, launch)
    assert host.query([sys.executable, "-c", "import os; print(os.getcwd())"]).out == "/\n"
    assert host.query(["../here/tool"]).installed is False
    (folder / "tool").write_text("#!/bin/sh\npwd\n")
    (folder / "tool").chmod(0o755)
    assert host.query(["./tool"]).out == "/\n", "one that is named is found from where it was named"
    assert not canary.exists()


@pytest.mark.tried(
    KIND, "A program or library in the current directory, where the PATH has an empty or a relative entry"
)
@pytest.mark.usefixtures("real_machine")
@pytest.mark.parametrize("entry", ["", ".", "../here"])
def test_the_current_directory_is_searched_for_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    (folder / "nvidia-none").write_text("#!/bin/sh\necho planted\n")
    (folder / "nvidia-none").chmod(0o755)
    for name in ("PATH", "LD_LIBRARY_PATH", "CPATH"):
        monkeypatch.setenv(name, f"/usr/bin:{entry}")
    environment = config.process_environment()
    assert {environment[name] for name in ("PATH", "LD_LIBRARY_PATH", "CPATH")} == {"/usr/bin"}
    monkeypatch.setenv("CPATH", entry)
    assert "CPATH" not in config.process_environment()
    host = LocalHost(environment)
    assert not host.query(["nvidia-none"]).installed
    with pytest.raises(CommandFailed):
        host.run(["nvidia-none"])
    with config.ready_for_ansible("/programs", {}):
        assert os.environ["PATH"] == "/programs:/usr/bin"
