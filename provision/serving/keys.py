"""The API key of a server of ours: in one file that only its owner reads, and nowhere else."""

from __future__ import annotations

import re
from pathlib import Path

from provision.decision import Decision
from provision.errors import UsageError
from provision.host.addresses import is_loopback
from provision.host.view import Host, HostView
from provision.report import Finding, Severity

FILE, SCRIPT = "api-key", "with_key.py"
_REPLACED = "api-key.previous"
# What RFC 6750 lets a bearer token be; nothing that a log would write in another way.
_KEY = re.compile(r"[A-Za-z0-9._~+/=-]{8,512}")


def check(key: str) -> str:
    """The key. Raises `UsageError`, which does not repeat it, for what cannot be one."""
    if not _KEY.fullmatch(key):
        raise UsageError(
            "the value of `SGPROV_API_KEY` cannot be a key for a server",
            hint="8 to 512 letters, digits and `._~+/=-`, such as `openssl rand -hex 32` gives",
        )
    return key


def of(view: HostView, directory: str) -> str | None:
    """The key of the server whose record is in `directory`, or None."""
    return (view.read(f"{directory}/{FILE}") or "").strip() or None


def give(host: Host, directory: str, key: str) -> None:
    """Leave the key, and what hands it to the engine, for the server in `directory`."""
    host.write(f"{directory}/{FILE}", key + "\n", mode=0o600)
    host.write(f"{directory}/{SCRIPT}", Path(__file__).with_name(SCRIPT).read_text(encoding="utf-8"))


def remember_replaced(host: Host, directory: str) -> None:
    """Keep the key of a server that is about to be replaced."""
    if (key := of(host, directory)) is not None:
        host.write(f"{directory}/{_REPLACED}", key + "\n", mode=0o600)


def restore_replaced(host: Host, directory: str) -> None:
    """Give the server that is started again the key that it had."""
    if key := (host.read(f"{directory}/{_REPLACED}") or "").strip():
        give(host, directory, key)


def forget_replaced(host: Host, directory: str) -> None:
    """That server is wanted no more, and so is its key."""
    host.remove(f"{directory}/{_REPLACED}")


def open_to_all(decision: Decision) -> Finding | None:
    """A warning where other machines reach a server that asks for no key."""
    port = decision.serve.port
    if is_loopback(decision.serve.host):
        return None
    alone = f"`--bind 127.0.0.1`, and from elsewhere `ssh -L {port}:127.0.0.1:{port} HOST`"
    asked = "set `SGPROV_API_KEY`, and the server asks everyone for that key"
    return Finding(
        check="endpoint-open",
        severity=Severity.WARNING,
        text=f"the server on `{decision.serve.host}` asks for no key: whoever reaches port {port} may use the model",
        fix=(alone,) if decision.hosting else (asked, alone),
    )
