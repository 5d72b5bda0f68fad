"""Whose address an address is."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def is_loopback(address: str) -> bool:
    """Whether `localhost`, `::1`, `127.0.0.1:5000`, `[::1]:80` or `http://127.0.0.1:30000/v1` is this machine alone."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        pass
    try:
        name = urlsplit(address if "//" in address else f"//{address}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
