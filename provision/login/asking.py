"""Ask a registry or a hub one question over HTTP, with the ways in which no answer comes told apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from provision.errors import Unreachable
from provision.http_client import Authorization, Limits, NoAnswer, as_json, asking

_LIMITS = Limits(seconds=25.0, most_bytes=4 * 1024 * 1024)
_HINT = "look at the name, the network, and `HTTPS_PROXY`; `sgprov doctor` tries them"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back, whatever its status; `body` is None where it was no JSON."""

    status: int
    headers: Mapping[str, str]
    body: Any = field(repr=False, default=None)


def ask(
    url: str,
    authorization: Authorization | None = None,
    *,
    method: str = "GET",
    parameters: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    insecure: bool = False,
) -> Answer:
    """One answer, whatever its status; redirects are not followed, since a key goes nowhere but where it belongs.

    Raises `Unreachable` with the reason where no answer came, and `UsageError` for a key that would go over the network
    in the clear, unless that is wanted (`insecure`). No message holds what was sent.
    """
    try:
        with asking(
            method,
            url,
            limits=_LIMITS,
            authorization=authorization,
            parameters=parameters,
            headers=headers,
            insecure=insecure,
        ) as reply:
            return Answer(status=reply.status, headers=reply.headers, body=as_json(reply.body()))
    except NoAnswer as error:
        raise Unreachable(str(error), hint=_HINT) from None
