"""Whether a uv that fetches something still gets on, and what it waits for if it does not.

uv gives a silent server half a minute, several times over, and one that drips for ever. Here a process has to do
something in `PATIENCE_S`: receive bytes, compute, or put packages into an environment.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from provision.host import HostView
from provision.host.sockets import received_bytes

# With a second for the look and one for the end, a stall is told within a minute.
PATIENCE_S = 45.0
# What counts as getting on: below 1.5 kB/s no wheel of any stack would come to its end.
_BYTES = 65536
_CPU_S = 0.5
# Where the kernel does not count what comes in.
_BLIND_PATIENCE_S = 240.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# uv locks each wheel that it fetches: `wheels-v8/pypi/torch/2.9.1-cp313-….lock`.
_LOCKED = re.compile(r"/wheels-v\d+/.*/(?P<name>[^/]+)/(?P<version>[^/-]+)-[^/]*\.lock$")
_SHOWN = 3


class Stall:
    """Asked again and again with uv's pid. `waits_for` is set when nothing has happened for too long.

    `folder` is where it puts packages. A `UV_HTTP_TIMEOUT` of the user's that is longer is waited for.
    """

    def __init__(self, view: HostView, *, folder: str | None = None) -> None:
        asked = view.variable("UV_HTTP_TIMEOUT") or ""
        self.patience_s = max(PATIENCE_S, float(asked)) if asked.isdigit() else PATIENCE_S
        self.waits_for: str | None = None
        self._view, self._folder = view, folder
        self._since = time.monotonic()
        self._before = (0, 0.0, 0)
        self._received: dict[int, int] = {}
        self._total = 0

    def __call__(self, pid: int) -> bool:
        got, cpu_s, packages = self._now(pid)
        before = self._before
        if got - before[0] >= _BYTES or cpu_s - before[1] >= _CPU_S or packages != before[2]:
            self._since, self._before = time.monotonic(), (got, cpu_s, packages)
        if time.monotonic() - self._since < self.patience_s:
            return False
        self.waits_for = _waited_for(pid)
        return True

    def _now(self, pid: int) -> tuple[int, float, int]:
        # Fields 14 and 15, of those that follow the name in parentheses.
        fields = (self._view.read(f"/proc/{pid}/stat") or "").rpartition(")")[2].split()
        ticks = sum(int(field) for field in fields[11:13])
        packages = 0
        with suppress(OSError):
            packages = len(os.listdir(self._folder)) if self._folder else 0  # noqa: PTH208  # a number of names
        return self._got(pid), ticks / _TICKS_PER_S, packages

    def _got(self, pid: int) -> int:
        """What it received. It writes that in pieces of a MiB, so what it wrote is the next best only."""
        received = received_bytes(pid)
        if received is None:
            self.patience_s = max(self.patience_s, _BLIND_PATIENCE_S)
            found = re.search(r"^wchar: (\d+)$", self._view.read(f"/proc/{pid}/io") or "", re.MULTILINE)
            return int(found[1]) if found else 0
        # Connections come and go: what each one brought since the last look counts.
        self._total += sum(max(0, count - self._received.get(inode, 0)) for inode, count in received.items())
        self._received = received
        return self._total


def _waited_for(pid: int) -> str:
    wheels, hosts = sorted(set(_wheels(pid))), sorted(set(_hosts(pid)))
    shown = ", ".join(f"`{name}`" for name in wheels[:_SHOWN])
    more = f" and {len(wheels) - _SHOWN} more" if len(wheels) > _SHOWN else ""
    what = f"{shown}{more}" if wheels else "an answer"
    return f"{what} from {', '.join(f'`{host}`' for host in hosts[:_SHOWN])}" if hosts else what


def _wheels(pid: int) -> Iterator[str]:
    """The wheels that a uv is fetching: it holds a lock for each."""
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if found := _LOCKED.search(str(entry.readlink())):
                    yield f"{found['name']}=={found['version']}"


def _hosts(pid: int) -> Iterator[str]:
    """With whom it has connections."""
    import psutil  # noqa: PLC0415  # only where something is wrong

    with suppress(psutil.Error, OSError):
        process = psutil.Process(pid)
        # Called otherwise before psutil 6.
        look = getattr(process, "net_connections", None) or process.connections
        for connection in look(kind="tcp"):
            if remote := connection.raddr:
                yield f"{remote.ip}:{remote.port}"
