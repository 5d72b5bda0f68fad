"""Hiding what identifies a machine or opens a door, so that text from a host can be shown and shared."""

from __future__ import annotations

import re

HIDDEN = "***"
# What follows one of these words is a secret: `--api-key KEY`, `HF_TOKEN=…`, `"password": "…"`, `Bearer …`.
_NAMED = re.compile(
    r"(?P<name>(?:[\w.-]{0,40}(?:token|password|passwd|secret|api[_-]?key|access[_-]?key|private[_-]?key)"
    r"|bearer)[\"']?(?:\s{0,3}[=:]\s{0,3}|\s{1,3}))(?P<value>[\"']?[^\s\"',;&]{4,})",
    re.IGNORECASE,
)
# Secrets that are known by their own shape: Hugging Face, NGC (two kinds), GitHub, OpenAI-like, AWS, JSON web tokens.
_SHAPED = re.compile(
    r"\bhf_[A-Za-z0-9]{10,}|\bnvapi-[\w-]{10,}|\b[A-Za-z0-9]{80,}==|\bgh[pousr]_[A-Za-z0-9]{20,}|\bsk-[\w-]{16,}"
    r"|\bAKIA[A-Z0-9]{12,}|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{4,}"
)


def mask_secrets(text: str) -> str:
    """The text with tokens, keys and passwords replaced: `--api-key abcd1234` -> `--api-key ***`."""

    def hide(found: re.Match[str]) -> str:
        # `--api-key --port 8000` has no value.
        return found[0] if found["value"].startswith("--") else f"{found['name']}{HIDDEN}"

    return _SHAPED.sub(HIDDEN, _NAMED.sub(hide, text))
