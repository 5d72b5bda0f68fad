"""Prove a Hugging Face token, and keep it where the hub's own library looks for it."""

from __future__ import annotations

from provision.errors import LoginRefused, Unreachable, UsageError
from provision.host import Host, HostView
from provision.host.addresses import may_carry_key
from provision.http_client import Authorization
from provision.login import store
from provision.login.asking import ask
from provision.login.keys import HUB, Key

_DEFAULT = "https://huggingface.co"
_OK, _UNAUTHORIZED, _FORBIDDEN = 200, 401, 403


def endpoint(view: HostView) -> str:
    """The hub, or the mirror that HF_ENDPOINT names."""
    return (view.variable("HF_ENDPOINT") or _DEFAULT).rstrip("/")


def check_encrypted(view: HostView) -> None:
    """Raise `UsageError` for a hub on another machine that is asked without encryption.

    What comes from it would be whatever anyone in between makes of it, and the token would be theirs.
    """
    hub = endpoint(view)
    if not may_carry_key(hub):
        raise UsageError(
            f"the hub at `{hub}` (`HF_ENDPOINT`) is not encrypted",
            hint="use its `https://` address; `--insecure` takes the model, and sends the token, nevertheless",
        )


def prove(view: HostView, key: Key, *, insecure: bool = False) -> str:
    """Whose token it is. Raises `LoginRefused` or `Unreachable`, and `UsageError` for a hub without encryption."""
    hub = endpoint(view)
    answer = ask(f"{hub}/api/whoami-v2", Authorization.bearer(key.value), insecure=insecure)
    if answer.status in {_UNAUTHORIZED, _FORBIDDEN}:
        raise LoginRefused(
            f"`{hub}` does not know the token of {key.source} ({answer.status})",
            hint=f"it was deleted, or cut while pasting: get one at {HUB.where}",
        )
    body = answer.body
    if answer.status != _OK or not isinstance(body, dict) or not body.get("name"):
        raise Unreachable(f"`{hub}` is no model hub: `/api/whoami-v2` says {answer.status}", hint="`HF_ENDPOINT`?")
    return f"`{hub}` knows the token as `{body['name']}`"


def save(host: Host, key: Key) -> str:
    """Keep the token, readable by its owner only; the path."""
    path = store.token_path(host)
    host.write(path, key.value, mode=0o600)
    return path


def forget(host: Host) -> bool:
    """Remove the token; whether there was one."""
    path = store.token_path(host)
    if host.stat(path) is None:
        return False
    host.remove(path)
    return True
