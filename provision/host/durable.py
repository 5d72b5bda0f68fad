"""Having on the disk what was written, before something says that it is there."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress


def sync_filesystem(path: str) -> None:
    """Write out everything on the file system of `path`, and wait until it is; where that fails, nothing is lost."""
    libc = ctypes.CDLL(None, use_errno=True)
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if libc.syncfs(descriptor) != 0:
                os.sync()
        finally:
            os.close(descriptor)


def sync_entry(path: str) -> None:
    """Write out one file or directory."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
