"""What of a file may be recorded: the part that checks ask for, less what is secret or says nothing to them."""

from __future__ import annotations

import json
import re
from typing import Any

from provision.secrets import MASK, mask

_ENVIRONMENT = re.compile(r"/proc/\d+/environ")
# What is asked of a process's environment: whose server it is.
_ASKED_VARIABLES = ("SGPROV_SERVER=",)
# Files that hold a secret and nothing else.
_SECRET = ("/api-key", "/token", "/.netrc")
_SERVER = "/server.json"
_DOCKER = "/config.json"
_WHEEL_RECORD = ".dist-info/RECORD"
# Settings with which no server runs: a recorded server is nowhere to be asked or read, so no step may take it for its.
_RECORDED = {"SGPROV_RECORDED": "1"}


def recordable(path: str, text: str) -> str:
    """The text of a file as a recording holds it, and as it is read from one."""
    if path.endswith(_SECRET):
        return ""
    if _ENVIRONMENT.fullmatch(path):
        kept = [entry for entry in text.split("\0") if entry.startswith(_ASKED_VARIABLES)]
        return "".join(f"{entry}\0" for entry in kept)
    if path.endswith(_WHEEL_RECORD):
        # Thousands of lines, of which those of shared libraries are looked at.
        return "".join(f"{line}\n" for line in text.splitlines() if ".so" in line)
    if path.endswith((_SERVER, _DOCKER)) and isinstance(given := _json(text), dict):
        return json.dumps(_server(given) if path.endswith(_SERVER) else _docker(given), indent=2) + "\n"
    return text


def _server(given: dict[str, Any]) -> dict[str, Any]:
    """The record of a server without what it was given: its key is in its arguments or its variables."""
    if not isinstance(given.get("argv"), list):
        return given
    told = {name: _masked(value) for name, value in given.items() if name in {"argv", "serve", "asked"}}
    return {**given, **told, "variables": _RECORDED}


def _masked(given: Any) -> Any:
    """Plain data with each credential in it masked, also one that is a word of its own behind its flag."""
    if isinstance(given, dict):
        return {name: _masked(value) for name, value in given.items()}
    if isinstance(given, list):
        return mask(" ".join(map(str, given))).split()
    return mask(given) if isinstance(given, str) else given


def _docker(given: dict[str, Any]) -> dict[str, Any]:
    """Docker's configuration: for which registries it holds a login, and not the login; a model's stays as it is."""
    if not isinstance(given.get("auths"), dict):
        return given
    auths = {
        name: {"auth": MASK} if isinstance(held, dict) and held.get("auth") else {}
        for name, held in given["auths"].items()
    }
    return {**{name: given[name] for name in ("credsStore",) if name in given}, "auths": auths}


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
