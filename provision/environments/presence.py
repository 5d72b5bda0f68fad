"""Whether an environment is still what was stamped, decided in milliseconds: by the times of its directories.

Whatever is added, removed or replaced changes the time of the directory that it is in; such a directory is compared
with the manifest by names and sizes. What was written into a file that stays where it is, only `verify` tells.
"""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import repeat
from pathlib import Path

import msgspec

from provision import trust
from provision.environments import manifest
from provision.environments.manifest import Manifest
from provision.trust import kind_of

FILE = ".sgprov/directories.json"
# Python puts bytecode there wherever an environment is used; `verify` looks into it.
BYTECODE = "__pycache__"
# On a network disk each look is a question to a server, and many can be under way.
_THREADS = 8


def is_untouched(path: str, sha256: str) -> bool:
    """Whether nothing was added to, or taken from, the environment at `path`; `sha256` is that of its manifest."""
    times = _read(path)
    if times is None:
        return False
    known = list(times.items())
    with ThreadPoolExecutor(_THREADS) as pool:
        shares = pool.map(_changed, repeat(path), (known[number::_THREADS] for number in range(_THREADS)))
        changed = [folder for share in shares for folder in share]
    if not changed:
        return True
    held = manifest.read(path, sha256)
    if held is None:
        return False
    wanted = _by_folder(held, times)
    return all(_holds(f"{path}/{folder}", wanted.get(folder, {})) for folder in changed)


def encode(directories: dict[str, os.stat_result]) -> bytes:
    """The times of the directories, as they are kept."""
    return msgspec.json.encode({path: status.st_mtime_ns for path, status in directories.items()})


def _read(path: str) -> dict[str, int] | None:
    with suppress(OSError, msgspec.DecodeError), os.fdopen(trust.open_state(f"{path}/{FILE}"), "rb") as stream:
        return msgspec.json.decode(stream.read(), type=dict[str, int])
    return None


def _changed(path: str, known: list[tuple[str, int]]) -> list[str]:
    found = []
    for folder, time_ns in known:
        try:
            status = os.lstat(f"{path}/{folder}")
        except OSError:
            found.append(folder)
            continue
        if not stat.S_ISDIR(status.st_mode) or status.st_mtime_ns != time_ns:
            found.append(folder)
    return found


def _by_folder(held: Manifest, times: dict[str, int]) -> dict[str, dict[str, object]]:
    """Folder to what is in it: the size of a file, where a link leads, None for a folder."""
    found: dict[str, dict[str, object]] = {}
    sizes = ((file.path, file.size) for _, file in held.owners())
    for path, what in (*sizes, *held.links.items(), *dict.fromkeys(times).items()):
        folder, _, name = path.rpartition("/")
        if name:
            found.setdefault(folder, {})[name] = what
    return found


def _holds(folder: str, wanted: dict[str, object]) -> bool:
    try:
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            return False
        with os.scandir(folder) as entries:
            there = {entry.name: _what(entry) for entry in entries}
    except OSError:
        return False
    there.pop(BYTECODE, None)
    there.pop(manifest.OWN_FOLDER, None)
    return there == wanted


def _what(entry: os.DirEntry[str]) -> object:
    status = entry.stat(follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        return str(Path(entry.path).readlink())
    if stat.S_ISREG(status.st_mode):
        return status.st_size
    return None if stat.S_ISDIR(status.st_mode) else kind_of(status)
