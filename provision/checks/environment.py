"""Checks of what is installed: against its stamp, its lock and its receipt, in milliseconds.

Hashing every file takes as long as reading 10 GB: `sgprov environments verify` does that.
"""

from __future__ import annotations

import csv
import glob
from collections.abc import Iterator
from functools import partial

from provision.checks.base import Context, check, error, info, warning
from provision.environments import (
    Environment,
    current,
    is_changed,
    list_environments,
    missing,
    path_for,
    python_of,
    read_receipt,
    read_stamp,
    repair,
)
from provision.errors import NotPermitted
from provision.locks.lockfile import Lock
from provision.report import Finding
from provision.steps.switch import is_anothers

_check = partial(check, "environment")
# What has to be importable for an engine to start, by engine.
_MODULES = {"sglang": ("torch", "sglang", "transformers"), "lmdeploy": ("torch", "lmdeploy", "transformers")}
# Whose shared libraries are compared in size: the ones that are half of the disk space and all of the speed.
_PACKAGES = ("torch", "sgl_kernel", "sglang_kernel", "triton")
_SHOWN = 3
# A line of a RECORD that is longer, or a size that is, is damage.
_LONGEST_LINE = 10_000
_MOST_DIGITS = 19


def _installed(context: Context) -> bool:
    return bool(_environments(context))


def _complete(context: Context) -> bool:
    return _path(context) is not None and _lock(context) is not None


@_check(
    "environment-installed",
    "An environment is installed and in use",
    looks_at="the folders under environments/ and the link `current`",
    why="nothing can be served before; after an interrupted first run there are folders and none is in use",
    remedy="`sgprov bootstrap`",
    applies=lambda context: context.decision is None or context.decision.stack is not None,
)
def environment_installed(context: Context) -> Iterator[Finding]:
    if not _environments(context):
        yield info(f"nothing is installed under {context.places.prefix} yet")
    elif current(context.view, context.places.prefix) is None:
        yield warning("environments are here and none is in use", "`sgprov bootstrap` tests one and puts it in use")


@_check(
    "environment-interrupted",
    "No install was interrupted",
    looks_at="environments without a stamp",
    why="an environment without its stamp holds part of its wheels; the next run makes it anew",
    remedy="`sgprov bootstrap` again; `sgprov environments` shows and removes what is not needed",
    applies=_installed,
)
def environment_interrupted(context: Context) -> Iterator[Finding]:
    for one in _environments(context):
        if one.stamp is None:
            yield warning(f"`{one.path}` is not complete", "`sgprov bootstrap` again makes it anew")


@_check(
    "environment-python",
    "Every environment's Python is there",
    looks_at="bin/python of each environment, links followed",
    why="when the interpreter it was made from is upgraded away, the link dangles and nothing of it runs",
    remedy="`sgprov bootstrap` makes it anew; nothing is downloaded twice",
    applies=_installed,
)
def environment_python(context: Context) -> Iterator[Finding]:
    for one in _environments(context):
        say = error if one.current else warning
        try:
            gone = bool(one.stamp) and context.view.stat(python_of(one.path)) is None
        except NotPermitted as problem:
            yield say(str(problem), *([problem.hint] if problem.hint else []))
            continue
        if one.stamp and gone:
            yield say(
                f"`{python_of(one.path)}` leads nowhere: {one.stamp.interpreter} is gone",
                "`sgprov bootstrap` makes it anew",
            )


@_check(
    "environment-lock",
    "The environment in use is of today's lock",
    looks_at="the lock's digest in the stamp of `current`, against the lock that would be taken now",
    why="after an update of sgprov the stack that was tested with it is another one",
    remedy="`sgprov bootstrap` installs the new one beside it; `sgprov environments rollback` goes back",
    applies=lambda context: _current(context) is not None and _decided(context) is not None,
)
def environment_lock(context: Context) -> Iterator[Finding]:
    path, lock = _current(context), _decided(context)
    stamp = read_stamp(context.view, path) if path else None
    # Of several servers each may have an environment of its own: another stack or Python is not an older lock.
    own = stamp is not None and lock is not None and stamp.lock != lock.name
    if own and is_anothers(context.view, context.places.prefix, ""):
        return
    if stamp and lock and stamp.lock_digest != lock.digest:
        yield warning(
            f"`{stamp.name}` is in use, today's lock is {lock.name}",
            "`sgprov bootstrap` installs it beside the old one",
        )


@_check(
    "environment-packages",
    "Every locked package is installed, in its version, and nothing else",
    looks_at="the dist-info folders, against the lock; the times of the directories, against the stamp",
    why="`pip install` into an environment changes versions behind its back; so does whoever removes a file",
    remedy="`sgprov environments repair`; look closer with `sgprov environments verify`",
    applies=_complete,
)
def environment_packages(context: Context) -> Iterator[Finding]:
    path, lock = _path(context), _lock(context)
    if path and lock and (gone := missing(context.view, path, lock)):
        shown = ", ".join(gone[:_SHOWN]) + (f" and {len(gone) - _SHOWN} more" if len(gone) > _SHOWN else "")
        yield error(f"`{path}` lacks {shown}", f"`{repair(path)}` fetches it anew")
    elif path and is_changed(context.view, path):
        yield error(
            f"`{path}` is not what was installed: files were added, removed, replaced or edited",
            f"`{repair(path)}` makes it anew; `sgprov environments verify` names them",
        )


