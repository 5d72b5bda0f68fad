"""Ask a registry or a hub one question over HTTP, with the ways in which no answer comes told apart."""

from __future__ import annotations

from collections.abc import Mapping

import requests

from provision.errors import Unreachable
from provision.host.addresses import is_loopback

TIMEOUT_S = (5.0, 20.0)
# What the text of a failed connection means to people; the first sign that it holds.
_REASONS = (
    ("Name or service not known", "its name does not resolve"),
    ("nodename nor servname", "its name does not resolve"),
    ("Temporary failure in name resolution", "its name does not resolve: there is no name server"),
    ("NameResolutionError", "its name does not resolve"),
    ("Connection refused", "it refuses connections"),
    ("No route to host", "there is no route to it"),
    ("Network is unreachable", "there is no network"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not trusted here"),
    ("WRONG_VERSION_NUMBER", "it does not speak TLS"),
    ("ProxyError", "the proxy lets nothing through"),
)
_HINT = "look at the name, the network, and `HTTPS_PROXY`; `sgprov doctor` tries them"


class Login(requests.auth.AuthBase):
    """A header for one request, given even when empty: else `requests` takes a login from ~/.netrc, which would win."""

    def __init__(self, header: str | None = None) -> None:
        self._header = header

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._header:
            request.headers["Authorization"] = self._header
        return request

    @classmethod
    def bearer(cls, token: str) -> Login:
        return cls(f"Bearer {token}")


def ask(
    url: str,
    login: requests.auth.AuthBase | None = None,
    *,
    method: str = "GET",
    parameters: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> requests.Response:
    """One answer, whatever its status; redirects are not followed, since a key goes nowhere but where it belongs.

    Raises `Unreachable` with the reason where no answer came. No message holds what was sent.
    """
    host = url.split("/")[2]
    with requests.Session() as session:
        session.trust_env = not is_loopback(host)
        try:
            return session.request(
                method,
                url,
                auth=login or Login(),
                params=parameters,
                headers=headers,
                timeout=TIMEOUT_S,
                allow_redirects=False,
            )
        except requests.Timeout:
            raise Unreachable(f"`{host}` gave no answer in time", hint=_HINT) from None
        except requests.RequestException as error:
            text = str(error)
            reason = next((words for sign, words in _REASONS if sign in text), "it broke the connection off")
            raise Unreachable(f"`{host}` cannot be reached: {reason}", hint=_HINT) from None
