"""`sgprov init`: the file that it writes is valid, whole and nobody's loss."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from provision import bootstrap, config
from provision.cli import main
from provision.config import Options
from provision.host.folder import FolderHost
from provision.options import OPTIONS

HOSTS = Path(__file__).parents[1] / "hosts"


class Machine(FolderHost):
    """A captured machine whose files can be written."""

    def write_output(self, path: str, text: str) -> None:
        Path(path).write_text(text)


@pytest.fixture(autouse=True)
def _an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir(mode=0o700)
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Any:
    def use(folder: Path) -> None:
        monkeypatch.setattr("provision.cli.common.local_host", lambda: Machine(folder))

    return use


def test_it_holds_the_target_of_this_machine_and_others_as_comments(
    on: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    on(HOSTS / "a40-runpod")
    assert main(["init", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["schema"], found["target"], found["changed"]) == ("sgprov.init/1", "runpod-a40", True)
    assert {"a40", "cpu"} <= set(found["alternatives"])
    text = Path("sgprov.yml").read_text()
    assert yaml.safe_load(text) == {"target": "runpod-a40"}
    assert all(f"\n# target: {name}  # " in text for name in found["alternatives"])


@pytest.mark.parametrize("name", ["a40-runpod", "bare-no-gpu", "gb10", "h100x8"])
def test_it_is_valid_when_read_back_and_so_is_each_line_without_its_sign(on: Any, name: str) -> None:
    on(HOSTS / name)
    assert main(["init"]) == 0
    text = Path("sgprov.yml").read_text()
    target = config.load({}, file="sgprov.yml").target
    assert target and config.load({}, file="sgprov.yml") == Options(target=target)
    for one in OPTIONS:
        lines = [
            line.removeprefix("# ") for line in text.splitlines() if line.removeprefix("# ").startswith(f"{one.name}: ")
        ]
        assert lines, f"nothing about {one.name}"
        for line in lines:
            Path("one.yml").write_text(f"{line}\n")
            assert getattr(config.load({}, file="one.yml"), one.name) is not None


def test_it_overwrites_nothing_unless_it_is_told_to(on: Any, capsys: pytest.CaptureFixture[str]) -> None:
    on(HOSTS / "bare-no-gpu")
    Path("sgprov.yml").write_text("target: mine\n")
    assert main(["init"]) == 2
    assert "--force" in capsys.readouterr().err
    assert Path("sgprov.yml").read_text() == "target: mine\n"
    assert main(["init", "--output", "other.yml"]) == 0
    assert "next: sgprov plan --config other.yml" in capsys.readouterr().out
    assert main(["init", "--force"]) == 0
    assert yaml.safe_load(Path("sgprov.yml").read_text()) == {"target": "cpu"}


def test_a_target_that_does_not_fit_is_refused_and_nothing_written(on: Any) -> None:
    on(HOSTS / "bare-no-gpu")
    assert main(["init", "--target", "a100"]) == 3
    assert main(["init", "--target", "a10"]) == 2
    assert not Path("sgprov.yml").exists()


def test_what_a_server_here_was_asked_for_is_in_it(on: Any, tmp_path: Path) -> None:
    shutil.copytree(HOSTS / "bare-no-gpu", tmp_path / "machine")
    plan = bootstrap.make_plan(
        FolderHost(tmp_path / "machine"), Options(target="cpu", port="31000", model="/srv/m", extra=("--a",))
    )
    directory = tmp_path / "machine/root/root/.local/share/sgprov/servers/cpu"
    directory.mkdir(parents=True)
    asked = plan.launch.asked
    assert asked
    record: dict[str, Any] = {
        "id": "1",
        "name": "cpu",
        "directory": "/d",
        "engine": "sglang",
        "version": "0.5.23",
        "stack": None,
        "model": "m",
        "url": "http://127.0.0.1:31000",
        "argv": [],
        "variables": {},
        "log": "l",
        "started": "",
        "machine": "",
        "boot": "",
        "asked": {"options": asked.options, "settings": asked.settings},
    }
    (directory / "server.json").write_text(json.dumps(record))
    on(tmp_path / "machine")
    assert main(["init"]) == 0
    text = Path("sgprov.yml").read_text()
    assert yaml.safe_load(text) == {"target": "cpu", "port": "31000", "model": "/srv/m"}
    assert "\n# extra: [--a]\n" in text, "read only from a file that is named"
