"""Every `sgprov …` that a message, a remedy or a page names is a command that there is, with options that it has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from provision.cli.app import sgprov

ROOT = Path(__file__).parents[2]
_QUOTED = re.compile(r"`([^`]+)`")
_CALL = re.compile(r"(?<![\w./-])sgprov((?:\s+(?![|;&>])\S+)+)")
# What stands for something else: a value put in, a name in capitals, an ellipsis, an optional part.
_PLACEHOLDER = re.compile(r"VALUE|[A-Z][A-Z|/_-]*|…|\.\.\.|\[.*|<.*|\w+/\w+")
_LINE = re.compile(r"^(?:\$ )?((?:\w+=\S+ )*sgprov\s.*)$", re.MULTILINE)
_FENCE = re.compile(r"^```(?:bash|console|sh|shell)?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def texts(path: Path) -> Iterator[str]:
    """The texts of a file in which commands are quoted; what a text is given when it runs becomes VALUE."""
    source = path.read_text()
    if path.suffix != ".py":
        yield source
        return
    tree = ast.parse(source)
    parts = {id(one) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for one in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(one.value) if isinstance(one, ast.Constant) else "VALUE" for one in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.value


def commands(path: Path) -> Iterator[str]:
    for text in texts(path):
        quoted = _QUOTED.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        quoted += [line for block in _FENCE.findall(text) for line in _LINE.findall(block)]
        for one in quoted:
            yield from (words.split("#")[0].strip() for words in _CALL.findall(one))


def wrong(words: list[str]) -> str | None:
    """What a command line names that there is not."""
    command: click.Command = sgprov
    context = click.Context(sgprov)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, *words = words
        if _PLACEHOLDER.fullmatch(name):
            return None
        found = command.get_command(context, name)
        if found is None:
            return f"no command `{name}`"
        command = found
    options = {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {"--help", "-h"}
    for word in words:
        if word == "--":
            break
        flag = word.split("=")[0].strip("[]")
        if (
            flag.startswith("-")
            and flag != "-"
            and flag.rstrip(",.") not in options
            and not re.fullmatch(r"-\d+", flag)
        ):
            return f"`{command.name}` has no option `{flag}`"
    return None


FILES = sorted(
    [
        *(path for kind in ("py", "yml") for path in (ROOT / "provision").rglob(f"*.{kind}")),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "README.md", ROOT / "CONTRIBUTING.md"),
    ]
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_commands_are_there(path: Path) -> None:
    found = {words: problem for words in commands(path) if (problem := wrong(words.split()))}
    assert found == {}


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("bundel", "no command `bundel`"),
        ("serve logz NAME", "no command `logz`"),
        ("doctor --fix", "`doctor` has no option `--fix`"),
        ("serve restart cpu --prefix DIR", None),
        ("bootstrap --target VALUE -- --tp 2", None),
    ],
)
def test_the_test_tells(words: str, problem: str | None) -> None:
    assert wrong(words.split()) == problem


def test_the_test_reads() -> None:
    assert sum(1 for path in FILES for _ in commands(path)) > 100
