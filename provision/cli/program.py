"""Printed commands run as they are printed: by the name that starts this sgprov, on the prefix that was asked for."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from provision import config

NAME = "sgprov"
# Those that look for servers and environments under a prefix.
_PREFIXED = ("bootstrap", "plan", "doctor", "serve", "smoke", "environments")
_given: list[str] = []


def remember_prefix(arguments: Sequence[str]) -> None:
    """Keep the `--prefix` of a command line: what it prints is to be run on the same."""
    _given.clear()
    for number, word in enumerate(arguments):
        if word == "--prefix":
            _given[:] = arguments[number + 1 : number + 2]
        elif word.startswith("--prefix="):
            _given[:] = [word.partition("=")[2]]


@lru_cache(maxsize=1)
def program() -> str:
    """`sgprov` where that is us on the PATH, else what is: an environment that is not activated is no obstacle."""
    ours = next((path for path in (Path(sys.argv[0]), Path(sys.executable).with_name(NAME)) if _is_ours(path)), None)
    if ours is None:
        return f"{shlex.quote(sys.executable)} -m provision"
    found = shutil.which(NAME, path=config.process_environment().get("PATH"))
    if found and Path(found).resolve() == ours.resolve():
        return NAME
    return shlex.quote(str(ours.absolute()))


def runnable(text: str) -> str:
    """The text with every command of sgprov in it as it can be run here."""
    if NAME not in text:
        return text
    if _given:
        text = _quoted().sub(_on_prefix, text)
    return text if program() == NAME else _commands().sub(lambda _: f"{program()} ", text)


def _on_prefix(found: re.Match[str]) -> str:
    words = found[0]
    if "--prefix" in words or " -- " in words or " | " in words:
        return words
    return f"{words[:-1]} --prefix {shlex.quote(_given[0])}`"


def _is_ours(path: Path) -> bool:
    return path.name == NAME and path.is_file()


@lru_cache(maxsize=1)
def _commands() -> re.Pattern[str]:
    from provision.cli.app import COMMANDS  # noqa: PLC0415  # which imports us

    # Not a path, a package or a word of prose: what a command follows.
    return re.compile(rf"(?<![\w./-]){NAME} (?=(?:{'|'.join(COMMANDS)})\b)")


@lru_cache(maxsize=1)
def _quoted() -> re.Pattern[str]:
    return re.compile(rf"`{NAME} (?:{'|'.join(_PREFIXED)})\b[^`\n]*`")
