"""The tests say the same wherever they are run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.usefixtures("real_machine")
def test_what_the_caller_has_set_for_sgprov_is_not_read() -> None:
    set_ = {
        "SGPROV_TARGET": "nonsense",
        "SGPROV_PORT": "1",
        "SGPROV_PREFIX": "/nowhere",
        "SGPROV_CONFIG": "/no/such.yml",
    }
    chosen = ["tests/cli/test_commands.py", "-k", "flags_stand or plan_says or help", "--no-header", "-q"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *chosen, "-p", "no:cacheprovider"],
        cwd=ROOT,
        env={**os.environ, **set_},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
