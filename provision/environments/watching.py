"""How far an install is, in bytes, told from outside while uv works."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from provision.host import HostView

_PERIOD_S = 0.5


@contextmanager
def watch(view: HostView, tell: Callable[[int], None], *, period_s: float = _PERIOD_S) -> Iterator[None]:
    """While the block runs, tell how many bytes the installers among our children have written so far.

    uv unpacks wheels as they arrive and hard-links the result, so what it writes grows from 0 to what is installed:
    a true signal that costs one small file read. Where `/proc` does not say it, nothing is told.
    """
    over = threading.Event()

    def loop() -> None:
        while not over.wait(period_s):
            if (written := bytes_written(view)) is not None:
                tell(written)

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(period_s + 1)


def bytes_written(view: HostView) -> int | None:
    """What our uv children have written, or None where none is seen."""
    counts = [
        parse_written(view.read(f"/proc/{child}/io") or "")
        for listed in view.glob("/proc/self/task/*/children")
        for child in (view.read(listed) or "").split()
        if (view.read(f"/proc/{child}/comm") or "").strip() == "uv"
    ]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def parse_written(text: str) -> int | None:
    """Parse `/proc/<pid>/io`, e.g. `rchar: 323934931\\nwchar: 323929600\\n…`."""
    found = re.search(r"^wchar: (\d+)$", text, re.MULTILINE)
    return int(found[1]) if found else None
