"""The signatures of known failures, and of alarming lines that mean nothing; the rows are in data/*.yml."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from importlib.resources import files
from typing import Literal, get_args

from msgspec import Struct, ValidationError, yaml

from provision.diagnosis.words import compile_pattern, required_words

Category = Literal[
    "gpu-arch",
    "python-wheels",
    "cuda-driver",
    "port",
    "memory",
    "model-access",
    "container-registry",
    "multi-node",
    "server-config",
    "harmless",
]
CATEGORIES: tuple[str, ...] = get_args(Category)
Kind = Literal["cause", "symptom", "generic", "wrapper"]
Confidence = Literal["high", "medium", "low"]

_ID = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


class Signature(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing a log can say.

    `patterns` are regular expressions without regard to case, tried on one cleaned line with single spaces; any of
    them is enough, where `unless` is not in the same line. `after` must have matched one of the lines shortly before;
    `last` signatures are tried on the log's last line alone.

    A `symptom` follows from a cause that may have its own line, `generic` knows the field but not the reason, a
    `wrapper` only passes on that something else failed.
    """

    id: str
    patterns: tuple[str, ...]
    cause: str
    remedy: tuple[str, ...] = ()
    source: str
    kind: Kind = "cause"
    confidence: Confidence = "high"
    severity: Literal["error", "warning"] = "error"
    after: str | None = None
    unless: str | None = None
    last: bool = False
    category: Category = "harmless"

    @property
    def harmless(self) -> bool:
        return self.category == "harmless"


class _File(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    category: Category
    signatures: tuple[Signature, ...]


@lru_cache(maxsize=1)
def load() -> tuple[Signature, ...]:
    """Every signature there is."""
    texts = {
        entry.name: entry.read_text(encoding="utf-8")
        for entry in sorted((files(__package__) / "data").iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".yml")
    }
    return parse(texts)


def parse(texts: dict[str, str]) -> tuple[Signature, ...]:
    """The signatures in files given as name and text; a `ValueError` names the file and the row that is wrong."""
    found: dict[str, Signature] = {}
    for name, text in texts.items():
        try:
            rows = yaml.decode(text, type=_File)
        except ValidationError as error:
            raise ValueError(f"`{name}`: {error}") from error
        for row in rows.signatures:
            signature = Signature(
                **{key: getattr(row, key) for key in row.__struct_fields__} | {"category": rows.category}
            )
            if objection := _objection(signature, found):
                raise ValueError(f"`{name}`: `{signature.id}` {objection}")
            found[signature.id] = signature
    return tuple(found.values())


def _objection(signature: Signature, others: Iterable[str]) -> str | None:
    objections = {
        "is not kebab-case": not _ID.fullmatch(signature.id),
        "is there twice": signature.id in others,
        "needs a pattern and a cause": not signature.patterns or not signature.cause,
        "names no remedy": not signature.harmless and not signature.remedy,
    }
    if objection := next((text for text, holds in objections.items() if holds), None):
        return objection
    return next((said for pattern in signature.patterns if (said := _objection_to_pattern(pattern))), None)


def _objection_to_pattern(pattern: str) -> str | None:
    try:
        compile_pattern(pattern)
        if not all(required_words(pattern)):
            return rf"has an alternative without a whole word in `{pattern}`; `\b` ends one"
    except (re.error, ValueError) as error:
        return f"has a pattern that cannot be used, `{pattern}`: {error}"
    return None


def signature_table() -> str:
    """Every signature as Markdown, for the documentation."""
    lines: list[str] = []
    for category in CATEGORIES:
        rows = [signature for signature in load() if signature.category == category]
        lines += ["", f"### {category} ({len(rows)})", "", "| id | what it is | what to do |", "| --- | --- | --- |"]
        lines += [
            f"| [`{row.id}`]({row.source}) | {_cell(row.cause)} | {_cell(' '.join(row.remedy)) or '-'} |"
            for row in rows
        ]
    return "\n".join(lines[1:]) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").strip()
