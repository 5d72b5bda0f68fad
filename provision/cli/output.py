"""What a command hands to the renderer: one result, with its two renderings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from provision import errors

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A result. `data` is the JSON object but for `schema`, `ok` and `changed`; `text` writes it for people."""

    command: str
    data: dict[str, Any]
    text: Callable[[Console], None]
    ok: bool = True
    changed: bool = False
    exit_status: int = errors.OK
    schema: int = field(default=1)

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": f"sgprov.{self.command}/{self.schema}",
            "ok": self.ok,
            "changed": self.changed,
            **self.data,
        }
