"""The command line: parse, call one function, render."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from provision import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status (docs/decisions/004-exit-statuses.md)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == ["--version"]:
        # Answered before anything is imported: scripts ask this often.
        sys.stdout.write(f"sgprov {__version__}\n")
        return 0
    from provision.cli.app import run  # noqa: PLC0415  # see above

    return run(arguments)
