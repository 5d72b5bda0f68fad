"""Lines folded at words to the width of a terminal; whole where nobody's terminal is: a log wants whole lines."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

# Longer lines are hard to read, however wide the terminal.
_WIDEST = 120
_NARROWEST = 40
# A command is copied: it stays in one piece, on a line of its own where it is long. An arrow stays with its word.
_WHOLE = re.compile(r"`[^`]+`|→ ")
# Stands for a blank at which no line is broken.
_BOUND = "\x00"


def folded(text: Text, screen: Console, *, indent: int = 4) -> list[Text]:
    """The lines of a text for that screen; those that it is folded into begin with `indent` blanks.

    A line of its own inside of the text keeps its indentation, and what it is folded into stands two blanks behind.
    """
    if not screen.is_terminal:
        return [text]
    lines = []
    for number, line in enumerate(text.split(allow_blank=True)):
        leading = len(line.plain) - len(line.plain.lstrip())
        lines += _fold(
            line, width=max(min(screen.width, _WIDEST), _NARROWEST), indent=leading + 2 if number else indent
        )
    return lines


def _fold(line: Text, *, width: int, indent: int) -> list[Text]:
    from rich.text import Text  # noqa: PLC0415  # only where something is printed for people

    plain = _WHOLE.sub(lambda found: found[0].replace(" ", _BOUND), line.plain)
    blanks = " " * indent
    found, end = list[Text](), 0
    for part in textwrap.wrap(
        plain,
        width=width,
        subsequent_indent=blanks,
        expand_tabs=False,
        replace_whitespace=False,
        break_long_words=False,
        break_on_hyphens=False,
    ):
        words = part.lstrip() if found else part
        start = plain.index(words, end)
        end = start + len(words)
        found.append(Text.assemble(blanks, line[start:end]) if found else line[start:end])
    return found or [line]
