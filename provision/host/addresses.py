"""What an address says: which host it names, whether that is this machine alone, whether a key may go there.

The only parser of hosts. An address that two programs could read as two hosts names none: it is nobody's loopback.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from urllib.parse import SplitResult, urlsplit

# `urlsplit` drops these, and others do not.
_DROPPED = re.compile(r"[\s\x00-\x20\x7f-\x9f]")
# For the HTTP client the host of `http://evil\@127.0.0.1` is `evil`.
_AMBIGUOUS = re.compile(r"\\|[^\x00-\x7f]")
_PLACE = re.compile(r"([a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?\.?|\[[0-9a-f:.]+(%[a-z0-9]+)?\])(:[0-9]{0,5})?", re.IGNORECASE)


def bind_problem(address: str) -> str | None:
    """Why nobody can listen on that address or name here; None where one can. Tried out: no port is taken by it."""
    # A name that an option holds may be of both versions: one that works is enough.
    problem = "is not an address of this machine"
    try:
        found = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        return "is a name that does not resolve here"
    for family, kind, protocol, _, place in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.bind(place)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                problem = f"cannot be listened on: {error.strerror}"
        else:
            return None
    return problem


def split(address: str) -> SplitResult | None:
    """The parts of `host`, `host:port`, `[::1]:80` or an URL; None for what is no address, or could be two."""
    if _DROPPED.search(address):
        return None
    if address.count(":") > 1 and _ip(address):
        address = f"[{address}]"
    try:
        parts = urlsplit(address if "//" in address else f"//{address}")
        port = parts.port
    except ValueError:
        return None
    if _AMBIGUOUS.search(parts.netloc) or not _PLACE.fullmatch(parts.netloc.rpartition("@")[2]) or port == 0:
        return None
    return parts


def host_of(address: str) -> str | None:
    """The host of an address in small letters, without brackets and without the dot of the root; None where none is."""
    parts = split(address)
    return (parts.hostname or "").removesuffix(".") or None if parts else None


def is_loopback(address: str) -> bool:
    """Whether `localhost`, `::1`, `127.0.0.1:5000`, `[::1]:80` or `http://127.0.0.1:30000/v1` is this machine alone.

    `127.1`, `0x7f000001` and other spellings that only some programs read as an address are not: nothing rests on them.
    """
    if host_of(address) == "localhost":
        return True
    parts = split(address)
    ip = _ip(parts.hostname or "") if parts else None
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return ip is not None and ip.is_loopback


def may_carry_key(url: str) -> bool:
    """Whether a key that goes there is read by nobody in between: over TLS, or without leaving this machine."""
    parts = split(url)
    return parts is not None and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(url)))


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
