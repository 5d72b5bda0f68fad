from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from provision.diagnosis.matcher import diagnose_text
from provision.diagnosis.signatures import CATEGORIES, Signature, load, parse, signature_table

ROOT = Path(__file__).parents[3]
CASES: dict[str, dict[str, str]] = yaml.safe_load((Path(__file__).parent / "cases.yml").read_text(encoding="utf-8"))
ROWS = {row.id: row for row in load()}
VALID = "category: port\nsignatures:\n  - {id: a-b, patterns: [in use], cause: c, remedy: [r], source: s}\n"


def found(text: str) -> list[str]:
    told = diagnose_text(text, explain=True)
    return [item.signature.id for item in (*told.findings, *told.harmless)]


def test_every_signature_has_a_case() -> None:
    assert set(CASES) == set(ROWS)


@pytest.mark.parametrize("name", CASES)
def test_fires(name: str) -> None:
    assert name in found(CASES[name]["fires"])


@pytest.mark.parametrize("name", CASES)
def test_near_miss_is_quiet(name: str) -> None:
    assert name not in found(CASES[name]["quiet"])


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.kind == "cause" and not row.harmless])
def test_a_cause_is_named_in_its_category_first(name: str) -> None:
    assert diagnose_text(CASES[name]["fires"]).category == ROWS[name].category


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.harmless])
def test_harmless_lines_are_explained_when_asked_and_never_flagged(name: str) -> None:
    text = CASES[name]["fires"]
    assert not diagnose_text(text).findings
    assert not diagnose_text(text).harmless
    assert not diagnose_text(text, explain=True).findings


@pytest.mark.parametrize("row", load(), ids=lambda row: row.id)
def test_rows_are_whole(row: Signature) -> None:
    assert row.category in CATEGORIES
    assert row.source.startswith("https://")
    assert row.harmless or row.remedy


@pytest.mark.parametrize("name", [path.name for path in (ROOT / "provision/diagnosis/data").glob("*.yml")])
def test_no_file_is_too_long(name: str) -> None:
    assert len((ROOT / "provision/diagnosis/data" / name).read_text(encoding="utf-8").splitlines()) <= 420


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("cause: c", "reason: c"), "reason"),
        (("a-b", "A_b"), "kebab-case"),
        (("[in use]", "[]"), "needs a pattern"),
        (("[r]", "[]"), "no remedy"),
        (("[in use]", "['(']"), "cannot be used"),
        (("[in use]", "['x)']"), "cannot be used"),
        (("[in use]", r"['.*\d+']"), "without a whole word"),
        (("port", "ports"), "category"),
    ],
)
def test_a_wrong_row_is_refused_by_name(change: tuple[str, str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse({"port.yml": VALID.replace(*change)})


def test_an_id_is_there_once() -> None:
    assert [row.id for row in parse({"port.yml": VALID})] == ["a-b"]
    with pytest.raises(ValueError, match="twice"):
        parse({"port.yml": VALID, "port2.yml": VALID})


def test_the_table_names_every_signature() -> None:
    table = signature_table()
    assert all(f"[`{name}`](" in table for name in ROWS)


def test_case_values_are_texts() -> None:
    values: list[Any] = [text for case in CASES.values() for text in case.values()]
    assert all(isinstance(text, str) for text in values)


def test_the_documentation_is_that_of_these_signatures() -> None:
    assert signature_table() in (ROOT / "docs/diagnosis.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("frobnicate 1.2 requires cuda-python<=12.9, which is not installed.", "pip-dependency-conflict"),
        ("RuntimeError: connect() timed out. Original timeout was 5000 ms.", "rendezvous-timeout"),
        ("(raylet) A worker unexpectedly exits with a connection error code 7.", "ray-worker-died"),
    ],
)
def test_other_forms_of_a_message_are_known_too(text: str, name: str) -> None:
    told = diagnose_text(text)
    assert told.findings[0].signature.id == name
    assert told.category == ROWS[name].category


@pytest.mark.parametrize(
    "text",
    [
        "frobnicate 1.2 requires cuda-python<=12.9, which is installed.",
        "connect() done. Original timeout was 5000 ms.",
        "(raylet) A worker exits as it was told to.",
    ],
)
def test_near_misses_of_these_forms_are_quiet(text: str) -> None:
    assert not diagnose_text(text).findings
