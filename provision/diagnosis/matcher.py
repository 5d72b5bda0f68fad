"""Read a log once, in bounded memory, and say which failures it shows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import BinaryIO

from provision.diagnosis import topics, versions
from provision.diagnosis.clean import ANSI, clean
from provision.diagnosis.index import Index, Pattern
from provision.diagnosis.model import Diagnosis, Found, Line
from provision.diagnosis.signatures import Signature, load
from provision.diagnosis.stream import chunks, pieces
from provision.diagnosis.words import keys_of
from provision.secrets import mask

_KEPT_LINES = 3
_SHOWN = 400
_AFTER_LINES = 40
# Of the lines beside an alarmed one, how many are read, and how far.
_BESIDE_BEFORE, _BESIDE_AFTER = 8, 3
_LONGEST_BESIDE = 1000
# What is remembered as saying nothing: at most this many kinds of line, none longer than this.
_MOST_KINDS = 20_000
_LONGEST_KIND = 600
_MOST_NEW = 5_000
# A kind of line that had nothing new to say this often is not looked at again.
_PATIENCE = 1000


def diagnose(
    stream: BinaryIO | Iterable[bytes],
    *,
    pins: Mapping[str, str] | None = None,
    explain: bool = False,
    signatures: Iterable[Signature] | None = None,
) -> Diagnosis:
    """What the log in `stream` shows, the likeliest cause first.

    `pins` are the versions of the release it should have run with, by package. With `explain` the harmless lines
    that look alarming are listed too.
    """
    index, last = _indexes() if signatures is None else _indexes_of(tuple(signatures))
    reader = _Reader(index, last, explain=explain)
    for chunk in chunks(stream):
        reader.read(chunk)
    return reader.diagnosis(pins or {})


def diagnose_text(text: str, *, pins: Mapping[str, str] | None = None, explain: bool = False) -> Diagnosis:
    """`diagnose` for what is already at hand: the end of a failed command's output."""
    return diagnose([text.encode("utf-8", "surrogateescape")], pins=pins, explain=explain)


@lru_cache(maxsize=1)
def _indexes() -> tuple[Index, Index]:
    return _indexes_of((*load(), *versions.SIGNATURES, *topics.pointers()))


def _indexes_of(signatures: tuple[Signature, ...]) -> tuple[Index, Index]:
    """One for every line, and one for the last line alone."""
    return Index(row for row in signatures if not row.last), Index(row for row in signatures if row.last)


