"""Logins for indexes that want one: uv takes them from its variables, and gives addresses without them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from urllib.parse import unquote, urlsplit

from provision.host import HostView

_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS")
_NAMED = re.compile(r"(?P<name>[A-Za-z0-9._-]+)=(?P<url>[a-z]+://.*)")

Login = tuple[str, str]


def logins(view: HostView) -> Mapping[str, Login]:
    """Scheme, host and port to user and password: a login goes nowhere but where it was meant for."""
    return {origin(url): login for url, login in _known(view)}


def netrc_login(url: str) -> Login | None:
    """The login that `~/.netrc` (or the file in `NETRC`) has for the host of an address."""
    from requests.utils import get_netrc_auth  # noqa: PLC0415  # 70 ms that only a download pays

    return get_netrc_auth(url)


def origin(url: str) -> str:
    """`https://user:word@index.example.org:8443/simple` is `https://index.example.org:8443`."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}".lower()


def _known(view: HostView) -> Iterator[tuple[str, Login]]:
    for variable in _VARIABLES:
        # Several stand beside each other; UV_FIND_LINKS has commas between them.
        for word in re.split(r"[\s,]+", view.variable(variable) or ""):
            named = _NAMED.fullmatch(word)
            url = named["url"] if named else word
            user, _, password = urlsplit(url).netloc.rpartition("@")[0].partition(":")
            if named:
                # `UV_INDEX=ours=https://…` has its login in UV_INDEX_OURS_USERNAME and UV_INDEX_OURS_PASSWORD.
                prefix = f"UV_INDEX_{re.sub('[^A-Za-z0-9]', '_', named['name']).upper()}"
                user = view.variable(f"{prefix}_USERNAME") or user
                password = view.variable(f"{prefix}_PASSWORD") or password
            if user:
                yield url, (unquote(user), unquote(password))
