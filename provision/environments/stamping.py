"""The last steps of an install: written out to the disk, stamped, and moved into its place, in this order."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from provision.environments import claims, layout, manifest, presence
from provision.environments.layout import Stamp
from provision.environments.sealing import Comparison
from provision.host import Host
from provision.host.children import interruption_deferred
from provision.host.durable import sync_entry, sync_filesystem
from provision.host.files import failed


def stamp(host: Host, path: str, staging: str, made: Comparison, as_: Stamp, *, lock_text: str, cache: str) -> None:
    """Stamp the environment in `staging`, and put it in place of what is at `path`.

    A stamp that survives a power cut says that everything before it did, too. From here on this process has a claim to
    the environment (`claims`). Raises `StepFailed`.
    """
    text, digest = manifest.encode(made.manifest)
    host.write(f"{staging}/{layout.LOCK}", lock_text)
    _write(f"{staging}/{manifest.FILE}", text)
    _write(f"{staging}/{presence.FILE}", presence.encode(made.directories))
    host.remove(f"{staging}/{layout.MADE}")
    for place in (staging, cache):
        sync_filesystem(place)
    host.write(f"{staging}/{layout.STAMP}", msgspec.json.encode(msgspec.structs.replace(as_, manifest=digest)).decode())
    sync_entry(f"{staging}/{layout.STAMP}")
    sync_entry(str(Path(staging, layout.STAMP).parent))
    claims.hold(host, path, made_in=staging)
    _put(host, path, staging)


def _write(path: str, text: bytes) -> None:
    # Its directory is ours and new.
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644), "wb") as stream:
            os.fchmod(stream.fileno(), 0o644)
            stream.write(text)
    except OSError as error:
        raise failed("written", path, error) from error


def _put(host: Host, path: str, staging: str) -> None:
    old = layout.discarded_of(path)
    host.remove(old)
    try:
        # Nothing comes in between: for a moment nothing is there.
        with interruption_deferred():
            if os.path.lexists(path):
                Path(path).rename(old)
            Path(staging).rename(path)
    except OSError as error:
        raise failed("put in place", path, error) from error
    sync_entry(str(Path(path).parent))
    host.remove(old)
