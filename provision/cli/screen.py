"""A terminal that nothing of what is shown on it can command."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from provision.cli.program import runnable
from provision.output import printable, readable, sayable


class Screen(Console):
    """Rich's console, in which words are data: no markup in them is read, no credential and no control sequence shown.

    Styles are given beside the words (`render.line`). What rich itself says to the terminal, it says in segments of
    its own, which hold no words.
    """

    def __init__(self, *, error: bool = False, **settings: Any) -> None:
        super().__init__(stderr=error, highlight=False, soft_wrap=True, emoji=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        return super().render_str(readable(runnable(text)), **{**settings, "markup": False})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(sayable(printable(segment.text), self.encoding), segment.style)
