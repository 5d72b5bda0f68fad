"""What happened in the lives of a server that is kept up, a line each: what a supervisor did, and why."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

from provision.errors import ProvisionError
from provision.host.view import Host, HostView
from provision.serving.record import Server

FILE = "events.jsonl"
_KEPT = 200


def events(view: HostView, server: Server) -> tuple[dict[str, Any], ...]:
    """What was noted, oldest first: `died`, `started`, `ready`, `gave-up`, with the time. Cut lines are left out."""
    try:
        text = view.read_state(f"{server.directory}/{FILE}") or ""
    except ProvisionError:
        return ()
    found = []
    for line in text.splitlines():
        with suppress(ValueError, RecursionError):
            one = json.loads(line)
            if isinstance(one, dict) and isinstance(one.get("event"), str):
                found.append(one)
    return tuple(found)


def note(host: Host, server: Server, event: str, **more: Any) -> None:
    """Write an event down, where that is possible.

    `time` is in seconds since 1970, as the machine's clock has it; `monotonic`, in seconds since it was started, is for
    durations: nobody sets that clock.
    """
    kept = [json.dumps(one) for one in events(host, server)][-_KEPT:]
    when = {"time": round(time.time(), 3), "monotonic": round(time.monotonic(), 3)}
    kept.append(json.dumps({**when, "event": event, "pid": server.pid, **more}))
    with suppress(ProvisionError):
        host.write(f"{server.directory}/{FILE}", "\n".join(kept) + "\n", mode=0o600)