class _Reader:
    def __init__(self, index: Index, last: Index, *, explain: bool) -> None:
        self._index = index
        self._last = last
        self._explain = explain
        self._dull: set[bytes] = set()
        self._candidates: dict[bytes, list[Pattern]] = {}
        self._in_vain: dict[bytes, int] = {}
        self._found: dict[str, tuple[Signature, list[Line]]] = {}
        self._versions = versions.Versions()
        self._topics = topics.Topics()
        self._before: list[bytes] = []
        self._lines = 0
        self._bytes = 0
        self._continued = False

    def read(self, chunk: bytes) -> None:
        """Take in whole lines; only a line longer than a chunk comes in several."""
        self._bytes += len(chunk)
        text = _plain(chunk)
        keys = keys_of(text)
        fresh = list(set(keys) - self._dull)
        hot = self._hot(fresh) if fresh else {}
        lines = text.split(b"\n")
        for at, key in enumerate(keys) if hot else ():
            if key in hot:
                self._look(lines, at, *hot[key])
        self._before = (self._before + lines[-_AFTER_LINES - 1 :])[-_AFTER_LINES:]
        self._lines += len(lines) - 1
        self._continued = bool(lines[-1])

    def diagnosis(self, pins: Mapping[str, str]) -> Diagnosis:
        self._look_at_end()
        found = [Found(signature, tuple(lines)) for signature, lines in self._found.values()]
        failures = [item for item in found if not item.signature.harmless]
        failures += self._versions.mismatches(pins)
        return Diagnosis(
            findings=self._ranked(failures),
            harmless=tuple(item for item in found if item.signature.harmless),
            versions=self._versions.seen,
            lines_read=self._lines + self._continued,
            bytes_read=self._bytes,
        )

    def _ranked(self, failures: list[Found]) -> tuple[Found, ...]:
        """The likeliest first: where no signature knows the cause, what the words around the failure speak of."""
        ranked = _less_said_already(sorted(failures, key=lambda item: item.rank))
        if not ranked or topics.leaves_open(ranked[0].signature):
            told = self._topics.finding(ranked, self._lines + self._continued)
            if told and told.signature.category != (ranked[0].signature.category if ranked else None):
                ranked.insert(0, told)
        return tuple(ranked)

    def _hot(self, keys: list[bytes]) -> dict[bytes, tuple[bytes, list[Pattern]]]:
        """The keys that a pattern may match, with their kind; the others need not be looked up again."""
        hot = {}
        for key, kind in zip(keys, self._index.kinds(keys), strict=True):
            if kind not in self._candidates:
                self._candidates[kind] = self._wanted(kind)
            if self._candidates[kind]:
                hot[key] = kind, self._candidates[kind]
        if len(self._dull) > _MOST_KINDS:
            self._dull.clear()
        if len(self._candidates) > _MOST_KINDS:
            self._candidates.clear()
            self._in_vain.clear()
        if len(keys) < _MOST_NEW:  # more than that in a MiB are no kinds: they will not come again
            self._dull.update(key for key in keys if key not in hot and len(key) < _LONGEST_KIND)
        return hot

    def _wanted(self, kind: bytes) -> list[Pattern]:
        found = self._index.candidates(kind)
        wanted = any(self._explain or not p.signature.harmless or topics.points(p.signature) for p in found)
        return found if wanted else []

    def _look(self, lines: list[bytes], at: int, kind: bytes, candidates: list[Pattern]) -> None:
        if self._in_vain.get(kind, 0) > _PATIENCE:
            return
        line = lines[at].lower()
        if topics.is_quiet(lines[at]):
            # A remark is a finding only where a signature knows it.
            candidates = [pattern for pattern in candidates if not topics.leaves_open(pattern.signature)]
        candidates = [pattern for pattern in candidates if pattern.may_match(line)]
        number = self._lines + at + 1
        news = False
        for piece in pieces(lines[at], continued=self._continued and at == 0):
            text = clean(piece)
            harmless = [p for p in candidates if p.signature.harmless and p.search(text)]
            for pattern in harmless or candidates:
                match = pattern.search(text)
                if match is None or not self._in_place(pattern.signature, lines, at):
                    continue
                if topics.points(pattern.signature):
                    news |= self._point(pattern.signature, lines, at, text, match)
                else:
                    news |= self._keep(pattern.signature, number, text, match)
        if not news:
            # A line that says nothing new, again and again, whatever its numbers: an error that repeats for ever.
            self._in_vain[kind] = self._in_vain.get(kind, 0) + 1
            if self._in_vain[kind] > _PATIENCE:
                self._candidates[kind] = []

    def _look_at_end(self) -> None:
        """Say where the log ends, for what is only of interest if nothing comes after."""
        if line := next((line for line in reversed(self._before) if line.strip()), b""):
            text = clean(line)
            for pattern in self._last.candidates(keys_of(line)[0]):
                if match := pattern.search(text):
                    self._keep(pattern.signature, self._lines + self._continued, text, match)

    def _point(self, signature: Signature, lines: list[bytes], at: int, text: str, match: re.Match[str]) -> bool:
        """Note an alarmed line, with those around it."""
        if not self._topics.wants(signature, self._lines + at + 1):
            return False
        earlier = [*self._before, *lines[max(0, at - _BESIDE_BEFORE) : at]][-_BESIDE_BEFORE:]
        around = [*earlier, *lines[at + 1 : at + 1 + _BESIDE_AFTER]]
        beside = [clean(other[:_LONGEST_BESIDE]) for other in around if not topics.is_quiet(other)]
        return self._topics.add(signature, text, match.start(), Line(self._lines + at + 1, _shown(text, match)), beside)

    def _in_place(self, signature: Signature, lines: list[bytes], at: int) -> bool:
        if signature.after is None:
            return True
        earlier = [*self._before, *lines[max(0, at - _AFTER_LINES) : at]][-_AFTER_LINES:]
        context = "\n".join(clean(line) for line in earlier)
        return re.search(signature.after, context, re.IGNORECASE) is not None

    def _keep(self, signature: Signature, number: int, text: str, match: re.Match[str]) -> bool:
        """Take the line as an example, unless there are enough; whether it was taken."""
        if versions.names_version(signature):
            return self._versions.add(number, text)
        if signature.harmless and not self._explain:
            return False
        lines = self._found.setdefault(signature.id, (signature, []))[1]
        if len(lines) >= _KEPT_LINES or (lines and lines[-1].number == number):
            return False
        lines.append(Line(number, _shown(text, match)))
        return True


def _plain(chunk: bytes) -> bytes:
    """Without colours and NULs (UTF-16), and with the line ends inside a quoted message as spaces."""
    if b"\x1b" in chunk or b"#x1B" in chunk:
        chunk = ANSI.sub(b"", chunk)
    if b"\0" in chunk:
        chunk = chunk.replace(b"\0", b"")
    if b"\\n" in chunk:
        chunk = chunk.replace(b"\\n", b"  ")
    return chunk


def _shown(text: str, match: re.Match[str]) -> str:
    """The part of a line around what matched; masked before it is cut, so that no half of a secret is left."""
    before, found = mask(text[: match.start()]), mask(text)
    start = max(0, len(before) - _SHOWN // 4)
    end = start + _SHOWN
    return ("…" if start else "") + found[start:end] + ("…" if end < len(found) else "")


def _less_said_already(ranked: list[Found]) -> list[Found]:
    """Without the generic ones all of whose lines have a reason already: the same line would be told twice."""
    reasons = {line.number for found in ranked if found.signature.kind in {"cause", "symptom"} for line in found.lines}
    return [
        found
        for found in ranked
        if found.signature.kind in {"cause", "symptom"} or not {line.number for line in found.lines} <= reasons
    ]
