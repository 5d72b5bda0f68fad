"""The real command, run as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

INSTALL_S = 1800


@dataclass(frozen=True)
class Ran:
    """What a run of `sgprov` came to."""

    rc: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout."""
        found: dict[str, Any] = json.loads(self.out)
        return found


def sgprov(*arguments: str, timeout_s: float = INSTALL_S, **variables: str) -> Ran:
    """Run the real command in a process of its own."""
    ran = subprocess.run(
        [sys.executable, "-m", "provision", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, **variables},
        check=False,
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)
