"""The words a line must hold before any regular expression is tried on it; that is what makes a gigabyte readable.

A log is a few hundred kinds of line, repeated with other numbers. Reduced to its lower-case words, without digits and
punctuation, each kind is one key: it is judged once, and every later line with that key costs a set lookup.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from itertools import product

# To lower-case letters, everything else a space; lines stay lines, digits are deleted.
_LOWER = range(ord("a"), ord("z") + 1)
_TABLE = bytes(
    byte if byte in _LOWER or byte == ord("\n") else byte + 32 if byte + 32 in _LOWER and byte < ord("a") else ord(" ")
    for byte in range(256)
)
_DIGITS = b"0123456789"
_ERROR = b"error"
# What may be a letter: a word beside it could be part of a longer one.
_UNKNOWN = "\0"
# Some digit: deleted like every digit, but nothing that could be looked for.
_DIGIT = "\1"
_DELETED = re.compile(r"[0-9\x01]")
# Without quotes and slashes, which are written in several ways.
_RUN = re.compile(r"[a-z0-9:=._-]{2,}")
_WORD = re.compile(r"(?<![a-z\0])[a-z]+(?![a-z\0])")
_TOKEN = re.compile(
    r"(?P<class>\\[wdsDSW]|\\x[0-9a-f]{2}|\[\^?\]?(?:\\.|[^\]\\])*\]|\.)"
    r"|(?P<edge>\\b|[\^$])|(?P<group>\((?:\?(?::|[=!]|<[=!]))?)|(?P<end>\))|(?P<or>\|)|\\(?P<escaped>.)|(?P<char>.)",
    re.DOTALL,
)
_OPTIONAL = re.compile(r"\*|\{0,\d*\}")
_REPEATED = re.compile(r"\+|\{\d+(?:,\d*)?\}")
# A class that stands for no letter and no digit, such as `[-_ ]`.
_NO_LETTERS = re.compile(r"\[(?!\^)[-_ .,:;'\"`/+=\\]+\]")
_DIGITS_ONLY = re.compile(r"\\d|\[[\d-]+\]")
_MOST_ALTERNATIVES = 256


def keys_of(lines: bytes) -> list[bytes]:
    """One key a line; in it `zmqerror` is `zmq` and `error`, whatever else the name of an error is."""
    return lines.translate(_TABLE, _DIGITS).replace(_ERROR, b" %b " % _ERROR).split(b"\n")


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A signature's pattern, without regard to case; it begins where a word does."""
    return re.compile(rf"(?<![A-Za-z0-9])(?:{pattern})", re.IGNORECASE)


@cache
def required_words(pattern: str) -> tuple[frozenset[bytes], ...]:
    r"""The whole words in every text that the pattern matches; one set for each of its alternatives.

    `no kernel image` needs `no` and `kernel`; `image` may be the beginning of a longer word, unless `\b` says that it
    is not. `(?:cuda|nccl) error \d` needs `cuda` and `error`, or `nccl` and `error`.
    """
    texts = {_DELETED.sub("", skeleton) for skeleton in _skeletons(pattern)}
    error = _ERROR.decode()
    return _sets(_WORD.findall(f" {text}{_UNKNOWN}".replace(error, f" {error} ")) for text in texts)


@cache
def required_runs(pattern: str) -> tuple[frozenset[bytes], ...]:
    """The runs of characters in every line that the pattern matches, cleaned or not: for `error 802` also `802`."""
    return _sets(_RUN.findall(skeleton) for skeleton in _skeletons(pattern))


def _sets(found: Iterable[list[str]]) -> tuple[frozenset[bytes], ...]:
    return tuple(sorted({frozenset(text.encode() for text in texts) for texts in found}, key=sorted))


@cache
def _skeletons(pattern: str) -> tuple[str, ...]:
    skeletons, at = _alternatives(pattern, 0)
    if at != len(pattern):
        raise ValueError("a parenthesis that closes nothing")
    return tuple(skeleton.lower() for skeleton in skeletons)


def _alternatives(pattern: str, at: int) -> tuple[list[str], int]:
    """The literal skeletons of what stands between `at` and the end of this group."""
    finished: list[str] = []
    current = [""]
    while at < len(pattern):
        token = _TOKEN.match(pattern, at)
        assert token is not None  # noqa: S101  # its last branch is any character
        if token["end"]:
            break
        at = token.end()
        if token["or"]:
            finished, current = finished + current, [""]
            continue
        pieces = [_piece(token)]
        if token["group"]:
            pieces, at = _alternatives(pattern, at)
            at += 1
            if "=" in token["group"] or "!" in token["group"]:
                pieces = [_UNKNOWN]
        if pattern[at : at + 1] == "?":
            at, pieces = at + 1, ["", *pieces]
        elif optional := _OPTIONAL.match(pattern, at):
            at, pieces = optional.end(), [_UNKNOWN if any(piece != _DIGIT for piece in pieces) else _DIGIT]
        elif repeated := _REPEATED.match(pattern, at):
            at, pieces = repeated.end(), [piece if piece == _DIGIT else piece + _UNKNOWN for piece in pieces]
        if len(current) * len(pieces) > _MOST_ALTERNATIVES:
            pieces = [_UNKNOWN]
        current = ["".join(pair) for pair in product(current, pieces)]
    return finished + current, at


def _piece(token: re.Match[str]) -> str:
    if kind := token["class"]:
        return _DIGIT if _DIGITS_ONLY.fullmatch(kind) else " " if _NO_LETTERS.fullmatch(kind) else _UNKNOWN
    return " " if token["edge"] else str(token["escaped"] or token["char"] or "")
