"""What the Makefile runs is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_script_that_the_makefile_names_exists() -> None:
    named = re.findall(r"(?:benchmarks|tools)/[\w.-]+", (ROOT / "Makefile").read_text())
    assert "benchmarks/bench_commands.py" in named
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_every_page_that_the_readme_links_to_exists() -> None:
    linked = re.findall(r"\]\(([^)#]+)", (ROOT / "README.md").read_text())
    assert "docs/kernels.md" in linked
    assert [name for name in linked if not (ROOT / name).exists()] == []
