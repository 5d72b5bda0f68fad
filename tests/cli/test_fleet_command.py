"""`sgprov fleet` from its flags to what it prints, with an Ansible that a test scripts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fleets import KNOWN, VERSION, StubAnsible

from provision.bundle import create, own
from provision.bundle.fetch import Fetched
from provision.bundle.sources import Source
from provision.cli import main
from provision.fleet import run, supplies
from provision.fleet.drive import Settings
from provision.host.local import LocalHost

FAILS = {"failed": True, "msg": "the disk is full\nhint: free space", "rc": 5, "finished": True}
NEW = {"finished": True, "rc": 0, "report": {}, **KNOWN, "tool": "", "needs_tool": True}
Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ansible(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> StubAnsible:
    stub = StubAnsible({"a": {}, "b": {}})
    monkeypatch.setattr(run, "Workshop", lambda settings, _: _with(stub, settings))
    monkeypatch.setattr(own, "wheel_digest", lambda: VERSION)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "HF_TOKEN", "NGC_API_KEY", "SGPROV_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return stub


def _with(stub: StubAnsible, settings: Settings) -> StubAnsible:
    stub.settings = settings
    return stub


@pytest.fixture
def invoke(ansible: StubAnsible, capsys: pytest.CaptureFixture[str]) -> Invoke:
    def invoked(*arguments: str) -> tuple[int, str, str]:
        ansible.played.clear()
        status = main(["fleet", *arguments])
        out, told = capsys.readouterr()
        return status, out, told

    return invoked


def test_what_a_bootstrap_is_given_and_says(invoke: Invoke, ansible: StubAnsible, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    status, out, _ = invoke(
        *("bootstrap", "-i", "hosts.yml", "--wheels", "index", "--batch", "1, 50%", "--max-fail", "7", "--forks", "3"),
        *(
            "--target",
            "cpu",
            "--no-smoke",
            "--vault-password-file",
            "v",
            "--html",
            str(page),
            "--json",
            "--",
            "--port",
            "1",
        ),
    )
    found = json.loads(out)
    assert (status, found["ok"], found["changed"], found["schema"]) == (0, True, True, "sgprov.fleet-bootstrap/1")
    assert {host["host"]: host["state"] for host in found["hosts"]} == {"a": "ok", "b": "ok"}
    assert found["hosts"][0]["report"]["endpoint"] == "http://127.0.0.1:30000/v1" and found["unkept"] == []
    values = ansible.played[-1].values
    assert (values["sgprov_batch"], values["sgprov_max_fail"], values["sgprov_host_smoke"]) == ([1, "50%"], 7, False)
    assert (values["sgprov_host_target"], values["sgprov_host_options"]) == ("cpu", ["--port", "1"])
    assert ansible.settings and ansible.settings.forks == 3
    assert ansible.settings.user_arguments == ("--vault-password-file", str(Path("v").absolute()))
    assert "serves at" in page.read_text()


def test_what_people_are_shown(invoke: Invoke, ansible: StubAnsible) -> None:
    ansible.says["b"]["apply"] = FAILS
    status, out, _ = invoke("bootstrap", "-i", "hosts.yml", "--wheels", "index", "--max-fail", "100")
    assert status == 7
    assert "b: the disk is full\n  hint: free space" in out
    assert "1 ok, 1 failed" in out and "`--failed`" in out
    assert "serves at http://127.0.0.1:30000/v1" in out, "nothing is cut short in a pipe"
    assert "a: working environment installing" in out, "where there is no terminal, a line for all that happens"


def test_what_a_dry_run_shows_of_new_hosts(invoke: Invoke, ansible: StubAnsible) -> None:
    ansible.says["a"]["ask"] = ansible.says["b"]["ask"] = NEW
    status, out, _ = invoke("bootstrap", "-i", "hosts.yml", "--dry-run")
    assert status == 0 and out.count("hint: with `--install-tool`") == 1, "once for all"
    assert out.count("to get sgprov, then the target that fits it best") == 2


@pytest.mark.parametrize("command", ["doctor", "status", "smoke", "stop"])
def test_the_other_commands(invoke: Invoke, ansible: StubAnsible, command: str) -> None:
    status, out, _ = invoke(command, "-i", "hosts.yml", "--limit", "b", "--json")
    assert (status, [host["host"] for host in json.loads(out)["hosts"]]) == (0, ["b"])
    assert ansible.played[0].hosts == ("b",)


def test_keys_are_sent_only_where_that_is_asked_for(
    invoke: Invoke, ansible: StubAnsible, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("bootstrap", "-i", "hosts.yml", "--wheels", "index")
    assert invoke(*arguments, "--send-keys")[0] == 2, "there is none"
    monkeypatch.setenv("HF_TOKEN", "hf_secret_of_the_test")
    assert invoke(*arguments)[0] == 0 and "sgprov_host_keys" not in ansible.played[-1].secrets
    status, out, told = invoke(*arguments, "--send-keys")
    assert (status, ansible.played[-1].secrets["sgprov_host_keys"]) == (0, {"HF_TOKEN": "hf_secret_of_the_test"})
    assert "hf_secret" not in out + told
    status, _, told = invoke(*arguments, "--send-keys", "--ask-keys")
    assert status == 2 and "two ways" in told


def test_a_page_that_cannot_be_written(invoke: Invoke, ansible: StubAnsible, tmp_path: Path) -> None:
    arguments = ("bootstrap", "-i", "hosts.yml", "--wheels", "index", "--json", "--html")
    status, out, _ = invoke(*arguments, str(tmp_path / "none" / "page.html"))
    assert (status, json.loads(out)["error"]["code"]) == (2, "usage") and ansible.played == []
    (tmp_path / "page.html").mkdir()
    status, out, _ = invoke(*arguments, str(tmp_path / "page.html"))
    found = json.loads(out)
    assert (status, [host["state"] for host in found["hosts"]], len(found["unkept"])) == (5, ["ok", "ok"], 1)


def test_bundles_are_made_once_for_each_kind_of_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: list[tuple[str, Path]] = []
    monkeypatch.setattr(create, "tool", lambda _, arch, path: made.append((arch, path)))
    host = LocalHost({"HOME": str(tmp_path), "PATH": ""})
    said: list[str] = []
    found = supplies.bundles(host, ["x86_64", "aarch64", "x86_64"], said.append)
    cache = tmp_path / ".cache" / "sgprov"
    assert found == {arch: f"{cache}/tool-{arch}.tar" for arch in ("aarch64", "x86_64")}
    assert made == [(arch, Path(path)) for arch, path in found.items()] and len(said) == 2 and cache.is_dir()
    other = LocalHost({"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "c"), "PATH": ""})
    assert supplies.bundles(other, ["x86_64"], said.append) == {"x86_64": f"{tmp_path}/c/sgprov/tool-x86_64.tar"}


def test_wheels_are_fetched_once_for_all_locks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []
    fetched: list[Any] = []

    def of_pins(_: LocalHost, pins: Any, machine: Any, folder: Path) -> tuple[Any, ...]:
        asked.append((len(pins), machine.arch, machine.python))
        assert folder.is_dir()
        return tuple(Source(name=f"{pin.name}.whl", url="x", sha256=pin.sha256[0]) for pin in pins)

    def fetch(sources: Any, place: Path, **_: Any) -> Fetched:
        fetched.append((len(sources), place))
        return Fetched(files=len(sources), bytes=1, kept=0)

    monkeypatch.setattr(supplies, "of_pins", of_pins)
    monkeypatch.setattr(supplies, "fetch", fetch)
    locks = [lock for arch in ("x86_64", "aarch64") if (lock := supplies.lock_of(f"sglang-0.5.23.cp312.{arch}.txt"))]
    host = LocalHost({"HOME": str(tmp_path), "PATH": ""})
    sources, counted = supplies.wheels(host, locks, tmp_path / "wheels", lambda _: None)
    assert [(arch, python) for _, arch, python in asked] == [("x86_64", "3.12"), ("aarch64", "3.12")]
    names = [source.name for source in sources]
    assert len(names) == len(set(names)) == counted.files and fetched == [(len(names), tmp_path / "wheels")]


@pytest.mark.parametrize(
    "name", ["", "x", "../sglang-0.5.23.cp312.x86_64.txt", "sglang-0.5.23.cp312.x86_64", "sglang-*.cp312.x86_64.txt"]
)
def test_only_our_own_locks_are_locks(name: str) -> None:
    assert supplies.lock_of(name) is None
