"""Private folders for what a call needs for a while: the caller's own, and never where others can write."""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from provision.errors import ProvisionError, StepFailed
from provision.host import files
from provision.host.view import HostView

_STALE_S = 3600.0
_PRIVATE = 0o700


@contextmanager
def scratch(view: HostView) -> Iterator[Path]:
    """A new folder for the time of the block, which nobody else can enter, below `state_directory`.

    Not below `/tmp`: programs look for their configuration in the directories above the one they run in. What calls
    that were killed left there is cleared away. Raises `StepFailed` where there is no place for it.
    """
    base = state_directory(view) / "scratch"
    try:
        base.mkdir(mode=_PRIVATE, exist_ok=True)
        _sweep(base)
        folder = Path(tempfile.mkdtemp(dir=base))
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StepFailed(f"a folder could not be made in `{base}`: {error.strerror}") from error
    try:
        # Held as long as we live, so that others see that the folder is in use.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield folder
    finally:
        os.close(descriptor)
        shutil.rmtree(folder, ignore_errors=True)


def state_directory(view: HostView) -> Path:
    """`$XDG_STATE_HOME/sgprov`, or the one in the caller's home: made for nobody else. Raises `StepFailed`."""
    home = view.variable("HOME")
    places = [view.variable("XDG_STATE_HOME"), f"{home}/.local/state" if home else None]
    # HOME may be another's (`sudo` without `-H`), or none that can be written.
    with suppress(KeyError):
        places.append(f"{pwd.getpwuid(os.geteuid()).pw_dir}/.local/state")
    places.append(view.variable("XDG_RUNTIME_DIR"))
    for place in places:
        if place and place.startswith("/") and (found := _made(Path(place) / "sgprov")):
            return found
    raise StepFailed(
        "there is no directory of yours for what is needed for a while",
        hint="set `XDG_STATE_HOME` to a directory that you alone can write",
    )


def _made(folder: Path) -> Path | None:
    try:
        files.make_directory(str(folder), mode=_PRIVATE)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            return None
        folder.chmod(_PRIVATE)
    except (OSError, ProvisionError):
        return None
    return folder


def _sweep(base: Path) -> None:
    """Remove what no living call holds; one that was only just made may not be held yet."""
    for folder in base.iterdir():
        with suppress(OSError):
            if time.time() - folder.lstat().st_mtime < _STALE_S:
                continue
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)
