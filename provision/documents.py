"""Files that a user names, read so that none of them can hang us, fill the memory, or end in a traceback."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from provision import trust
from provision.errors import UsageError

LIMIT_BYTES = 8 * 1024 * 1024
# What people write by hand is never as deep; a parser runs out of stack at some hundreds.
_DEEPEST = 50


def read_input(path: str | Path, *, limit: int = LIMIT_BYTES) -> bytes:
    """A file that the user named, whole. Raises `UsageError` for what is no plain file, unreadable, or too large."""
    try:
        # A pipe that nobody writes to must not make it wait.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except FileNotFoundError:
        raise UsageError(f"there is no file at `{path}`", hint="`ls -l` shows what is there") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"`{path}` cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return read_descriptor(descriptor, path, limit=limit)


def read_descriptor(descriptor: int, path: str | Path, *, limit: int = LIMIT_BYTES) -> bytes:
    """The same of an open file, which is closed in the end."""
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"`{path}` is {trust.kind_of(status)}, not a file", hint="name a plain file")
        try:
            raw = stream.read(limit + 1)
        except OSError as error:
            raise UsageError(f"`{path}` cannot be read: {error.strerror}") from error
    if len(raw) > limit:
        raise UsageError(f"`{path}` is larger than {limit // 1024**2} MiB", hint="is it the file that you meant?")
    return raw


def parse_yaml(raw: bytes, *, source: str) -> Any:
    """YAML as plain data. Raises `UsageError` that says where it is wrong."""
    import yaml  # noqa: PLC0415  # only where there is a file

    text = _text(raw, source)
    check_yaml(text, source=source)
    try:
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  # both are safe
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{source} is not valid YAML: {error}") from error


def check_yaml(text: str, *, source: str) -> None:
    """Raise `UsageError` for YAML that is broken, too deep, or holds aliases: a few lines of these can mean gigabytes.

    To be asked before anything is made of it: what comes of parsing is flat here, however deep it is.
    """
    import yaml  # noqa: PLC0415

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    try:
        for event in yaml.parse(text, Loader=loader):
            if isinstance(event, yaml.AliasEvent):
                raise UsageError(f"{source} uses the alias `*{event.anchor}`", hint="write out what it stands for")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise UsageError(f"{source} is nested more than {_DEEPEST} levels deep")
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{source} is not valid YAML: {error}") from error


def _text(raw: bytes, source: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{source} is not text in UTF-8: {error.reason} at byte {error.start}") from error
