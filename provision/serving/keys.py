"""The API key of a server of ours: in files that only its owner reads, and nowhere else."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from provision.catalog.engines import engine as engine_named
from provision.catalog.rows import Serve
from provision.errors import UsageError
from provision.host.addresses import is_loopback
from provision.host.view import Host, HostView
from provision.report import Finding, Severity
from provision.secrets import know

# HEADER is for `curl --header @FILE`: on its command line every user of the machine would see the key.
FILE, HEADER, SCRIPT = "api-key", "api-key.header", "with_key.py"
_PREVIOUS = ".previous"
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


def new() -> str:
    """A key that nobody has had before."""
    return secrets.token_urlsafe(32)


def of(view: HostView, directory: str) -> str | None:
    """The key of the server whose record is in `directory`, or None."""
    key = (view.read_state(f"{directory}/{FILE}") or "").strip() or None
    know(key)
    return key


def give(host: Host, directory: str, key: str) -> None:
    """Leave the key, and what hands it to the engine, for the server in `directory`."""
    host.write(f"{directory}/{FILE}", key + "\n", mode=0o600)
    host.write(f"{directory}/{HEADER}", _header(key), mode=0o600)
    leave_script(host, directory)


def leave_script(host: Host, directory: str) -> None:
    """Leave what starts an engine with a key, and in a container with its umask."""
    host.write(f"{directory}/{SCRIPT}", Path(__file__).with_name(SCRIPT).read_text(encoding="utf-8"))


def _header(key: str) -> str:
    return f"Authorization: Bearer {key}\n"


def remember_replaced(host: Host, directory: str) -> None:
    """Keep the key of a server that is about to be replaced."""
    if (key := of(host, directory)) is not None:
        host.write(f"{directory}/{FILE}{_PREVIOUS}", f"{key}\n", mode=0o600)
        host.write(f"{directory}/{HEADER}{_PREVIOUS}", _header(key), mode=0o600)


def restore_replaced(host: Host, directory: str) -> None:
    """Give the server that is started again the key that it had; nothing is written, on a full disk neither."""
    for name in (FILE, HEADER):
        if host.stat(f"{directory}/{name}{_PREVIOUS}") is not None:
            host.move(f"{directory}/{name}{_PREVIOUS}", f"{directory}/{name}")


def forget_replaced(host: Host, directory: str) -> None:
    """That server is wanted no more, and so is its key."""
    for name in (FILE, HEADER):
        host.remove(f"{directory}/{name}{_PREVIOUS}")


def open_to_all(serve: Serve, engine: str, version: str) -> Finding | None:
    """A warning where other machines reach a server that asks for no key, with what they can do to it."""
    if is_loopback(serve.host):
        return None
    asked = "leave `--allow-unauthenticated` out, and the server asks everyone for a key"
    alone = f"`--bind 127.0.0.1`, and from elsewhere `ssh -L {serve.port}:127.0.0.1:{serve.port} HOST`"
    row = engine_named(engine)
    routes = dict[str, list[str]]()
    for admin in row.rows(row.admin, version):
        routes.setdefault(admin.does, []).extend(f"`{route}`" for route in admin.routes)
    more = "".join(f", {does} ({', '.join(those)})" for does, those in routes.items())
    return Finding(
        check="endpoint-open",
        severity=Severity.WARNING,
        text=f"the server on `{serve.host}` asks for no key: whoever reaches port {serve.port} may use the model{more}",
        fix=(asked, alone) if row.takes_key(version) else (alone,),
        data={"routes": [route for admin in row.rows(row.admin, version) for route in admin.routes]},
    )


def check_open(serve: Serve, engine: str, version: str) -> None:
    """Raise `UsageError` where other machines would reach a server that cannot ask for a key."""
    if is_loopback(serve.host) or engine_named(engine).takes_key(version):
        return
    raise UsageError(
        f"`{serve.host}` is an open address, and {engine} {version} cannot ask for a key: it would answer everyone",
        hint=f"`--bind 127.0.0.1`, with `ssh -L {serve.port}:127.0.0.1:{serve.port} HOST` or a proxy that asks for one;"
        " `--allow-unauthenticated` serves it to everyone all the same",
    )
