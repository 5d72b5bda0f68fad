"""Files that a user names, read so that none of them can hang us, fill the memory, or end in a traceback."""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, TypeVar

import msgspec

from provision import trust
from provision.errors import UsageError

LIMIT_BYTES = 8 * 1024 * 1024
T = TypeVar("T")
# What msgspec makes of a type when it first meets it is not safe to be made by two threads at once (0.22: the process
# is ended), and checks run in several.
TYPES = Lock()
# How long a pipe may have nobody who writes to it.
_WRITER_S = 2
# What people write by hand is never as deep; a parser runs out of stack at some hundreds.
_DEEPEST = 50


def read_input(path: str | Path, *, limit: int = LIMIT_BYTES) -> bytes:
    """A file that the user named, whole. Raises `UsageError` for what is no plain file, unreadable, or too large."""
    return read_descriptor(_opened(path), path, limit=limit)


def read_descriptor(descriptor: int, path: str | Path, *, limit: int = LIMIT_BYTES) -> bytes:
    """The same of an open file, which is closed in the end."""
    with _closing(descriptor):
        _require_kind(descriptor, path, stat.S_ISREG)
        try:
            with os.fdopen(descriptor, "rb", closefd=False) as stream:
                raw = stream.read(limit + 1)
        except OSError as error:
            raise UsageError(f"`{path}` cannot be read: {error.strerror}") from error
    if len(raw) > limit:
        raise UsageError(f"`{path}` is larger than {limit // 1024**2} MiB", hint="is it the file that you meant?")
    return raw


@contextmanager
def open_input(path: str | Path) -> Iterator[BinaryIO]:
    """A file of any size, or a pipe that somebody writes to, to be read as it comes. Raises `UsageError`."""
    descriptor = _opened(path)
    with _closing(descriptor):
        status = _require_kind(descriptor, path, lambda mode: stat.S_ISREG(mode) or stat.S_ISFIFO(mode))
        if stat.S_ISFIFO(status.st_mode):
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            if not poll.poll(_WRITER_S * 1000):
                raise UsageError(
                    f"nobody writes to the pipe `{path}`", hint="name a plain file, or `-` for standard input"
                )
        os.set_blocking(descriptor, True)
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            yield stream


def decode_json(raw: str | bytes, kind: type[T]) -> T:
    """JSON as a type. Raises `msgspec.DecodeError` for everything that it is not, and for what is nested too deeply."""
    try:
        with TYPES:
            return msgspec.json.decode(raw, type=kind)
    except RecursionError:
        raise msgspec.DecodeError("nested too deeply") from None


def _opened(path: str | Path) -> int:
    try:
        # A pipe that nobody writes to must not make it wait.
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except FileNotFoundError:
        raise UsageError(f"there is no file at `{path}`", hint="`ls -l` shows what is there") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"`{path}` cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _require_kind(descriptor: int, path: str | Path, fits: Callable[[int], bool]) -> os.stat_result:
    status = os.fstat(descriptor)
    if not fits(status.st_mode):
        raise UsageError(f"`{path}` is {trust.kind_of(status)}, not a file", hint="name a plain file")
    return status


@contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)


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
