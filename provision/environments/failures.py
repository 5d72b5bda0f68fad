"""What uv's last words mean: which wheel is at fault, and what the user can do."""

from __future__ import annotations

import re
from dataclasses import dataclass

from provision.errors import StepFailed
from provision.locks.lockfile import Lock
from provision.secrets import mask


@dataclass(frozen=True, kw_only=True)
class _Failure:
    """`pattern` finds it in uv's output, its group `what` is put into `text` and `hint`."""

    pattern: re.Pattern[str]
    text: str
    hint: str


_FAILURES = (
    _Failure(
        pattern=re.compile(r"Hash mismatch for `(?P<what>[^`]+)`"),
        text="the wheel of `{what}` is not the one that was locked: its sha256 differs",
        hint="the index or mirror serves another file under this name; use one that serves the original",
    ),
    _Failure(
        pattern=re.compile(r"No space left on device|Disk quota exceeded"),
        text="the disk is full",
        hint="free space, or put uv's cache and the prefix elsewhere (`UV_CACHE_DIR`, `--prefix`)",
    ),
    _Failure(
        pattern=re.compile(r"Failed to (?:extract archive|unzip[^:]*|read[^:]*wheel[^:]*): (?P<what>\S+\.whl)"),
        text="the wheel `{what}` is damaged or was cut short",
        hint="run the command again; if it stays, the index or mirror holds a damaged copy of this file",
    ),
    _Failure(
        pattern=re.compile(r"Failed to (?:download|fetch)[^`]*`(?P<what>[^`]+)`[\s\S]*(?:timed out|connection closed)"),
        text="the download of `{what}` broke off",
        hint="run the command again: what is complete is kept (`UV_HTTP_TIMEOUT` gives slow lines more time)",
    ),
    _Failure(
        pattern=re.compile(r"invalid peer certificate|UnknownIssuer|certificate verify failed", re.IGNORECASE),
        text="the index's certificate is not trusted",
        hint="behind an intercepting proxy: `SSL_CERT_FILE=/path/to/ca.pem`, or `UV_SYSTEM_CERTS=1`",
    ),
    _Failure(
        pattern=re.compile(
            r"Failed to fetch: `?(?P<what>[^\s`]+)[\s\S]*"
            r"(?:dns error|Connection refused|[Cc]onnect|timed out|unreachable)"
        ),
        text="the package index is out of reach: `{what}`",
        hint="set a mirror (`UV_DEFAULT_INDEX`) or a proxy (`HTTPS_PROXY`)",
    ),
    _Failure(
        pattern=re.compile(r"Because (?:there is no version of )?(?P<what>[\w.-]+(?:==\S+)?)"),
        text="the index has no wheel that fits `{what}`",
        hint="a mirror may lag behind or hold a part only: set another with `UV_DEFAULT_INDEX`",
    ),
)


def explain(output: str, lock: Lock) -> StepFailed:
    """The error for a failed install of `lock`, with the end of uv's output under it."""
    output = mask(output)
    tail = "\n".join(f"  {line.strip()}" for line in output.splitlines()[1:] if line.strip())
    for failure in _FAILURES:
        if matched := failure.pattern.search(output):
            what = matched.groupdict().get("what") or ""
            return StepFailed(
                f"{failure.text.format(what=what)}\n{tail}\n`{lock.name}` is not installed; nothing was switched",
                hint=failure.hint,
            )
    return StepFailed(f"`{lock.name}` could not be installed; nothing was switched:\n{tail}")
