"""The one way in which sgprov itself speaks HTTP: bounded in time and bytes as a whole, and careful with keys.

The timeouts of `requests` begin anew with every byte. Here the socket itself has a budget: names, connections, TLS,
headers, chunks and bodies are all paid from it, and a server that drips is as silent as one that says nothing. No
answer is unpacked: we ask for none that is compressed, and refuse one. Nothing comes from `~/.netrc` unless the caller
asks for it, and a key goes only where it is read by nobody in between, and never along with a redirect.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin, urlsplit

from provision.errors import UsageError
from provision.host.addresses import is_loopback, may_carry_key, split
from provision.http_client.budget import Budget, Limits, TooMuch
from provision.http_client.connections import session as bounded_session
from provision.secrets import mask

if TYPE_CHECKING:
    import requests

CONNECT_TIMEOUT_S = 5.0
_BLOCK_BYTES = 64 * 1024
_LONGEST_REASON = 200
_REDIRECTS = {301, 302, 303, 307, 308}
# What the text of a failed connection means to people; the first sign that it holds.
_REASONS = (
    ("Name or service not known", "has a name that does not resolve"),
    ("nodename nor servname", "has a name that does not resolve"),
    ("No address associated", "has a name that does not resolve"),
    ("Temporary failure in name resolution", "has a name that does not resolve: there is no name server"),
    ("NameResolutionError", "has a name that does not resolve"),
    ("ProxyError", "is behind a proxy that lets nothing through"),
    ("Tunnel connection failed", "is behind a proxy that lets nothing through"),
    ("Connection refused", "refused the connection: nothing listens there"),
    ("No route to host", "cannot be reached: no route"),
    ("Network is unreachable", "cannot be reached: no network"),
    ("certificate has expired", "shows a certificate that has expired"),
    ("CERTIFICATE_VERIFY_FAILED", "shows a certificate that is not trusted here"),
    ("WRONG_VERSION_NUMBER", "does not speak TLS"),
    ("RECORD_LAYER_FAILURE", "does not speak TLS"),
)


class NoAnswer(Exception):
    """Nobody answered, or not in time (`timed_out`). `reason` is the message less the address."""

    def __init__(self, message: str, *, timed_out: bool = False, reason: str | None = None) -> None:
        super().__init__(message)
        self.timed_out = timed_out
        self.reason = reason or message

    @classmethod
    def of(cls, url: str, reason: str, *, timed_out: bool = False) -> NoAnswer:
        return cls(f"`{mask(url)}` {reason}", timed_out=timed_out, reason=reason)


__all__ = ["Authorization", "Limits", "NoAnswer", "Reply", "as_json", "asking", "check_may_carry_key"]


@dataclass(frozen=True, kw_only=True)
class Authorization:
    """What stands in the header of that name; in no `repr`, and so in no traceback."""

    header: str = field(repr=False)

    @classmethod
    def bearer(cls, token: str) -> Authorization:
        return cls(header=f"Bearer {token}")

    @classmethod
    def basic(cls, user: str, password: str) -> Authorization:
        import base64  # noqa: PLC0415  # few questions need it

        return cls(header="Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())


class Reply:
    """An answer that has begun: `status` and `headers` are here; the body comes when asked for, within the limits."""

    def __init__(self, response: requests.Response, budget: Budget, url: str) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._response, self._budget, self._url = response, budget, url

    @property
    def seconds(self) -> float:
        """Since the question."""
        return self._budget.seconds

    def blocks(self, size: int = _BLOCK_BYTES, *, packed: bool = False) -> Iterator[bytes]:
        """The body as it comes; raises `NoAnswer` at the end of the limits. `packed` takes it as it is, compressed."""
        encoding = self.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in {"", "identity"} and not packed:
            raise NoAnswer.of(self._url, f"sends `{encoding[:20]}`, which was not asked for")
        with _explaining(self._url, self._budget):
            yield from self._response.raw.stream(size, decode_content=False)

    def body(self) -> bytes:
        return b"".join(self.blocks())

    def lines(self) -> Iterator[bytes]:
        """The lines of the body, each as soon as it is whole."""
        pending = bytearray()
        for byte in self.blocks(1):
            if byte == b"\n":
                yield bytes(pending).rstrip(b"\r")
                pending.clear()
            else:
                pending += byte
        if pending:
            yield bytes(pending)


@contextmanager
def asking(
    method: str,
    url: str,
    *,
    limits: Limits,
    authorization: Authorization | None = None,
    document: Mapping[str, Any] | None = None,
    parameters: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    certificates: str | None = None,
    redirects: int = 0,
    insecure: bool = False,
    this_machine: bool = False,
) -> Iterator[Reply]:
    """Ask one question. Raises `NoAnswer`, and `UsageError` for a key that would go over the network in the clear.

    `redirects` is how many are followed: without the authorization wherever they lead to another origin, and never
    from TLS to none. No proxy is used for this machine's own addresses; `this_machine` says that `url` is one though it
    is no loopback (that of a server of ours), and that a key for it does not leave the machine.
    """
    budget = Budget(limits)
    with ExitStack() as stack:
        with _explaining(url, budget):
            session = stack.enter_context(bounded_session(budget))
            authorization = authorization or _in_address(url)
            given = {"Accept-Encoding": "identity", **(headers or {})}
            while True:
                if split(url) is None:
                    raise NoAnswer.of(url, "is not an address")
                if authorization and not (insecure or this_machine):
                    check_may_carry_key(url)
                session.auth, session.trust_env = _Login(authorization), not (this_machine or is_loopback(url))
                response = session.request(
                    method,
                    url,
                    json=document,
                    params=parameters,
                    headers=given,
                    timeout=(min(CONNECT_TIMEOUT_S, budget.remaining()), budget.remaining()),
                    verify=certificates,
                    stream=True,
                    allow_redirects=False,
                )
                stack.callback(response.close)
                there = _redirected(response, url) if redirects else None
                if there is None:
                    break
                if _origin(there) != _origin(url):
                    authorization = None
                    this_machine = False
                url, parameters, redirects = there, None, redirects - 1
        yield Reply(response, budget, url)


def check_may_carry_key(url: str) -> None:
    """Raise `UsageError` where a key that goes to that address could be read in between."""
    if not may_carry_key(url):
        raise UsageError(
            f"a key for `{mask(url)}` would go over the network without encryption",
            hint="use its `https://` address, or a tunnel (`ssh -L`); `--insecure` sends it nevertheless",
        )


def as_json(raw: bytes) -> Any:
    """What a body holds as JSON; None where it is none, or more deeply nested than anyone means."""
    try:
        return json.loads(raw.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError):
        return None


@dataclass(frozen=True)
class _Login:
    """Given even when empty: else `requests` takes a login from ~/.netrc, which would win over a key."""

    authorization: Authorization | None

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self.authorization:
            request.headers["Authorization"] = self.authorization.header
        return request


def _in_address(url: str) -> Authorization | None:
    """The login that stands in an address."""
    user, colon, password = urlsplit(url).netloc.rpartition("@")[0].partition(":")
    return Authorization.basic(unquote(user), unquote(password)) if user or colon else None


def _redirected(response: requests.Response, url: str) -> str | None:
    place = response.headers.get("Location")
    if response.status_code not in _REDIRECTS or not place:
        return None
    there = urljoin(url, place)
    scheme = urlsplit(there).scheme
    if scheme not in {"http", "https"} or (urlsplit(url).scheme == "https" and scheme == "http"):
        raise NoAnswer.of(url, "redirects to an address without encryption")
    return there


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


@contextmanager
def _explaining(url: str, budget: Budget) -> Iterator[None]:
    """Turns whatever the libraries raise into `NoAnswer`."""
    import requests  # noqa: PLC0415  # as above
    import urllib3  # noqa: PLC0415

    try:
        yield
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise _explained(url, error, budget) from None


def _explained(url: str, error: Exception, budget: Budget) -> NoAnswer:
    """What happened, for people; no message holds what was sent."""
    causes = list(_causes(error))
    if any(isinstance(one, TooMuch) for one in causes):
        return NoAnswer.of(url, "did not come to the end of its answer: it is too long")
    text = " ".join(str(one) for one in causes)
    if budget.stalled:
        return NoAnswer.of(url, budget.stalled, timed_out=True)
    if budget.over or any(isinstance(one, TimeoutError) for one in causes) or "timed out" in text:
        return NoAnswer.of(url, f"gave no answer in {budget.seconds:.0f} s", timed_out=True)
    reason = next((words for sign, words in _REASONS if sign in text), None)
    return NoAnswer.of(url, reason or f"broke the connection off: {mask(str(error))[:_LONGEST_REASON]}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, what is in it and what it comes from."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        inside = [each for each in (*one.args, getattr(one, "reason", None)) if isinstance(each, BaseException)]
        waiting += [*inside, one.__cause__, one.__context__]
