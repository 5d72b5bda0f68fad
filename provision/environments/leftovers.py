"""What killed downloads left in uv's cache: half-unpacked wheels, which uv itself never removes."""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path

# uv unpacks into `.tmpXXXXXX` at the top of its cache or of one of its parts, and moves what is whole from there.
_PATTERNS = (".tmp*", "*-v*/.tmp*")


def sweep(cache: str) -> None:
    """Remove it where no uv is at work: each one holds the cache's lock, shared, as long as it lives."""
    with suppress(OSError):
        descriptor = os.open(f"{cache}/.lock", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for pattern in _PATTERNS:
                for folder in Path(cache).glob(pattern):
                    shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)
