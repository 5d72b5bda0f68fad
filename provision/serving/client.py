"""Ask a server over HTTP, with every way that can go wrong told apart."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from provision.errors import UsageError
from provision.host.addresses import is_loopback
from provision.secrets import mask

if TYPE_CHECKING:
    import requests

CONNECT_TIMEOUT_S = 5.0
_SHOWN = 200
_MOST_BYTES = 8 * 1024 * 1024


class NoAnswer(Exception):
    """The server could not be asked, or did not answer in time. `timed_out` tells the two apart."""

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back. `body` is the parsed JSON, None where it was none; `seconds` from the request to its end."""

    status: int
    text: str
    body: Any
    seconds: float
    content_type: str = ""

    @property
    def ok(self) -> bool:
        return self.status == 200  # noqa: PLR2004

    @property
    def said(self) -> str:
        """The status and the server's own words, short, without credentials: for a message."""
        message = self.body
        for key in ("error", "message", "detail"):
            if isinstance(message, dict) and message.get(key):
                message = message[key]
        words = " ".join((message if isinstance(message, str) else self.text).split())
        return f"{self.status}" + (f": {mask(words)[:_SHOWN]}" if words else "")


# A key, or what gives it out for one request: that raises `NoAnswer` where whoever would get it is not to have it.
Key = str | Callable[[], str] | None


def _login(key: Key) -> Callable[[requests.PreparedRequest], requests.PreparedRequest]:
    """Sends the key. Given even without one: else `requests` takes a login from ~/.netrc, and it would win."""

    def authorize(request: requests.PreparedRequest) -> requests.PreparedRequest:
        if key:
            request.headers["Authorization"] = f"Bearer {key() if callable(key) else key}"
        return request

    return authorize


class Client:
    """One server. `url` is as `base_url` makes it; no proxy is used for this machine's own addresses."""

    def __init__(self, url: str, *, api_key: Key = None, timeout_s: float = 60.0) -> None:
        import requests  # noqa: PLC0415  # 70 ms that a run with nothing to ask does not pay

        self.url = url
        self._timeout_s = timeout_s
        self._session = requests.Session()
        self._session.trust_env = not is_loopback(url)
        self._session.auth = _login(api_key)

    def get(self, path: str) -> Answer:
        with self._request("GET", path, None) as (response, start):
            return self._answer(response, start)

    def post(self, path: str, document: dict[str, Any]) -> Answer:
        with self._request("POST", path, document) as (response, start):
            return self._answer(response, start)

    @contextmanager
    def events(
        self, path: str, document: dict[str, Any]
    ) -> Iterator[tuple[Answer | None, Iterator[tuple[float, str]]]]:
        """Server-sent events as (seconds since the request, data); the answer instead where it was no such stream."""
        with self._request("POST", path, document) as (response, start):
            if response.status_code == 200 and "event-stream" in response.headers.get("Content-Type", ""):  # noqa: PLR2004
                yield None, self._data(response, start)
            else:
                yield self._answer(response, start), iter(())

    def _answer(self, response: requests.Response, start: float) -> Answer:
        # Read bit by bit: the limit of `requests` starts anew with every byte, and a dripping server would hold us.
        raw = b""
        for chunk in response.iter_content(chunk_size=64 * 1024):
            raw += chunk
            if time.monotonic() - start > self._timeout_s or len(raw) > _MOST_BYTES:
                raise NoAnswer(f"`{shown(response.url)}` did not come to the end of its answer", timed_out=True)
        text = raw.decode("utf-8", errors="replace")
        try:
            body = json.loads(text)
        except ValueError:
            body = None
        content_type = response.headers.get("Content-Type", "")
        seconds = time.monotonic() - start
        return Answer(status=response.status_code, text=text, body=body, seconds=seconds, content_type=content_type)

    def _data(self, response: requests.Response, start: float) -> Iterator[tuple[float, str]]:
        for raw in response.iter_lines(chunk_size=1):
            seconds = time.monotonic() - start
            if seconds > self._timeout_s:
                raise NoAnswer(f"the stream was not over after {self._timeout_s:.0f} s", timed_out=True)
            line = raw.decode("utf-8", errors="replace")
            if line.startswith("data:"):
                yield seconds, line[len("data:") :].strip()

    @contextmanager
    def _request(
        self, method: str, path: str, document: dict[str, Any] | None
    ) -> Iterator[tuple[requests.Response, float]]:
        import requests  # noqa: PLC0415  # as above

        start = time.monotonic()
        try:
            with self._session.request(
                method,
                self.url + path,
                json=document,
                timeout=(min(CONNECT_TIMEOUT_S, self._timeout_s), self._timeout_s),
                stream=True,
                allow_redirects=False,  # a login page is not an answer
            ) as response:
                yield response, start
        except requests.Timeout:
            waited = time.monotonic() - start
            raise NoAnswer(f"`{shown(self.url)}{path}` gave no answer in {waited:.0f} s", timed_out=True) from None
        except requests.ConnectionError as error:
            timed_out = "timed out" in str(error)
            raise NoAnswer(f"`{shown(self.url)}{path}` {_reason(error)}", timed_out=timed_out) from None
        except requests.RequestException as error:
            raise NoAnswer(f"`{shown(self.url)}{path}`: {mask(str(error))}") from None


def base_url(text: str) -> str:
    """The address of a server as a user may write it: with or without `http://`, a `/` or a `/v1` at its end.

    Raises `UsageError` for what is no address.
    """
    parts = urlsplit(text if "://" in text else f"http://{text}")
    try:
        wrong = parts.scheme not in {"http", "https"} or not parts.hostname or (parts.port or 1) < 1
    except ValueError:
        wrong = True
    if wrong:
        raise UsageError(f"`{mask(text)}` is not the address of a server", hint="write it as `http://127.0.0.1:30000`")
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def shown(url: str) -> str:
    """An address without the login that may stand in it."""
    return mask(url)


def _reason(error: requests.ConnectionError) -> str:
    text = str(error)
    for sign, reason in (
        ("Connection refused", "refused the connection: nothing listens there"),
        ("Name or service not known", "has a name that does not resolve"),
        ("Temporary failure in name resolution", "has a name that does not resolve"),
        ("No route to host", "cannot be reached: no route"),
        ("Network is unreachable", "cannot be reached: no network"),
        ("CERTIFICATE_VERIFY_FAILED", "shows a certificate that is not trusted here"),
        ("Read timed out", "gave no answer in time"),
    ):
        if sign in text:
            return reason
    return f"broke the connection off: {mask(text)[:_SHOWN]}"
