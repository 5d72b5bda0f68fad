"""What the smoke test needs to know of the model it talks to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

# Plain words, so that tokens are counted over the same kind of text in the short prompt and in the long one.
WORDS = (
    "The keeper of the lighthouse wrote down the weather every evening, and in the morning he read what he had "
    "written the year before. Most days were alike. When a storm came the notes were short, because there was "
    "much to do, and when the sea was calm they were long and told of ships, of birds and of the colour of the water. "
)


@dataclass
class Model:
    """The model under test. `tokens_per_character` is learnt from the first answer; `context_length` in tokens.

    One that has no chat template is no fault of the server: it `chats` no more, and is asked for completions.
    """

    name: str
    owner: str
    context_length: int | None = None
    tokens_per_character: float = field(default=1.0)
    chats: bool = True

    @property
    def of_sglang(self) -> bool:
        return self.owner == "sglang"


def describe(body: Any, expect_model: str | None) -> tuple[Model | None, tuple[str, ...]]:
    """The model to ask for and the names of all, from an answer of `/v1/models`; None where it is not there."""
    listed = body.get("data") if isinstance(body, dict) else None
    rows = (
        [row for row in listed if isinstance(row, dict) and isinstance(row.get("id"), str)]
        if isinstance(listed, list)
        else []
    )
    names = tuple(row["id"] for row in rows)
    chosen = next((row for row in rows if row["id"] == (expect_model or row["id"])), None)
    if chosen is None:
        return None, names
    length = chosen.get("max_model_len")
    context_length = length if isinstance(length, int) and length > 0 else None
    return Model(name=chosen["id"], owner=str(chosen.get("owned_by", "")), context_length=context_length), names