@_check(
    "environment-imports",
    "The engine's modules are where Python looks for them",
    looks_at="torch, transformers and the engine: their folders in site-packages, without starting Python",
    why="a folder that was removed leaves its dist-info behind: the package looks installed and does not import",
    remedy="`sgprov environments repair`",
    applies=_complete,
)
def environment_imports(context: Context) -> Iterator[Finding]:
    path, lock = _path(context), _lock(context)
    if path is None or lock is None:
        return
    stack = context.decision.stack if context.decision else None
    for module in _MODULES.get(stack.engine if stack else "sglang", ()):
        if not context.view.stat(f"{path}/lib/python{lock.python}/site-packages/{module}/__init__.py"):
            yield error(f"`{module}` cannot be imported from `{path}`", f"`{repair(path)}` fetches it anew")


@_check(
    "environment-files",
    "The kernels' libraries are as long as their wheels say",
    looks_at="the sizes in RECORD of torch, Triton and the kernels, for shared libraries; no file is read",
    why="a library that was cut short by a full disk loads far enough to crash; hashing all of it would take minutes",
    remedy="`sgprov environments repair` hashes every file and fetches anew what differs",
    applies=_complete,
)
def environment_files(context: Context) -> Iterator[Finding]:
    path, lock = _path(context), _lock(context)
    if path is None or lock is None:
        return
    site = f"{path}/lib/python{lock.python}/site-packages"
    for package in _PACKAGES:
        for record in context.view.glob(f"{glob.escape(site)}/{package}-*.dist-info/RECORD"):
            wrong = [
                name
                for name, size in parse_libraries(context.view.read(record) or "")
                if _size(context, f"{site}/{name}") != size
            ]
            if wrong:
                yield error(
                    f"`{package}` is not as installed: {', '.join(wrong[:_SHOWN])}", f"`{repair(path)}` fetches it anew"
                )


@_check(
    "environment-receipt",
    "The receipt says what is in use",
    looks_at="receipt.json: its environment, and how its smoke test went",
    why="a receipt of another environment means that somebody switched by hand; one that fails says not to serve",
    remedy="`sgprov bootstrap` tests and writes it again",
    applies=lambda context: _current(context) is not None,
)
def environment_receipt(context: Context) -> Iterator[Finding]:
    path, receipt = _current(context), read_receipt(context.view, context.places.prefix)
    if receipt is None:
        yield warning(f"there is no readable receipt under {context.places.prefix}", "`sgprov bootstrap` writes it")
    elif receipt.environment and path and receipt.environment != path.rsplit("/", 1)[-1]:
        yield warning(
            f"the receipt is of `{receipt.environment}`, in use is `{path.rsplit('/', 1)[-1]}`",
            "`sgprov bootstrap` tests what is in use and writes it again",
        )


@_check(
    "environment-library-path",
    "No library path stands before the environment's own libraries",
    looks_at="the directories in LD_LIBRARY_PATH: copies of cuDNN, cuBLAS and NCCL in them",
    why="they are found before those that torch was built with: `undefined symbol`, or wrong results",
    remedy="`unset LD_LIBRARY_PATH`",
)
def environment_library_path(context: Context) -> Iterator[Finding]:
    for directory in (context.view.variable("LD_LIBRARY_PATH") or "").split(":"):
        names = ("libcudnn*.so*", "libcublas*.so*", "libnccl.so*")
        if directory and (
            found := [path for name in names for path in context.view.glob(f"{glob.escape(directory)}/{name}")]
        ):
            yield warning(
                f"LD_LIBRARY_PATH holds {found[0]}, which comes before torch's own", "`unset LD_LIBRARY_PATH`"
            )


def parse_libraries(text: str) -> list[tuple[str, int]]:
    """Shared libraries and their sizes in a RECORD, from lines such as `torch/lib/libtorch.so,sha256=eB5…,262`."""
    lines = [line for line in text.splitlines() if ".so" in line and len(line) <= _LONGEST_LINE]
    # Each alone: a quote that is not closed takes the lines that follow for its own.
    rows = [row for line in lines for row in csv.reader([line]) if len(row) > 2 and ".so" in row[0]]  # noqa: PLR2004
    return [(row[0], int(row[2])) for row in rows if row[2].isdecimal() and len(row[2]) <= _MOST_DIGITS]


def _size(context: Context, path: str) -> int | None:
    found = context.view.stat(path)
    return found.size if found else None


def _environments(context: Context) -> tuple[Environment, ...]:
    return context.once("environments", lambda: list_environments(context.view, context.places.prefix))


def _current(context: Context) -> str | None:
    return next((one.path for one in _environments(context) if one.current), None)


def _decided(context: Context) -> Lock | None:
    return context.decision.lock if context.decision else None


def _path(context: Context) -> str | None:
    """The environment of the decided lock, where it is stamped."""
    lock = _decided(context)
    path = path_for(context.places.prefix, lock) if lock else None
    return path if any(one.path == path and one.stamp for one in _environments(context)) else None


def _lock(context: Context) -> Lock | None:
    return _decided(context)


CHECKS = (
    *(environment_installed, environment_interrupted, environment_python, environment_lock, environment_packages),
    *(environment_imports, environment_files, environment_receipt, environment_library_path),
)
