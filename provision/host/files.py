"""Changing files so that it is done whole or not at all, that nobody else has a say in it, and that a failure is told.

What other users could have put in the way is refused (`provision.trust`); what the system refuses (a full disk, a
read-only one, a directory in the way) becomes a `StepFailed` that names the path and what helps.
"""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from provision import trust
from provision.errors import StepFailed, UsageError

# Directories on the way to one of ours: what is installed under them is for every user to run.
_ABOVE_MODE = 0o755


def read_state(path: str, limit: int) -> str | None:
    """The text of a file of ours, None where there is none. Raises what `trust.open_state` raises."""
    try:
        descriptor = trust.open_state(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise failed("read", path, error) from error
    with os.fdopen(descriptor, "rb") as stream:
        try:
            raw = stream.read(limit + 1)
        except OSError as error:
            raise failed("read", path, error) from error
    if len(raw) > limit:
        raise StepFailed(f"`{path}` is larger than any file of this kind is", hint=f"`rm {shlex.quote(path)}`")
    return raw.decode("utf-8", errors="replace")


def open_state(path: str, flags: int, *, mode: int) -> int:
    """A descriptor of a file of ours, made where `flags` say so; the directory above it, too."""
    made = _make_directories(str(Path(path).parent), mode=_ABOVE_MODE) if flags & os.O_CREAT else []
    with _unmade(made), _told("opened", path):
        return trust.open_state(path, flags, mode=mode)


def write(path: str, text: str, *, mode: int) -> None:
    """Write a file of ours whole."""
    with _unmade(_make_directories(str(Path(path).parent), mode=_ABOVE_MODE)):
        _write_whole(path, text, mode=mode)


def write_output(path: str, text: str, *, mode: int) -> None:
    """The same where the user said that it is to be, whoever else may write there; its directory must exist.

    Raises `UsageError` for a device, a pipe or a directory, which a file must not replace.
    """
    _require_file_or_nothing(path)
    _write_whole(path, text, mode=mode)


def _write_whole(path: str, text: str, *, mode: int) -> None:
    # Created with its final mode and moved into place: no reader ever sees half a file, a link that is there is
    # replaced and not followed, and a credential is never readable by others, not even for a moment.
    target = Path(path)
    with _told("written", path):
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fchmod(stream.fileno(), mode)
                # A full disk, or a quota over a network, says no only now; and a power cut leaves the old or the new.
                os.fsync(stream.fileno())
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def move(path: str, target: str) -> None:
    """Give a file of ours another name; what has that name, a link too, is replaced."""
    for place in (path, target):
        trust.require(str(Path(place).parent))
    with _told("moved", path):
        Path(path).replace(target)


def make_directory(path: str, *, mode: int) -> None:
    """Make a directory that nobody else can write to, with those above it; one that is there is only looked at."""
    _make_directories(path, mode=mode)


def _make_directories(path: str, *, mode: int) -> list[Path]:
    """The same; those that were made, the highest first."""
    trust.require(path)
    missing: list[Path] = []
    made: list[Path] = []
    there = Path(path)
    # Told before what was made is taken back: afterwards there may be inodes again.
    with _unmade(made), _told("made", path):
        while not os.path.lexists(there):
            missing.append(there)
            there = there.parent
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
        for directory in reversed(missing):
            with suppress(FileExistsError):
                directory.mkdir(mode=0o700)
                made.append(directory)
                directory.chmod(mode if directory == missing[0] else _ABOVE_MODE)
    if missing:
        # Somebody else may have been quicker.
        trust.require(path)
    return made


@contextmanager
def _unmade(made: list[Path]) -> Iterator[None]:
    """Where the block fails, the directories that were made for it go again, as far as they are empty."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for directory in reversed(made):
                directory.rmdir()
        raise


def link(path: str, target: str) -> None:
    """Make `path` a link to `target`, in place of an older link, in one step."""
    trust.require(str(Path(path).parent))
    temporary = Path(f"{path}.{os.getpid()}.new")
    with _told("made", path):
        try:
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(target)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def remove(path: str) -> None:
    """Remove a file, link or tree; links are removed and not followed."""
    trust.require(path, itself=False)
    there = Path(path)
    with _told("removed", path):
        if there.is_dir() and not there.is_symlink():
            shutil.rmtree(there)
        else:
            there.unlink(missing_ok=True)


def _require_file_or_nothing(path: str) -> None:
    with _told("written", path):
        if not os.path.lexists(path):
            return
        status = Path(path).stat() if Path(path).exists() else Path(path).lstat()
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISLNK(status.st_mode):
            raise UsageError(f"`{path}` is {trust.kind_of(status)}, not a file", hint="name another file")


def failed(done: str, path: str, error: OSError) -> StepFailed:
    """A `StepFailed` that names the path, what the system said, and what helps."""
    # Of a link the system names where it leads.
    at = error.filename if isinstance(error.filename, str) and error.filename.startswith("/") else path
    where = "" if at == path or Path(at).name.startswith(".") else f" (at `{at}`)"
    return StepFailed(f"`{path}` could not be {done}: {_reason(error, at)}{where}", hint=_remedy(error, path, at))


def hint_for(text: str) -> str | None:
    """What helps where a command says that the system refused it room."""
    refused = ("No space left on device", "Disk quota exceeded")
    room = "make room (`df -h`, `df -i`, `quota` show what is used up) and run the same command again"
    return room if any(words in text for words in refused) else None


def _reason(error: OSError, at: str) -> str:
    if error.errno == errno.ENOSPC and _inodes_are_out(at):
        return "no inodes left on the file system"
    return error.strerror or str(error)


def _remedy(error: OSError, path: str, at: str) -> str:
    quoted = shlex.quote(str(Path(path).parent))
    remedies = {
        errno.ENOSPC: f"make room (`df -h {quoted}`, `df -i {quoted}`) and run the same command again",
        errno.EDQUOT: f"your quota there is used up (`quota`, `du -sh {quoted}`): make room and run the same again",
        errno.EROFS: f"the file system is mounted read-only (`findmnt --target {quoted}`): mount it writable, "
        "or name another place with `--prefix`",
        errno.EIO: f"the disk or its network does not answer well (`sudo dmesg`, `findmnt --target {quoted}`)",
        errno.EISDIR: f"`rm -r {shlex.quote(path)}`, and run the same command again",
        errno.ELOOP: f"{trust.out_of_the_way(at)}, and run the same command again",
        errno.ENOTDIR: f"{trust.out_of_the_way(_in_the_way(at))}, or name another place with `--prefix`",
        errno.ENOTEMPTY: "something writes there at this moment: run the same command again",
        errno.ENAMETOOLONG: "name a shorter place with `--prefix`",
    }
    denied = f"`ls -ld {quoted}` says who may: run this as that user, or name another place with `--prefix`"
    return remedies.get(error.errno or 0, denied if isinstance(error, PermissionError) else f"`ls -la {quoted}`")


def _in_the_way(path: str) -> str:
    """What stands where a directory should be, on the way to a path."""
    above = [*reversed(Path(path).parents), Path(path)]
    return str(next((place for place in above if os.path.lexists(place) and not place.is_dir()), path))


def _inodes_are_out(path: str) -> bool:
    there = Path(path)
    with suppress(OSError):
        while not there.exists():
            there = there.parent
        status = os.statvfs(there)
        return bool(status.f_files) and status.f_favail == 0
    return False


@contextmanager
def _told(done: str, path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise failed(done, path, error) from error
