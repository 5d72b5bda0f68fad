"""Distribution, kernel and C library."""

from __future__ import annotations

import re
import shlex

from provision.errors import ProbeError
from provision.facts.model import OperatingSystem
from provision.host import HostView


def probe_operating_system(view: HostView) -> OperatingSystem | None:
    """From os-release and the running kernel; None where there is no os-release."""
    text = view.read("/etc/os-release") or view.read("/usr/lib/os-release")
    if text is None:
        return None
    return parse_os_release(text, kernel=parse_kernel(view.read("/proc/version") or ""))


def parse_kernel(text: str) -> str:
    """Parse /proc/version, e.g. `Linux version 6.8.0-64-generic (buildd@…) …`."""
    words = text.split(maxsplit=3)
    return words[2] if words[:2] == ["Linux", "version"] and len(words) > 2 else ""  # noqa: PLR2004  # its place


def parse_os_release(text: str, *, kernel: str = "") -> OperatingSystem:
    """Parse, e.g., `ID=ubuntu` and `VERSION_ID="22.04"`.

    By hand, because `distro` reads files of this machine and this text may come from another.
    """
    values = {}
    for line in text.splitlines():
        name, assigned, value = line.strip().partition("=")
        if not assigned or name.startswith("#"):
            continue
        try:
            words = shlex.split(value)
        except ValueError:
            words = [value.strip("\"'")]
        values[name] = " ".join(words)
    if not values.get("ID"):
        raise ProbeError("os-release names no distribution (no `ID=`)")
    return OperatingSystem(
        id=values["ID"].lower(),
        version=values.get("VERSION_ID", ""),
        pretty=values.get("PRETTY_NAME", ""),
        codename=values.get("VERSION_CODENAME", ""),
        like=tuple(values.get("ID_LIKE", "").split()),
        kernel=kernel,
    )


def probe_glibc(view: HostView) -> str | None:
    """The version of glibc, or None where the C library is another (musl). `getconf` first: it is the shorter way."""
    for argv in (["getconf", "GNU_LIBC_VERSION"], ["ldd", "--version"]):
        outcome = view.query(argv)
        if outcome.ok and (version := parse_glibc(outcome.out)):
            return version
    return None


def parse_glibc(text: str) -> str | None:
    """Parse `glibc 2.35`, or the first line of ldd: `ldd (Ubuntu GLIBC 2.35-0ubuntu3.1) 2.35`."""
    first = text.strip().split("\n", 1)[0].strip()
    found = re.search(r"(?:^glibc |^ldd \(.{1,80}\) )(\d{1,2}\.\d{1,3})", first, re.ASCII)
    return found[1] if found else None
