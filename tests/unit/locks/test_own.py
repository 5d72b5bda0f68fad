"""sgprov's own locks: everything that pyproject.toml asks for is pinned by hash, for every Python and CPU."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from provision.bundle.own import PYTHONS
from provision.locks import own, pythons
from provision.locks.lockfile import parse

tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUN = PROJECT["project"]["dependencies"]
BUILD = [*PROJECT["build-system"]["requires"], "editables"]
MORE = PROJECT["project"]["optional-dependencies"]
DEV = [line for extra in ("dev", "fleet") for line in MORE[extra] if not line.startswith("sgprov[")]


@pytest.mark.parametrize(
    ("name", "lines"),
    [("run", RUN), ("make", [*RUN, *BUILD]), ("dev", [*RUN, *BUILD, *DEV])],
    ids=["run", "make", "dev"],
)
@pytest.mark.parametrize("python", PYTHONS)
def test_what_is_asked_for_is_pinned(name: str, lines: list[str], python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "FILE", f"own/{name}.txt")
    own.pins.cache_clear()
    pinned = {pin.name: pin for pin in own.pinned(python, "x86_64")}
    own.pins.cache_clear()
    environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    for line in lines:
        asked = Requirement(line)
        if asked.marker and not asked.marker.evaluate(environment):
            continue
        pin = pinned[canonicalize_name(asked.name)]
        assert asked.specifier.contains(pin.version), f"{line}: `tools/lock-own` makes the lock again"
        assert pin.sha256


def test_the_locks_agree_and_name_no_index() -> None:
    texts = {name: (ROOT / f"lockfiles/own/{name}.txt").read_text() for name in ("run", "make", "dev")}
    versions = {name: {(pin.name, pin.version) for pin in parse(text)} for name, text in texts.items()}
    assert versions["run"] < versions["make"] < versions["dev"]
    assert not any(word in text for text in texts.values() for word in ("http", "://", "--index", "--find"))


def test_each_cpu_has_a_uv_and_the_known_pythons_are_those_of_it() -> None:
    for arch in ("x86_64", "aarch64"):
        assert "uv" in {pin.name for pin in own.pinned("3.12", arch)}
        assert {row.minor for row in pythons.known() if row.arch == arch} == set(PYTHONS)
    version = next(pin.version for pin in own.pins() if pin.name == "uv")
    assert f"from uv {version}:" in (ROOT / "lockfiles" / pythons.FILE).read_text(), "`tools/pythons` makes it again"


def test_make_installs_by_hash_only() -> None:
    text = (ROOT / "Makefile").read_text()
    for line in re.findall(r"^.*\bpip\b.*\binstall\b.*$|^.*\$\(PIP\).*\binstall\b.*$", text, re.MULTILINE):
        assert "--require-hashes" in line or "--no-index --no-deps --no-build-isolation" in line
