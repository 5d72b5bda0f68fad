"""What may be trusted on this disk: the one place that decides whether a path is the caller's to believe and to write.

Several users share a machine, and sgprov often runs as root. Whoever can write into a directory decides what lies
there, so state (records, receipts, stamps, locks, logs, keys, configuration) is read and written only where nobody
else can: each directory from `/` down belongs to the caller or to root and is not writable by others, and so does the
file. Everything here raises `UntrustedPath` for what another user could have put there, with the command that helps.

`require` asks that of a directory or file, `open_state` opens a file under the same rule. Code that holds a `HostView`
or `Host` uses their methods, which are made of these: `require_trusted`, `read_state`, `read_link`, `write`,
`make_directory`, `link`, `remove`, `open_state`.

Three things are not distrusted. A directory that everyone may write but that is sticky, as `/tmp` is, may stand above
a path: others cannot rename or remove what is ours in it; what they made there before us is theirs, and is refused.
A directory that is writable for its owner's own group, of which nobody else is a member (how Ubuntu and Fedora make
home directories), is as good as private. And in a user namespace without the real root, as in an unprivileged
container, directories of the "overflow" user may stand above a path: the system's own ones appear as such.
"""

from __future__ import annotations

import errno
import os
import pwd
import shlex
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from provision.errors import NotPermitted, UntrustedPath

ROOT = 0
_MOST_LINKS = 40
_ACL = "system.posix_acl_access"
# Where the kernel says which users a namespace has, and as whom all others appear.
_UID_MAP, _OVERFLOW = "/proc/self/uid_map", "/proc/sys/kernel/overflowuid"
_ALL_USERS = ["0", "0", "4294967295"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """One component on the way to a path. `last` is the path itself."""

    path: str
    status: os.stat_result
    last: bool

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.status.st_mode)


def require(path: str, *, itself: bool = True) -> None:
    """Raise `UntrustedPath` where another user could decide what lies at `path` or have made it.

    It need not exist: then what exists of the way to it must be trusted. Without `itself`, the way to it alone must
    be. Raises `NotPermitted` where the way cannot be looked at.
    """
    for place in _places(path):
        if (itself or not place.last) and (problem := _problem(place)):
            raise _untrusted(place, problem, path)
        if itself and place.last and stat.S_ISDIR(place.status.st_mode) and not os.access(place.path, os.X_OK):
            raise not_permitted(path)


def open_state(path: str, flags: int = os.O_RDONLY, *, mode: int = 0o600) -> int:
    """Open a file of ours, never through a link: a descriptor, which children do not inherit.

    Raises `FileNotFoundError`, `NotPermitted`, and `UntrustedPath` for what is not a plain file of the caller's or
    root's: a link, a directory, a pipe, another user's file, one with a second name, one that others may write.
    """
    require(str(Path(path).parent))
    try:
        # A pipe or a device must not make it wait.
        more = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        descriptor = os.open(path, (flags & ~os.O_TRUNC) | more, mode)
    except OSError as error:
        raise _not_opened(path, error) from error
    place = Place(path=path, status=os.fstat(descriptor), last=True)
    if problem := _file_problem(place):
        os.close(descriptor)
        raise _untrusted(place, problem, path)
    if flags & os.O_TRUNC:
        # Not before it is known whose it is.
        os.ftruncate(descriptor, 0)
    return descriptor


def read_link(path: str) -> str | None:
    """Where a link of ours leads, as it was written; None where there is none. Raises `UntrustedPath` for the rest."""
    require(str(Path(path).parent))
    try:
        status = os.lstat(path)
        if not stat.S_ISLNK(status.st_mode):
            raise UntrustedPath(f"`{path}` is {kind_of(status)}, not a symbolic link", hint=out_of_the_way(path))
        place = Place(path=path, status=status, last=True)
        if problem := _owner_problem(place):
            raise _untrusted(place, problem, path)
        return str(Path(path).readlink())
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise not_permitted(path) from error


