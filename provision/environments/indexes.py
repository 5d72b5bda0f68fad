"""The index and proxy that the user named, looked at when an install failed: uv does not say all that is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from provision.errors import UsageError
from provision.host import HostView
from provision.http_client import Limits, NoAnswer, asking
from provision.secrets import mask

_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL")
# `ours=https://index.example/simple`
_NAMED = re.compile(r"^[A-Za-z0-9._-]+=")
_FILE = re.compile(rb"href=[\"'][^\"']+\.(?:whl|tar\.gz|zip)", re.IGNORECASE)
_LIMITS = Limits(seconds=8.0, most_bytes=1 << 20)


def malformed(view: HostView) -> tuple[str, str] | None:
    """A variable that names an index by what is no address and no directory, and its value."""
    for variable, value in _named(view):
        if not _is_address(value) and view.stat(value) is None:
            return variable, mask(value)
    return None


def proxy_for(view: HostView, address: str) -> tuple[str, str] | None:
    """The variable that sends questions to `address` to a proxy, and its value."""
    scheme = urlsplit(address).scheme or "https"
    for name in (f"{scheme}_proxy", "all_proxy"):
        for variable in (name, name.upper()):
            if value := view.variable(variable):
                return variable, mask(value)
    return None


def answers_as_something_else(address: str) -> str | None:
    """What is wrong with the page of an index at `address`, if it is no page of an index: a login page, mostly."""
    try:
        with asking("GET", address, limits=_LIMITS, redirects=5) as reply:
            kind, body = reply.headers.get("Content-Type", ""), reply.body()
    except (NoAnswer, UsageError):
        return None
    if "html" not in kind.lower() or _FILE.search(body):
        return None
    found = re.search(rb"<title[^>]*>([^<]{1,80})", body, re.IGNORECASE)
    title = found[1].decode("utf-8", errors="replace").strip() if found else ""
    return f"a web page{f' (“{title}”)' if title else ''} without a single file"


def page_of(view: HostView, package: str) -> str | None:
    """The address at which the index that the user named lists a package."""
    for variable, value in _named(view):
        if variable in _VARIABLES[:2] and value.startswith(("http://", "https://")):
            return f"{value.rstrip('/')}/{package}/"
    return None


def _is_address(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return bool(parts.hostname and parts.port != 0) if parts.scheme in {"http", "https"} else parts.scheme == "file"
    except ValueError:
        return False


def _named(view: HostView) -> Iterator[tuple[str, str]]:
    for variable in _VARIABLES:
        for value in (
            (view.variable(variable) or "").split() if variable not in _VARIABLES[:2] else [view.variable(variable)]
        ):
            if value and value.strip():
                yield variable, _NAMED.sub("", value.strip())
