from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.diagnosis.signatures import load
from provision.diagnosis.words import compile_pattern, keys_of, required_runs, required_words

PATTERNS = [pattern for row in load() for pattern in row.patterns]


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("no kernel image", [{"no", "kernel"}]),
        (r"no kernel image\b", [{"no", "kernel", "image"}]),
        (r"(?:cuda|nccl) error \d+", [{"cuda", "error"}, {"error", "nccl"}]),
        ("profiles? provided by", [{"profile", "provided"}, {"profiles", "provided"}]),
        (r"sm_\d+a is not .{0,20} here\b", [{"a", "here", "is", "not", "sm"}]),
        (r"\bfp8\b", [{"fp"}]),
        ("[-_ ]a b", [{"a"}]),
        (r"x[abc]y z\b", [{"z"}]),
        ("(?!never)not now ", [{"now"}]),
    ],
)
def test_required_words(pattern: str, words: list[set[str]]) -> None:
    assert sorted(sorted(word.decode() for word in one) for one in required_words(pattern)) == sorted(
        map(sorted, words)
    )


def test_keys_are_words_without_digits() -> None:
    assert keys_of(b"[2026] Decode batch, #token: 12\nA_b-C9d\n") == [b"   decode batch   token  ", b"a b cd", b""]


def test_what_a_pattern_matches_holds_its_words() -> None:
    # The promise that the whole speed rests on, on every text that is at hand.
    texts = [re.sub(r"[\\^$?{}()\[\]|*+]|\.\{", " ", pattern) for pattern in PATTERNS]
    for pattern in PATTERNS:
        regex = compile_pattern(pattern)
        for text in texts:
            if regex.search(text):
                words = set(keys_of(text.encode())[0].split())
                assert any(one <= words for one in required_words(pattern)), (pattern, text)
                line = text.lower().encode()
                assert any(all(run in line for run in runs) for runs in required_runs(pattern)), (pattern, text)


@given(st.binary(max_size=500))
def test_keys_of_any_bytes(data: bytes) -> None:
    assert len(keys_of(data)) == data.count(b"\n") + 1


@pytest.mark.parametrize("pattern", PATTERNS)
def test_no_pattern_is_without_bounds(pattern: str) -> None:
    without_classes = re.sub(r"\[[^\]]*\]", "x", pattern)
    assert not re.search(r"(?<!\\)\.[*+]|\)[*+]", without_classes)
