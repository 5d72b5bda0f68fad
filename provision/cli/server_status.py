"""How servers are, as lines for people and rows for programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from provision.cli import render
from provision.cli.servers import Place
from provision.host import HostView
from provision.serving import record, watchman
from provision.serving.record import Server
from provision.serving.status import status

if TYPE_CHECKING:
    from rich.console import Console

_STYLE = {"running": "green", "starting": "cyan", "stopped": "dim"}


@dataclass(frozen=True, kw_only=True)
class ServerStatus:
    """One server: `row` is what programs get, `details` a second line for people."""

    name: str
    health: str
    text: str
    details: str
    row: dict[str, Any]

    @property
    def well(self) -> bool:
        return self.health not in {"dead", "unhealthy", "lost"}


def look(view: HostView, place: Place) -> ServerStatus:
    """The server of that place; `lost` is one of which there is only a damaged record."""
    damage = record.damage(view, place.directory)
    known = record.load(view, place.directory)
    if known is not None:
        return of(view, known, damaged=damage.text if damage else None)
    text = damage.text if damage else "it was removed at this moment"
    text += f", and nothing of its server runs: `sgprov serve remove {place.name}` forgets it"
    log = f"{place.directory}/{record.LOG}"
    row = {"name": place.name, "health": "lost", "text": text, "log": log}
    return ServerStatus(name=place.name, health="lost", text=text, details=f"log {log}", row=row)


def of(view: HostView, known: Server, *, damaged: str | None = None) -> ServerStatus:
    """A server with a record, be it one that was made anew from its process (`damaged` says why)."""
    found = status(view, known)
    server, text = found.server, found.text
    kept_up = watchman.keeps_up(server)
    if server.supervised and not kept_up and found.pids:
        text += f"; nobody keeps it up any more: `sgprov serve start {server.name} --restart` does again"
    if damaged:
        text += f"; {damaged}; `sgprov serve start {server.name}` makes it anew"
    port = urlsplit(server.url).port
    row = {
        **server.public(),
        "port": port,
        "health": found.health,
        "text": text,
        "pids": list(found.pids),
        "up_s": found.up_s,
        "kept_up": kept_up,
        "restarts": server.restarts,
    }
    up = f"up {found.up_s:.0f} s, {len(found.pids)} processes" if found.up_s is not None else None
    kept = "kept up" if kept_up else "to be kept up" if server.supervised else "not kept up"
    again = f"restarted {server.restarts} times" if server.restarts else None
    model = f"model {server.model}" if server.model else None
    parts = (server.stack or server.engine, model, f"port {port}", up, kept, again, f"log {server.log}")
    details = ", ".join(part for part in parts if part)
    return ServerStatus(name=found.name, health=found.health, text=text, details=details, row=row)


def show(found: list[ServerStatus], screen: Console, *, otherwise: str = "") -> None:
    if not found:
        screen.print(otherwise)
    for one in found:
        style = _STYLE.get(one.health, "red")
        render.line(screen, (f"{one.name:<18}", "bold"), " ", (f"{one.health:<10}", style), " ", one.text)
        screen.print(f"    {one.details}", style="dim")
