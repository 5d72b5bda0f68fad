"""What a log says went wrong: signatures of the field's failures as data, and one pass that finds them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from provision import documents
from provision.errors import UsageError

if TYPE_CHECKING:
    from provision.report import Finding


def diagnose_file(path: str, *, pins: Mapping[str, str] | None = None) -> tuple[Finding, ...]:
    """The findings of one log as those of a report, likeliest cause first; none where there is no log to read."""
    # Thousands of patterns are compiled once a log is read, not whenever a part of this package is imported.
    from provision.diagnosis.matcher import diagnose  # noqa: PLC0415

    try:
        with documents.open_input(Path(path).expanduser()) as stream:
            return diagnose(stream, pins=pins).to_findings()
    except (UsageError, OSError):
        return ()
