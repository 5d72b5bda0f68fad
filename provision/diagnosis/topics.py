"""What a failure is about that no signature knows: the words in its lines, weighed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files

from msgspec import Struct, yaml

from provision.diagnosis.model import Found, Line
from provision.diagnosis.signatures import Category, Signature

_ALARM, _REMARK, _READY = "alarm", "remark", "ready"
# An alarming word further on in a line is one of a list of settings.
_WITHIN = 400
# A log of at most so many lines is an excerpt.
_EXCERPT = 60
_MOST_ALARMS = 40
_SHOWN_LINES = 3
_STRONG, _WEAK = 3, 1
# A word in a line beside an alarmed one, against the same word in it.
_BESIDE = 0.4
# What a signature of a category that knows only the field, or only the place in a traceback, counts.
_SIGNATURE = 3
_LEAST = 2
_LEVEL_WITHIN = 120
# The level that a logger gave its line: alarming words in such a line are a remark.
_QUIET = re.compile(
    rb"(?<!NCCL )(?<![=_\w])(?:INFO|DEBUG|WARN|WARNING|NOTICE|TRACE)\b|\blevel=\"?(?:info|debug|warn)"
    rb"|^\W{0,3}[IWD]\d{4} |^\w*[Ww]arning:"
)


class _Topic(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    category: Category
    cause: str
    remedy: tuple[str, ...]
    source: str
    strong: tuple[str, ...]
    weak: tuple[str, ...]


class _File(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    alarms: tuple[str, ...]
    remarks: tuple[str, ...]
    ready: tuple[str, ...]
    topics: tuple[_Topic, ...]


@lru_cache(maxsize=1)
def _load() -> _File:
    return yaml.decode((files(__package__) / "topics.yml").read_text(encoding="utf-8"), type=_File)


def pointers() -> tuple[Signature, ...]:
    """What the index looks for, so that it hands over the lines in which something may have gone wrong."""
    rows = _load()
    patterns = {_ALARM: rows.alarms, _REMARK: rows.remarks, _READY: rows.ready}
    return tuple(
        Signature(
            id=name,
            patterns=texts,
            cause="a pointer",
            source="",
            kind="generic",
            category="harmless" if name == _READY else "server-config",
        )
        for name, texts in patterns.items()
    )


def points(signature: Signature) -> bool:
    """Whether the signature is one of those that only point at lines."""
    return signature.id in {_ALARM, _REMARK, _READY}


def keeps_counting(signature: Signature) -> bool:
    """Whether the signature still matters when there are alarms enough."""
    return signature.id not in {_ALARM, _REMARK}


def leaves_open(signature: Signature) -> bool:
    """Whether a finding does not name a reason, so that the words around it may know better."""
    return signature.id != _READY and (
        signature.kind in {"generic", "wrapper"} or (signature.kind == "symptom" and signature.confidence == "low")
    )


def is_quiet(line: bytes) -> bool:
    """Whether a line, before it is cleaned, is of a level at which nothing has gone wrong."""
    return _QUIET.search(line[:_LEVEL_WITHIN]) is not None


@lru_cache(maxsize=1)
def _words() -> tuple[tuple[_Topic, re.Pattern[str], re.Pattern[str]], ...]:
    return tuple((topic, _any(topic.strong), _any(topic.weak)) for topic in _load().topics)


def _any(words: Iterable[str]) -> re.Pattern[str]:
    return re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(words)})(?![A-Za-z0-9])", re.IGNORECASE)


@dataclass
class Topics:
    """The first alarmed lines of a log, and what stood beside them."""

    alarms: list[tuple[str, Line]] = field(default_factory=list)
    remarks: list[tuple[str, Line]] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)

    @property
    def full(self) -> bool:
        return len(self.alarms) >= _MOST_ALARMS

    def wants(self, signature: Signature, number: int) -> bool:
        """Whether another line of this kind would be taken."""
        lines = self._list(signature)
        return signature.id == _READY or (
            len(lines) < _MOST_ALARMS and not any(line.number == number for _, line in lines[-1:])
        )

    def add(self, signature: Signature, text: str, at: int, line: Line, beside: Iterable[str]) -> bool:
        """Take what a pointer found at `at` in a line; whether it was taken."""
        if signature.id == _READY:
            self.alarms, self.remarks, self.beside = [], [], []
        elif at <= _WITHIN:
            self._list(signature).append((text, line))
            self.beside.extend(beside)
        return at <= _WITHIN

    def _list(self, signature: Signature) -> list[tuple[str, Line]]:
        return self.alarms if signature.id == _ALARM else self.remarks

    def finding(self, known: Iterable[Found], lines_read: int) -> Found | None:
        """What the failure is about, where the words of one category outweigh those of every other."""
        told = self.alarms + (self.remarks if lines_read <= _EXCERPT else [])
        told.sort(key=lambda item: item[1].number)
        failed = False
        scores = {topic.category: 0.0 for topic, *_ in _words()}
        for found in known:
            row = found.signature
            failed |= row.kind == "wrapper"
            if leaves_open(row) and (row.kind != "wrapper" or row.category != "server-config"):
                scores[row.category] += _SIGNATURE
        own: dict[str, set[str]] = {}
        for topic, strong, weak in _words():
            texts, around = [text for text, _ in told], self.beside
            for pattern, weight in ((strong, _STRONG), (weak, _WEAK)):
                alarmed = _found(pattern, texts)
                beside = _found(pattern, around) - alarmed
                scores[topic.category] += weight * (len(alarmed) + len(beside) * _BESIDE)
                own.setdefault(topic.category, set()).update(alarmed)
                # A word counts once: `nvidia driver` is no `driver` besides.
                texts, around = [pattern.sub(" ", text) for text in texts], [pattern.sub(" ", text) for text in around]
        (score, best), (second, _) = sorted(((score, name) for name, score in scores.items()), reverse=True)[:2]
        lines = [line for text, line in told if any(word in text.lower() for word in own[best])]
        if score < _LEAST or score <= second or not (lines or (told and failed)):
            return None
        topic = next(topic for topic, *_ in _words() if topic.category == best)
        return Found(_signature(topic), tuple((lines or [line for _, line in told])[:_SHOWN_LINES]))


def _found(pattern: re.Pattern[str], texts: Iterable[str]) -> set[str]:
    return {match.group().lower() for text in texts for match in pattern.finditer(text)}


def _signature(topic: _Topic) -> Signature:
    return Signature(
        id=f"topic-{topic.category}",
        patterns=topic.strong,
        cause=topic.cause,
        remedy=topic.remedy,
        source=topic.source,
        kind="generic",
        confidence="low",
        category=topic.category,
    )
