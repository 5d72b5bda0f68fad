"""What may reach a person: text in which nothing is obeyed by a terminal, and no credential stands.

Hosts, servers, logs, GPUs, bundles and indexes name and say what they like. Whatever of that is shown goes through
`printable` (or `readable`, which masks as well); what programs read goes through `json_text`, which keeps it as data.
"""

from __future__ import annotations

import json
import re
from typing import Any

from provision.secrets import mask

# Whole sequences, so that no `[31m` stays behind: colours and cursors, titles and links, and the two-letter ones. One
# that is not ended within its line is no sequence: it would take the rest of the line along.
_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]{0,64}[ -/]{0,8}[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]{0,512}(?:\x07|\x1b\\|\x9c)"
    r"|\x1b(?:[ -/]{1,8}[0-~]|[78=>cDEHMNOZ])"
)
# Signs that are not shown and change what is: C0 and C1 but line ends and tabs, marks of direction, and everything that
# Unicode has readers ignore (https://www.unicode.org/reports/tr44/#Default_Ignorable_Code_Point) or format with.
_INVISIBLE = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_HIDDEN = re.compile(f"[{_INVISIBLE}]")
# Bytes that were no text when they came in as a name or an argument.
_SURROGATE = re.compile("[\ud800-\udfff]")
_REPLACEMENT = "\ufffd"
# Signs of ours for a terminal that has no others than ASCII's.
_ASCII = str.maketrans({"✓": "+", "✗": "x", "·": "-", "→": "->", "…": "...", "━": "="})


def printable(text: str) -> str:
    """The text without anything that a terminal would obey or not show; lines and tabs stay.

    A carriage return ends a line: what stands behind it must not be written over what stands before.
    """
    if text.isascii() and text.isprintable():
        return text
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _SURROGATE.sub(_REPLACEMENT, _HIDDEN.sub("", _SEQUENCE.sub("", text)))


def readable(text: str) -> str:
    """What people see of a text; masked last, since a credential may come with signs in between that are not shown."""
    return mask(printable(text))


def sayable(text: str, encoding: str) -> str:
    """The text in signs that an encoding has; ours have stand-ins, so that a success does not look like a failure."""
    try:
        text.encode(encoding)
    except LookupError:
        return text.translate(_ASCII).encode("ascii", "replace").decode()
    except UnicodeEncodeError:
        return text.translate(_ASCII).encode(encoding, "replace").decode(encoding)
    return text


def json_text(value: dict[str, Any], encoding: str) -> str:
    """One object for programs: every text is there as it came, but with credentials masked.

    What a terminal would obey is escaped, and everything that `encoding` has no sign for.
    """
    plain = masked(value)
    text = _HIDDEN.sub(_escape, json.dumps(plain, indent=2, ensure_ascii=False))
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return json.dumps(plain, indent=2)
    return text


def masked(value: Any) -> Any:
    """Plain data with every credential masked, also where flag and value are neighbours in a list of arguments."""
    if isinstance(value, str):
        return _masked_text(value)
    if isinstance(value, dict):
        return {_masked_text(str(key)): _masked_under(str(key), one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return masked_arguments([masked(one) for one in value])
    return value


def masked_arguments(arguments: list[Any]) -> list[Any]:
    """`--api-key` followed by its value: the value is a credential whatever its shape."""
    found = list(arguments)
    for index in range(1, len(found)):
        flag, text = found[index - 1], found[index]
        if isinstance(flag, str) and isinstance(text, str) and flag.startswith("--"):
            found[index] = mask(f"{flag} {text}").removeprefix(f"{flag} ")
    return found


def _masked_under(key: str, value: Any) -> Any:
    """A variable's value is a credential by the variable's name."""
    if isinstance(value, str) and key.isupper():
        return mask(f"{key}={_masked_text(value)}").removeprefix(f"{key}=")
    return masked(value)


def _masked_text(text: str) -> str:
    """The text as it is, unless there is a credential in what people would see of it."""
    text = _SURROGATE.sub(_REPLACEMENT, text)
    seen = printable(text)
    hidden = mask(seen)
    return hidden if seen == text or hidden != seen else mask(text)


def _escape(found: re.Match[str]) -> str:
    # As JSON writes it: a pair of surrogates where one unit of sixteen bits is too small.
    return json.dumps(found[0])[1:-1]
