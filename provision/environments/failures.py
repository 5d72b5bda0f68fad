"""What uv's last words mean: which wheel is at fault, and what the user can do."""

from __future__ import annotations

import re
from dataclasses import dataclass

from provision.environments import indexes
from provision.errors import StepFailed
from provision.host import HostView
from provision.locks.lockfile import Lock
from provision.secrets import mask


@dataclass(frozen=True, kw_only=True)
class _Failure:
    """`pattern` finds it in uv's output, its group `what` is put into `text` and `hint`."""

    pattern: re.Pattern[str]
    text: str
    hint: str


_LOGIN = "give it a login that may read: in the index's address, `UV_INDEX_NAME_USERNAME` and `_PASSWORD`, or ~/.netrc"
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
        # `Failed to fetch: URL`, or `An index URL (URL) could not be queried`, then the status.
        pattern=re.compile(
            r"(?:Failed to fetch:\W+|index (?:URL )?\()(?P<what>https?:[^\s`)]+)"
            r"[\s\S]*\b(?:401 Unauthorized|403 Forbidden)"
        ),
        text="the index lets nobody in who has no right to it (401 or 403): `{what}`",
        hint=_LOGIN,
    ),
    _Failure(
        pattern=re.compile(r"Failed to fetch:\W+(?P<what>https?:[^\s`)]+)[\s\S]*\b407 Proxy Authentication"),
        text="the proxy wants a login (407), for `{what}`",
        hint="put it into its address: `HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT`",
    ),
    _Failure(
        pattern=re.compile(r"Failed to fetch:\W+(?P<what>https?:[^\s`)]+)[\s\S]*\b404 Not Found"),
        text="the index lists a file that it has not got (404): `{what}`",
        hint="a mirror may hold a part only: set another with `UV_DEFAULT_INDEX`",
    ),
    _Failure(
        pattern=re.compile(r"Failed to fetch:\W+(?P<what>https?:[^\s`)]+)[\s\S]*\b(?:5\d\d [A-Z]\w+|429 Too Many)"),
        text="the index is in trouble itself: `{what}`",
        hint="run the command again later, or set a mirror with `UV_DEFAULT_INDEX`",
    ),
    _Failure(
        # The first four bytes, the last of them first: `<htm`, `<!DO`.
        pattern=re.compile(
            r"Failed to extract archive: (?P<what>\S+\.whl)[\s\S]*unexpected header \(actual: 0x[0-9a-f]{6}3c"
        ),
        text="a web page came in the place of the wheel `{what}`",
        hint="something between here and the index answers for it, such as a network's login page or a proxy: open the "
        "index in a browser, log in, and run the command again",
    ),
    _Failure(
        pattern=re.compile(
            r"Failed to (?:extract archive|unzip[^:]*|read[^:]*wheel[^:]*): (?P<what>\S+\.whl)(?![\s\S]*timeout)"
        ),
        text="the wheel `{what}` is damaged or was cut short",
        hint="run the command again; if it stays, the index or mirror holds a damaged copy of this file",
    ),
    _Failure(
        pattern=re.compile(
            r"Failed to (?:download|fetch)[^`]*`(?P<what>[^`]+)`[\s\S]*(?:timed out|timeout|connection closed)"
        ),
        text="the download of `{what}` broke off",
        hint="run the command again: what is complete is kept (`UV_HTTP_TIMEOUT` gives slow lines more time)",
    ),
    _Failure(
        pattern=re.compile(
            r"certificate[^\n]*expired|peer certificate: (?:Expired|NotValidYet)|not valid (?:after|before)",
            re.IGNORECASE,
        ),
        text="the index's certificate has expired, or is not valid yet",
        hint="see that this machine's clock is right (`date`); if it is, the index has to renew it: set another with "
        "`UV_DEFAULT_INDEX` meanwhile",
    ),
    _Failure(
        pattern=re.compile(r"invalid peer certificate|UnknownIssuer|certificate verify failed", re.IGNORECASE),
        text="the index's certificate is not trusted",
        hint="behind an intercepting proxy: `SSL_CERT_FILE=/path/to/ca.pem`, or `UV_SYSTEM_CERTS=1`",
    ),
    _Failure(
        pattern=re.compile(r"invalid value '(?P<what>[^']*)' for '--(?:default-|extra-)?index[^\n]*"),
        text="`{what}` is not the address of an index",
        hint="correct `UV_DEFAULT_INDEX`, `UV_INDEX` or `UV_INDEX_URL`: `https://HOST/simple`",
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
_NO_ADDRESS, _OUT_OF_REACH, _NOT_LISTED = _FAILURES[-3:]


def explain(output: str, lock: Lock, view: HostView) -> StepFailed:
    """The error for a failed install of `lock`, with the end of uv's output under it."""
    output = mask(output)
    tail = "\n".join(f"  {line.strip()}" for line in output.splitlines()[1:] if line.strip())
    for failure in _FAILURES:
        if matched := failure.pattern.search(output):
            what = matched.groupdict().get("what") or ""
            text, hint = _closer(failure, what, view) or (failure.text.format(what=what), failure.hint)
            return StepFailed(f"{text}\n{tail}\n`{lock.name}` is not installed; nothing was switched", hint=hint)
    return StepFailed(f"`{lock.name}` could not be installed; nothing was switched:\n{tail}")


def _closer(failure: _Failure, what: str, view: HostView) -> tuple[str, str] | None:
    """What uv does not say: that a proxy is silent, an address is none, or something else answers for the index."""
    if failure is _OUT_OF_REACH and (proxy := indexes.proxy_for(view, what)):
        variable, value = proxy
        return (
            f"the proxy `{value}` does not answer, which `{variable}` names for `{what}`",
            f"start it, correct `{variable}`, or do without: `unset {variable}`; `NO_PROXY` names hosts that need none",
        )
    if failure in {_NO_ADDRESS, _NOT_LISTED} and (wrong := indexes.malformed(view)):
        variable, value = wrong
        return f"`{variable}` is not the address of an index: `{value}`", f"correct `{variable}`: `https://HOST/simple`"
    if failure is not _NOT_LISTED:
        return None
    page = indexes.page_of(view, what.partition("==")[0])
    if page and (found := indexes.answers_as_something_else(page)):
        return (
            f"something else answers for the index: `{mask(page)}` is {found}",
            "a network's login page or a proxy, mostly: open it in a browser, log in, and run the command again",
        )
    return None
