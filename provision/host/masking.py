"""Takes out of a captured machine what says whose it is: ids, names, addresses, and every credential."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from provision.secrets import mask

# GPUs, MIG instances and anything else of that form; NVIDIA's prefix stays.
_UUID = re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b")
# A kernel's version can have four parts, too, but goes on: 5.15.167.4-microsoft-standard.
_ADDRESS = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.-])", re.ASCII)
# Whatever could be an address; a PCI address (0000:61:00.0) goes on with a dot, and of the rest `ipaddress` decides.
_ADDRESS_6 = re.compile(r"(?<![\w:.])[0-9a-fA-F:]{3,39}(?![\w:.])")
_HARDWARE_ADDRESS = re.compile(r"\b(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}\b")
_SERIAL = re.compile(
    r"(?P<name>\bserial(?:[ _]number)?\b[\"']?\s{0,40}[:=]\s{0,4}[\"']?)(?P<value>[\w-]{4,64})", re.IGNORECASE
)
# `docker info` names the machine and the daemon.
_DOCKER_ID = re.compile(r"(?P<name>\"(?:ID|Name)\":\s?\")(?P<value>[^\"]{1,200})(?=\")")
_HOME = re.compile(r"(?P<name>/home/)(?P<value>[^/\s:\"']{1,64})")
# Addresses that say nothing of whose machine it is.
_PUBLIC = ("127.", "0.0.0.0", "255.", "169.254.")  # noqa: S104  # recognised, not bound to
_NOBODY = frozenset(
    # Accounts that every machine has, and words of this trade that a machine may be named after.
    {"root", "nobody", "user", "daemon", "www-data", "ubuntu", "debian", "localhost", "host", "admin"}
    | {"docker", "podman", "slurm", "nvidia", "python", "jupyter", "container", "server", "linux", "cuda", "gpu"}
)
_SHORTEST_NAME = 3


class Masks:
    """Replaces the same id by the same stand-in wherever it comes; numbered in the order in which ids are met.

    Give it the texts of a machine in a fixed order, and the result is the same whenever it is captured.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        """`names` are words that identify: host and user names."""
        self._stand_ins: dict[tuple[str, str], int] = {}
        words = sorted({name for name in names if len(name) >= _SHORTEST_NAME and name not in _NOBODY})
        self._names = re.compile("|".join(rf"(?<![\w-]){re.escape(word)}(?![\w-])" for word in words) or r"(?!)")

    def text(self, text: str) -> str:
        text = mask(text)
        text = _UUID.sub(lambda found: f"00000000-0000-0000-0000-{self._number('uuid', found[0].lower()):012d}", text)
        text = _HARDWARE_ADDRESS.sub(lambda found: f"02:00:00:00:00:{self._number('hardware', found[0]):02x}", text)
        text = _ADDRESS.sub(self._address, text)
        text = _ADDRESS_6.sub(self._address_6, text)
        text = _SERIAL.sub(lambda found: f"{found['name']}{self._number('serial', found['value']):013d}", text)
        text = _DOCKER_ID.sub(lambda found: f"{found['name']}masked-{self._number('name', found['value'])}", text)
        text = _HOME.sub(self._home, text)
        return self._names.sub(lambda found: f"masked-{self._number('name', found[0])}", text)

    def name(self, name: str) -> str:
        """A name that stands alone, such as the owner of a file; what every machine has stays."""
        return name if name in _NOBODY or name.isdecimal() else f"masked-{self._number('name', name)}"

    def _number(self, kind: str, value: str) -> int:
        """1 for the first id of its kind, 2 for the next other one."""
        same = sum(1 for known, _ in self._stand_ins if known == kind)
        return self._stand_ins.setdefault((kind, value), same + 1)

    def _home(self, found: re.Match[str]) -> str:
        if found["value"] in _NOBODY or found["value"].startswith("masked-"):
            return found[0]
        return f"{found['name']}masked-{self._number('name', found['value'])}"

    def _address(self, found: re.Match[str]) -> str:
        # 192.0.2.0/24 is set aside for documentation (RFC 5737). A four-part version number is masked, too.
        if found[0].startswith((*_PUBLIC, "192.0.2.")):
            return found[0]
        return f"192.0.2.{self._number('address', found[0])}"

    def _address_6(self, found: re.Match[str]) -> str:
        try:
            address = ipaddress.IPv6Address(found[0])
        except ValueError:
            return found[0]
        # 2001:db8::/32 is set aside, too (RFC 3849).
        if address.is_loopback or address.is_unspecified or found[0].startswith("2001:db8:"):
            return found[0]
        return f"2001:db8::{self._number('address-6', address.compressed):x}"