def kind_of(status: os.stat_result) -> str:
    """What sort of file it is, in words."""
    names = {
        stat.S_IFDIR: "a directory",
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return names.get(stat.S_IFMT(status.st_mode), "a file")


def user_name(uid: int) -> str:
    """The name of a user, or the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _places(path: str) -> Iterator[Place]:
    """Every directory and link on the way to `path`, as the kernel goes it, up to where nothing exists any more."""
    rest = deque(_parts(path if path.startswith("/") else f"{Path.cwd()}/{path}"))
    here, links = "/", 0
    yield Place(path=here, status=os.lstat(here), last=not rest)
    while rest:
        part = rest.popleft()
        if part == "..":
            here = str(Path(here).parent)
            yield Place(path=here, status=os.lstat(here), last=not rest)
            continue
        there = here if part == "." else f"{here.rstrip('/')}/{part}"
        try:
            place = Place(path=there, status=os.lstat(there), last=not rest)
        except (FileNotFoundError, NotADirectoryError):
            return
        except PermissionError as error:
            raise not_permitted(path) from error
        except (OSError, ValueError) as error:
            raise UntrustedPath(f"`{path}` cannot be looked at: {error}", hint="name another place") from error
        yield place
        if not place.is_link:
            here = there
            continue
        links += 1
        if links > _MOST_LINKS:
            raise UntrustedPath(f"`{path}` leads through too many symbolic links", hint=out_of_the_way(there))
        target = str(Path(there).readlink())
        here = "/" if target.startswith("/") else here
        # A link may end in a directory that was passed on the way: as the end of it, it is held to more.
        rest.extendleft(reversed(_parts(target) or ["."]))


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in {"", "."}]


def _problem(place: Place) -> str | None:
    if place.path == "/":
        # Whoever owns it has the machine anyway.
        return "may be written by others" if _others_write(place) and not _sticky(place) else None
    if problem := _owner_problem(place):
        return problem
    if place.is_link or not _others_write(place):
        return None
    if place.last and _sticky(place):
        return "is open to all users"
    return None if _sticky(place) else "may be written by others"


def _file_problem(place: Place) -> str | None:
    if not stat.S_ISREG(place.status.st_mode):
        return f"is {kind_of(place.status)}, not a file"
    if problem := _owner_problem(place):
        return problem
    if place.status.st_nlink > 1:
        return "has a second name (a hard link) elsewhere"
    return "may be written by others" if _others_write(place) else None


def _owner_problem(place: Place) -> str | None:
    uid = place.status.st_uid
    if uid in {ROOT, os.geteuid()} or (not place.last and uid == _unmapped_user()):
        return None
    return f"belongs to {user_name(uid)}"


def _sticky(place: Place) -> bool:
    return stat.S_ISDIR(place.status.st_mode) and bool(place.status.st_mode & stat.S_ISVTX)


def _others_write(place: Place) -> bool:
    mode = place.status.st_mode
    if mode & stat.S_IWOTH:
        return True
    return bool(mode & stat.S_IWGRP) and not _is_private_group(place)


def _is_private_group(place: Place) -> bool:
    """Whether the group that may write has the owner as its only member, and no access list names others."""
    uid, gid = place.status.st_uid, place.status.st_gid
    if gid == ROOT or not _has_one_member(uid, gid):
        return False
    with suppress(OSError):
        os.getxattr(place.path, _ACL, follow_symlinks=False)
        return False
    return True


@lru_cache
def _has_one_member(uid: int, gid: int) -> bool:
    import grp  # noqa: PLC0415  # only for directories that a group may write

    try:
        owner, group = pwd.getpwuid(uid), grp.getgrgid(gid)
    except KeyError:
        return False
    if group.gr_name != owner.pw_name or owner.pw_gid != gid or set(group.gr_mem) - {owner.pw_name}:
        return False
    return all(user.pw_uid == uid for user in pwd.getpwall() if user.pw_gid == gid)


@lru_cache
def _unmapped_user() -> int | None:
    """As whom the system's files appear in a user namespace that has not got their owner; None outside of one."""
    try:
        if Path(_UID_MAP).read_text(encoding="ascii").split() == _ALL_USERS:
            return None
        return int(Path(_OVERFLOW).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _untrusted(place: Place, problem: str, path: str) -> UntrustedPath:
    """The error, with owner and mode, and with the command that helps."""
    owner, mode = user_name(place.status.st_uid), stat.S_IMODE(place.status.st_mode)
    known = f"mode {mode:o}" if problem.startswith("belongs to") else f"owner {owner}, mode {mode:o}"
    leads = "" if place.path.rstrip("/") == path.rstrip("/") else f", and decides what is in `{path}`"
    return UntrustedPath(f"`{place.path}` {problem} ({known}){leads}", hint=_remedy(place, problem))


def _remedy(place: Place, problem: str) -> str:
    status, path = place.status, shlex.quote(place.path)
    sudo = "" if os.geteuid() in {ROOT, status.st_uid} else "sudo "
    if problem == "is open to all users":
        return f"name a directory in it, such as `{place.path.rstrip('/')}/sgprov`"
    if problem == "may be written by others":
        return f"`{sudo}chmod go-w {path}`, or name another place with `--prefix`"
    if problem.startswith("belongs to"):
        name = shlex.quote(user_name(status.st_uid))
        again = f"run this as that user (`sudo -u {name} sgprov …`), or name another place with `--prefix`"
        # Never `chown`: what somebody else put there must not become trusted by it.
        return f"{out_of_the_way(place.path)}, if it is not wanted; else {again}" if place.last else again
    return out_of_the_way(place.path)


def out_of_the_way(path: str) -> str:
    """The command that takes what lies at a path away and keeps it."""
    sudo = "" if os.geteuid() == ROOT or os.access(Path(path).parent, os.W_OK) else "sudo "
    quoted = shlex.quote(path)
    return f"`{sudo}mv {quoted} {shlex.quote(f'{path}.aside')}`"


def _not_opened(path: str, error: OSError) -> Exception:
    """What is to be said of a file that could not be opened; the system's own error where it says it best."""
    if isinstance(error, PermissionError):
        return not_permitted(path)
    with suppress(OSError):
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode) and error.errno in {errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ENODEV}:
            place = Place(path=path, status=status, last=True)
            return _untrusted(place, f"is {kind_of(status)}, not a file", path)
    return error


def not_permitted(path: str) -> NotPermitted:
    """The error for a path that the caller may not open: whose it is, or whose the directory is that is closed."""
    real = Path(os.path.realpath(path))
    closed = next((str(above) for above in reversed(real.parents) if not os.access(above, os.X_OK)), str(real))
    of, owner = "", user_name(ROOT)
    with suppress(OSError):
        status = os.lstat(closed)
        owner = user_name(status.st_uid)
        of = f": `{closed}` belongs to {owner} (mode {stat.S_IMODE(status.st_mode):o})"
    caller, quoted = user_name(os.geteuid()), shlex.quote(owner)
    return NotPermitted(
        f"`{path}` cannot be opened by {caller}{of}",
        hint=f"name another place, or run this as that user (`sudo -u {quoted} sgprov …`)",
    )
