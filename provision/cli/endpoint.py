"""What to do with a server that serves: how it is asked, with which key, and which commands look after it."""

from __future__ import annotations

import json
import shlex
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from provision.cli import render
from provision.plan import Plan
from provision.report import Report
from provision.serving import keys
from provision.serving.smoke_answers import CHAT

if TYPE_CHECKING:
    from rich.console import Console


def show(screen: Console, report: Report, plan: Plan, *, name: str, place: str) -> None:
    """The endpoint of a report, and commands that can be run as they stand."""
    endpoint, key_file = report.data["endpoint"], plan.launch.key_file
    screen.print()
    render.line(screen, ("serving", "bold green"), " at ", (endpoint, "bold"))
    show_key(screen, plan)
    smoke = report.data.get("smoke", {})
    names = smoke.get("smoke-models", {}).get("models") or ["default"]
    path = smoke.get("smoke-chat", {}).get("path", CHAT)
    asked = {"messages": [{"role": "user", "content": "Hello"}]} if path == CHAT else {"prompt": "Hello"}
    body = json.dumps({"model": names[0], **asked, "max_tokens": 16})
    login = f"--header @{shlex.quote(_header_of(key_file))} " if key_file else ""
    kind = "--header 'Content-Type: application/json'"
    screen.print(f"  curl {endpoint}{path.removeprefix('/v1')} {login}{kind} --data {shlex.quote(body)}")
    for command in ("smoke", "serve status", "serve logs", "serve stop"):
        screen.print(f"  sgprov {command} {name}{place}")


def show_key(screen: Console, plan: Plan) -> None:
    """Where the key of a server lies; one that was made now is shown where somebody sits who can note it down."""
    key_file = plan.launch.key_file
    if key_file is None:
        return
    if plan.made_key and screen.is_terminal:
        render.show_secret(screen, "  key ", plan.made_key, f" (shown this once; kept in {key_file})")
    else:
        screen.print(f"  its key is in {key_file}, which only you can read")


def _header_of(key_file: str) -> str:
    """What `curl` reads the header with the key from: on its command line every user could see it."""
    return str(PurePosixPath(key_file).with_name(keys.HEADER))
