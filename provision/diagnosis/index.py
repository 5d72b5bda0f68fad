"""Which signatures could fire on a line, told from its words alone."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from provision.diagnosis.signatures import Signature
from provision.diagnosis.words import compile_pattern, required_runs, required_words

# Words of everyday lines: a pattern is looked up by one of these only where it has no other.
_EVERYDAY = frozenset(
    b"a an and are as at batch be but by config cuda device error failed file for from gpu has in info is it line load"
    b" loading main memory model no not of on or out py python queue req rank running server set sglang size than that"
    b" the this to token torch type use used using usage version warning was with you your".split()
)

_MANY_RUNS = 24


@dataclass(frozen=True, eq=False, kw_only=True)
class Pattern:
    """One compiled pattern of a signature, and the words without one set of which it cannot match."""

    signature: Signature
    regex: re.Pattern[str]
    unless: re.Pattern[str] | None
    words: tuple[frozenset[bytes], ...]
    runs: tuple[frozenset[bytes], ...]
    # What all of `runs` have in common; asked first, because it nearly always says no.
    always: tuple[bytes, ...]

    def may_match(self, line: bytes) -> bool:
        """Whether a lower-case line, before it is cleaned, holds what no match can be without."""
        for run in self.always:
            if run not in line:
                return False
        # To ask for very many takes longer than to try the pattern.
        return len(self.runs) > _MANY_RUNS or any(all(run in line for run in runs) for runs in self.runs)

    def search(self, text: str) -> re.Match[str] | None:
        """Where it matches a cleaned line."""
        match = self.regex.search(text)
        return None if match is None or (self.unless and self.unless.search(text)) else match


class Index:
    """The patterns of signatures, found by the rarest of their words."""

    def __init__(self, signatures: Iterable[Signature]) -> None:
        patterns = [_pattern(signature, text) for signature in signatures for text in signature.patterns]
        usual = Counter(word for pattern in patterns for words in pattern.words for word in words)
        self._by_word: dict[bytes, list[tuple[frozenset[bytes], Pattern]]] = defaultdict(list)
        for pattern in patterns:
            for words in pattern.words:
                rarest = min(words, key=lambda word: (word in _EVERYDAY, usual[word] > 3, -len(word), word))  # noqa: PLR2004
                self._by_word[rarest].append((words, pattern))
        known = frozenset[bytes]().union(*(words for pattern in patterns for words in pattern.words))
        self._known = {word: word for word in (*known, b"\n")}

    def kinds(self, keys: list[bytes]) -> list[bytes]:
        """The keys without the words that no pattern asks for: a request's id, a prompt, a path."""
        words = b" \n ".join(keys).split(b" ")
        return b" ".join(filter(None, map(self._known.get, words))).split(b"\n")

    def candidates(self, kind: bytes) -> list[Pattern]:
        """The patterns all of whose words are in the key."""
        words = set(kind.split())
        found = (p for word in sorted(words & self._by_word.keys()) for need, p in self._by_word[word] if need <= words)
        return list(dict.fromkeys(found))


def _pattern(signature: Signature, text: str) -> Pattern:
    words, runs = required_words(text), required_runs(text)
    known = frozenset[bytes]().union(*words)
    return Pattern(
        signature=signature,
        regex=compile_pattern(text),
        unless=re.compile(signature.unless, re.IGNORECASE) if signature.unless else None,
        words=words,
        runs=runs,
        always=tuple(frozenset.intersection(*runs) - known),
    )
