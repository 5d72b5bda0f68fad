"""The command line: parse, call one function, render."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from provision import __version__, errors
from provision.cli.streams import standard_streams


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status (docs/decisions/004-exit-statuses.md)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    with standard_streams() as (out, err):
        status = _run(arguments, alone=argv is None)
        out.flush()
        if out.problem:
            err.write(f"error: the result could not be written: {out.problem}\n")
            status = status or errors.StepFailed.exit_status
    return status


def _run(arguments: list[str], *, alone: bool) -> int:
    """One command, `alone` in its process or one of several."""
    if arguments == ["--version"]:
        # Answered before anything is imported: scripts ask this often.
        sys.stdout.write(f"sgprov {__version__}\n")
        return errors.OK
    from provision.cli import interrupts  # noqa: PLC0415  # see above

    if alone:
        interrupts.leave_at_once(arguments)
    from provision.cli.app import run  # noqa: PLC0415  # see above

    try:
        return run(arguments)
    finally:
        if alone:
            # The result stands: a signal that comes now is too late to make another one of it.
            interrupts.ignore_to_the_end()
