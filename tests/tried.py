"""Counts what was tried and what held, and writes it as a table into a page of the docs.

A test of `tests/attack` or `tests/faults` says with `@pytest.mark.tried(KIND, SENTENCE)` what it tries; each of its
cases is one try. `--tried FILE` puts the table of a run between the two marks of that page.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

BEGIN, END = "<!-- tried: begin -->", "<!-- tried: end -->"


@dataclass
class Row:
    """One sentence of a kind; how many tries there were, and how many ended as promised."""

    kind: str
    sentence: str
    tries: int = 0
    held: int = 0
    not_run: int = 0


class Tried:
    """The plugin: a row a test function, in the order of the run."""

    def __init__(self, page: Path) -> None:
        self._page = page
        self._rows: dict[tuple[str, str], Row] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if mark := item.get_closest_marker("tried"):
            row = self._rows.setdefault(mark.args, Row(*mark.args))
            row.not_run += bool(report.skipped)
            row.tries += report.when == "call" and not report.skipped
            row.held += report.when == "call" and bool(report.passed)
            row.tries += report.when == "setup" and bool(report.failed)
        return report

    def pytest_sessionfinish(self) -> None:
        text = self._page.read_text(encoding="utf-8")
        before, rest = text.split(BEGIN)
        after = rest.split(END)[1]
        self._page.write_text(f"{before}{BEGIN}\n{self.table()}{END}{after}", encoding="utf-8")

    def table(self) -> str:
        rows = sorted(self._rows.values(), key=lambda row: row.kind)
        tries, held = sum(row.tries for row in rows), sum(row.held for row in rows)
        lines = [
            f"{held} of {tries} tries ended as promised.",
            "",
            "| kind | tried | tries | held |",
            "| --- | --- | ---: | ---: |",
        ]
        lines += [
            f"| {row.kind} | {row.sentence} | {row.tries or 'not run'} | {row.held if row.tries else ''} |"
            for row in rows
        ]
        return "\n".join(lines) + "\n"
