from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.diagnosis.matcher import diagnose_text
from provision.diagnosis.signatures import Signature
from provision.diagnosis.versions import parse_versions


@pytest.mark.parametrize(
    ("line", "versions"),
    [
        ("torch==2.9.1+cu128", [("torch", "2.9.1+cu128")]),
        ("+ sglang-kernel==0.4.1", [("sglang-kernel", "0.4.1")]),
        ("sgl_kernel: 0.3.21", [("sgl-kernel", "0.3.21")]),
        ("PyTorch: 2.9.1+cu128", [("torch", "2.9.1+cu128")]),
        ("flashinfer_python 0.6.3", [("flashinfer-python", "0.6.3")]),
        ("INFO PyTorch version 2.2.2 available.", [("torch", "2.2.2")]),
        ("vLLM API server version 0.7.2", [("vllm", "0.7.2")]),
        ("Successfully installed sglang-0.5.9 torch-2.9.1", [("sglang", "0.5.9"), ("torch", "2.9.1")]),
        ("sglang==0.5.6.post2 \\ --hash=sha256:00", [("sglang", "0.5.6.post2")]),
        ("ERROR: No matching distribution found for torch==2.9.1", []),
        ("Collecting torch==2.8.0 (from sglang)", []),
        ("torch-2.9.1-cp312-cp312-linux_x86_64.whl", []),
    ],
)
def test_parse_versions(line: str, versions: list[tuple[str, str]]) -> None:
    assert list(parse_versions(line)) == versions


PINS = {"torch": "2.9.1", "sglang-kernel": "0.4.1", "sglang": "0.5.9"}


@pytest.mark.parametrize(
    ("log", "named"),
    [
        ("torch==2.9.1+cu128\nsglang==0.5.9", []),
        ("torch==2.8.0\nsglang==0.5.9", ["torch 2.8.0, pinned 2.9.1"]),
        ("PyTorch: 2.8.0\nsgl_kernel: 0.3.21", ["torch 2.8.0, pinned 2.9.1", "sgl-kernel 0.3.21, pinned 0.4.1"]),
        ("transformers==5.0.0", []),
        ("sglang==0.5.10rc1", ["sglang 0.5.10rc1, pinned 0.5.9"]),
    ],
)
def test_compares_with_the_pins(log: str, named: list[str]) -> None:
    told = diagnose_text(log, pins=PINS)
    lines = [line.text for found in told.findings for line in found.lines]
    assert [text.split(": ")[0] for text in lines] == named
    assert [found.signature.id for found in told.findings] == (["version-mismatch"] if named else [])
    assert not diagnose_text(log).findings


def test_a_mismatch_is_no_cause_where_there_is_one() -> None:
    told = diagnose_text("torch==2.8.0\nCUDA error: no kernel image is available for execution", pins=PINS)
    assert [found.signature.id for found in told.findings][:2] == ["no-kernel-image", "version-mismatch"]
    assert told.findings[1].signature.category == "python-wheels"


@given(st.text(max_size=300), st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=3))
def test_any_text(text: str, pins: dict[str, str]) -> None:
    diagnose_text("", pins={})  # the patterns are compiled once
    start = time.monotonic()
    found = diagnose_text(f"torch=={text}\n{text}", pins={**pins, "torch": "2.9.1"})
    assert all(isinstance(one.signature, Signature) and one.lines for one in found.findings)
    assert all(names and all(isinstance(name, str) for name in names) for names in found.versions.values())
    assert time.monotonic() - start < 1
