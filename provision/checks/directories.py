"""Checks of who owns what and who may write where."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import PurePosixPath

from provision.checks.base import Context, check, error, warning
from provision.errors import NotPermitted, UntrustedPath
from provision.report import Finding
from provision.steps.directories import visible

_check = partial(check, "directories")
_OTHERS = 0o077


@_check(
    "directory-writable",
    "Every directory of the target can be written",
    looks_at="the prefix, the models' directory and the Hugging Face cache, or their nearest parents that exist",
    why="an install that meets a directory of somebody else's stops after the download",
    remedy="`sudo chown $USER DIR`, or other places: `--prefix`, `--model-directory`, `--cache-directory`",
)
def directory_writable(context: Context) -> Iterator[Finding]:
    told = set[str]()
    for place in _places(context):
        for path in (place, *map(str, PurePosixPath(place).parents)):
            info = visible(context.view, path)
            if info is None:
                continue
            if path not in told and not info.is_directory:
                yield error(
                    f"`{path}` is not a directory",
                    "name another place: `--prefix`, `--model-directory`, `--cache-directory`",
                )
            elif path not in told and not info.writable:
                yield error(
                    f"`{path}` belongs to {info.owner} (mode {info.mode:o}): `{place}` cannot be written",
                    f"`sudo install -d -o $USER {place}`, or name another place (`--prefix`)",
                )
            told.add(path)
            break


@_check(
    "directory-trusted",
    "Nobody else decides what lies under the prefix",
    looks_at="owner and mode of the prefix, of the servers' directory, and of each directory above them",
    why="whoever can write there puts programs and records in that sgprov would run and believe, as root where you are",
    remedy="`chmod go-w DIR`, or another place: `--prefix`",
)
def directory_trusted(context: Context) -> Iterator[Finding]:
    for place in (context.places.prefix, context.servers):
        try:
            context.view.require_trusted(place)
        except (UntrustedPath, NotPermitted) as problem:
            yield error(str(problem), *([problem.hint] if problem.hint else []))
            return


@_check(
    "directory-owner",
    "What lies under the target's directories is ours",
    looks_at="the owners of the directories and of what lies right under them, against the user we are",
    why="a single run with sudo leaves files that later runs can read and not replace",
    remedy="`sudo chown -R $USER DIR` for what is root's; what is another user's is moved away, and never taken over",
)
def directory_owner(context: Context) -> Iterator[Finding]:
    ours = _user(context)
    if ours in {None, 0}:
        return
    for place in _places(context):
        paths = [place, *context.view.glob(f"{place}/*")]
        infos = [(path, info) for path in paths if (info := visible(context.view, path))]
        strange = [(path, info) for path, info in infos if info.uid != ours and not info.writable]
        # What another user put there would be trusted if it were given to us.
        strange.sort(key=lambda one: one[1].uid == 0)
        if strange:
            path, info = strange[0]
            more = f" and {len(strange) - 1} more" if len(strange) > 1 else ""
            taken, aside = f"`sudo chown -R $USER {shlex.quote(place)}`", shlex.quote(f"{path}.aside")
            fix = taken if info.uid == 0 else f"`sudo mv {shlex.quote(path)} {aside}`"
            yield warning(f"`{path}`{more} belongs to {info.owner}, not to us", fix)


@_check(
    "directory-private",
    "Server records are readable by their owner only",
    looks_at="the modes of servers/*/server.json",
    why="they hold the command line of the server, with its API key where one was given",
    remedy="`chmod 600 FILE`",
)
def directory_private(context: Context) -> Iterator[Finding]:
    for path in context.view.glob(f"{context.servers}/*/server.json"):
        info = visible(context.view, path)
        if info and info.mode & _OTHERS:
            yield warning(f"`{path}` (mode {info.mode:o}) is open to other users", f"`chmod 600 {path}`")


def _places(context: Context) -> tuple[str, ...]:
    return tuple(dict.fromkeys((context.places.prefix, context.places.models, context.places.huggingface)))


def _user(context: Context) -> int | None:
    text = context.view.query(["id", "-u"]).out.strip()
    return int(text) if text.isdecimal() else None


CHECKS = (directory_writable, directory_trusted, directory_owner, directory_private)
