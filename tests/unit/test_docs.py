"""The pages that are made from the code say what the code says."""

from __future__ import annotations

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_generated_pages_are_not_stale(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    loader = SourceFileLoader("generate_docs", str(ROOT / "tools" / "generate-docs"))
    spec = spec_from_loader(loader.name, loader)
    assert spec
    module = module_from_spec(spec)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    monkeypatch.setattr("sys.path", [*sys.path])
    loader.exec_module(module)
    monkeypatch.setattr("sys.argv", ["generate-docs", "--check"])
    assert module.main() == 0, capsys.readouterr().err
