"""Why a launch failed, as far as its log is known to say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from provision.errors import ServingFailed


@contextmanager
def diagnosed(log: str) -> Iterator[None]:
    """Around the wait for a server: one that fails raises its error with what its log is known to mean."""
    try:
        yield
    except ServingFailed as error:
        from provision.diagnosis import diagnose_file  # noqa: PLC0415  # a second of patterns that a good launch skips

        raise ServingFailed(str(error), hint=error.hint, findings=(*error.findings, *diagnose_file(log))) from error
