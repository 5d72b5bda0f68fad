"""An index, or whoever sits between, that hands out another file than was locked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import make_wheel

from provision.bundle import own, sources
from provision.errors import StepFailed
from provision.host.local import LocalHost
from provision.locks.own import pinned

ROOT = Path(__file__).parents[2]
PYTHON = f"3.{sys.version_info.minor}"


def index_of_another(folder: Path) -> str:
    """An index with every package of sgprov's own lock under its right version, each of them somebody else's file."""
    for pin in pinned(PYTHON, "x86_64"):
        name = pin.name.replace("-", "_")
        make_wheel(folder / pin.name, name, pin.version, modules={"evil": "raise SystemExit"})
        wheel = next((folder / pin.name).glob("*.whl")).name
        (folder / pin.name / "index.html").write_text(f'<a href="{wheel}">{wheel}</a>')
    return folder.as_uri()


@pytest.mark.attack
@pytest.mark.tried("supply chain", "`make` with an index that serves other files under the pinned names and versions")
def test_make_takes_no_other_file(tmp_path: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": index_of_another(tmp_path / "index"),
    }
    command = ["make", f"PYTHON={sys.executable}", f"VENV={tmp_path}/venv", f"{tmp_path}/venv/bin/sgprov"]
    ran = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode != 0 and "DO NOT MATCH THE HASHES" in ran.stderr, ran.stdout + ran.stderr
    assert not (tmp_path / "venv/bin/sgprov").exists() and not list(tmp_path.glob("venv/lib/*/site-packages/click"))


@pytest.mark.usefixtures("real_machine")
@pytest.mark.tried(
    "supply chain", "`bundle tool` with an index that serves other files under the pinned names and versions"
)
def test_a_bundle_takes_no_other_file(tmp_path: Path) -> None:
    url = index_of_another(tmp_path / "index")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "UV_DEFAULT_INDEX": url, "UV_NO_CONFIG": "1"}
    with pytest.raises(StepFailed, match="no index has the wheel that was locked"):
        own.needed(LocalHost(environment), (PYTHON,), "x86_64", tmp_path)
    assert sources.TOOL_GLIBC == "2.28"
