"""Ask a server over HTTP, with every way that can go wrong told apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlunsplit

from provision.errors import UsageError
from provision.host.addresses import split
from provision.http_client import Authorization, Limits, Reply, as_json, asking
from provision.secrets import mask

_SHOWN = 200


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


class Client:
    """One server. `url` is as `base_url` makes it; `timeout_s` is for each question, to the last byte of its answer.

    With `insecure` the key goes over the network without encryption, too; else asking so raises `UsageError`. `ours` is
    a server on this machine, whatever its address.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: Key = None,
        timeout_s: float = 60.0,
        insecure: bool = False,
        ours: bool = False,
    ) -> None:
        self.url = url
        self._timeout_s = timeout_s
        self._key = api_key
        self._insecure, self._ours = insecure, ours

    def get(self, path: str) -> Answer:
        with self._asking("GET", path, None) as reply:
            return _whole(reply)

    def post(self, path: str, document: dict[str, Any]) -> Answer:
        with self._asking("POST", path, document) as reply:
            return _whole(reply)

    @contextmanager
    def events(
        self, path: str, document: dict[str, Any]
    ) -> Iterator[tuple[Answer | None, Iterator[tuple[float, str]]]]:
        """Server-sent events as (seconds since the request, data); the answer instead where it was no such stream."""
        with self._asking("POST", path, document) as reply:
            if reply.status == 200 and "event-stream" in reply.headers.get("Content-Type", ""):  # noqa: PLR2004
                yield None, _data(reply)
            else:
                yield _whole(reply), iter(())

    @contextmanager
    def _asking(self, method: str, path: str, document: dict[str, Any] | None) -> Iterator[Reply]:
        key = self._key() if callable(self._key) else self._key
        # No redirect is followed: a login page is not an answer.
        with asking(
            method,
            self.url + path,
            limits=Limits(seconds=self._timeout_s),
            authorization=Authorization.bearer(key) if key else None,
            document=document,
            insecure=self._insecure,
            this_machine=self._ours,
        ) as reply:
            yield reply


def _whole(reply: Reply) -> Answer:
    raw = reply.body()
    return Answer(
        status=reply.status,
        text=raw.decode("utf-8", errors="replace"),
        body=as_json(raw),
        seconds=reply.seconds,
        content_type=reply.headers.get("Content-Type", ""),
    )


def _data(reply: Reply) -> Iterator[tuple[float, str]]:
    for raw in reply.lines():
        line = raw.decode("utf-8", errors="replace")
        if line.startswith("data:"):
            yield reply.seconds, line[len("data:") :].strip()


def base_url(text: str) -> str:
    """The address of a server as a user may write it: with or without `http://`, a `/` or a `/v1` at its end.

    Raises `UsageError` for what is no address.
    """
    parts = split(text if "://" in text else f"http://{text}")
    if parts is None or parts.scheme not in {"http", "https"}:
        raise UsageError(f"`{mask(text)}` is not the address of a server", hint="write it as `http://127.0.0.1:30000`")
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def shown(url: str) -> str:
    """An address without the login that may stand in it."""
    return mask(url)
