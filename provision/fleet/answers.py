"""What a host says, decoded. A host may be anybody's by now: nothing of an answer is used before its shape, its size
and each value that matters are known, and none of it ever becomes a template, a path or a command on the controller.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from provision.output import readable
from provision.report import Severity, Status

ARCHITECTURES = ("x86_64", "aarch64")
# A doctor's report of a large machine has some 200 findings and 100 kB.
_MOST_VALUES = 50_000
_MOST_CHARACTERS = 4_000_000
_DEEPEST = 24
_LARGEST = 1 << 62

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}\Z")]
Line = Annotated[str, Meta(max_length=1000)]
Text = Annotated[str, Meta(max_length=100_000)]
# A folder of its own, written as the shell, a regular expression's replacement and a template leave it.
Home = Annotated[str, Meta(pattern=r"^/[^\\{}'\"`$<>|;&*?#!\x00-\x1f]{0,254}\Z")]
# Nothing, or what `_installed` of the module finds.
Tool = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._+-]{0,128}\Z")]


class BadAnswer(Exception):
    """What a host said is not what sgprov says."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a host has, before anything is changed."""

    arch: Literal["x86_64", "aarch64"]
    home: Home
    tool: Tool
    needs_tool: bool
    running: bool


class Machine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What it is, in a few words."""

    arch: Name | None = None
    os: Line | None = None
    glibc: Line | None = None
    driver: Line | None = None
    gpus: Annotated[list[Line | None], Meta(max_length=256)] | None = None


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of its report."""

    step: Name
    status: Status


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One finding of its report."""

    check: Line
    severity: Severity
    text: Text


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """One of its servers."""

    name: Line
    health: Line
    url: Line | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What is used of sgprov's own object; `whole` is all of it, as plain data."""

    changed: bool = False
    dry_run: bool = False
    stack: Name | None = None
    lock: Name | None = None
    python: Name | None = None
    endpoint: Line | None = None
    verdict: Name | None = None
    machine: Machine | None = None
    steps: Annotated[list[Step], Meta(max_length=500)] = []
    findings: Annotated[list[Finding], Meta(max_length=5000)] = []
    servers: Annotated[list[Server], Meta(max_length=1000)] | None = None
    whole: dict[str, Any] = {}


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the module returned. A failed one may have less to say than how it ended."""

    finished: bool
    rc: Annotated[int, Meta(ge=0, le=255)]
    progress: Line | None = None
    report: Report | None = None
    machine: Machine | None = None
    asked: Asked | None = None


def answer(result: Mapping[str, Any]) -> Answer:
    """The result of our module. Raises `BadAnswer`, whose text is fit to be shown."""
    said = _plain(dict(result), [_MOST_VALUES, _MOST_CHARACTERS])
    asked = {name: said[name] for name in Asked.__struct_fields__ if name in said} if "needs_tool" in said else None
    if asked and (arch := asked.get("arch")) not in ARCHITECTURES:
        raise BadAnswer(f"its CPU is `{text(arch, 40)}`, and sgprov is made for {' and '.join(ARCHITECTURES)}")
    known = {name: said[name] for name in ("finished", "rc", "progress", "machine") if said.get(name) is not None}
    # A host without sgprov has no report, and says so with an empty one.
    given = None if said.get("report") == {} else said.get("report")
    try:
        return msgspec.convert({**known, "asked": asked, "report": _with_whole(given)}, Answer)
    except msgspec.ValidationError as error:
        raise BadAnswer(f"its answer is not one of sgprov's: {_place(error)}") from error


def report(value: Mapping[str, Any]) -> Report:
    """Sgprov's object as a report. Raises `BadAnswer`."""
    try:
        return msgspec.convert(_with_whole(_plain(dict(value), [_MOST_VALUES, _MOST_CHARACTERS])), Report)
    except msgspec.ValidationError as error:
        raise BadAnswer(f"its report is not one of sgprov's: {_place(error)}") from error


def text(value: object, limit: int) -> str:
    """Any value as a text that may be shown, no longer than `limit`."""
    # Cut first: masking costs time for every character.
    return readable(str(value)[: 4 * limit])[:limit]


def _with_whole(said: Any) -> Any:
    return {**said, "whole": said} if isinstance(said, dict) else said


def _plain(value: Any, left: list[int], depth: int = 0) -> Any:
    """Plain data of bounded size: `left` counts down the values and the characters."""
    left[0] -= 1
    if depth > _DEEPEST or left[0] < 0 or left[1] < 0:
        raise BadAnswer("its answer is too large or too deep to be one of sgprov's")
    if isinstance(value, str):
        left[1] -= len(value)
        # Halves of signs, which JSON can hold and nothing can write.
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {_plain(str(key), left, depth + 1): _plain(one, left, depth + 1) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one, left, depth + 1) for one in value]
    if (isinstance(value, float) and not math.isfinite(value)) or (isinstance(value, int) and abs(value) > _LARGEST):
        raise BadAnswer("its answer holds a number that no report has")
    return value


def _place(error: msgspec.ValidationError) -> str:
    """Where in an answer there is not what can be there, without what is."""
    if missing := re.search(r"required field `(\w+)`", str(error)):
        return f"`{missing[1]}` is missing"
    place = re.search(r"`\$\.([\w.\[\]]+)`", str(error))
    return f"`{place[1]}` cannot be what it says there" if place else "it is of another kind"
