"""What a server is started with, by name, and what differs where another one is to take its place."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from provision.config import Options
from provision.decision import Decision
from provision.environments import path_for
from provision.options import OPTION
from provision.remembered import HF_HOME, IDENTITY
from provision.secrets import mask
from provision.serving.launch import Asked, Launch
from provision.serving.record import Server

# A consent to how something is fetched, in the run that it was given to.
_ONCE = ("insecure",)


@dataclass(frozen=True, kw_only=True)
class Change:
    """One setting that a server would be started with instead of another; None is "not set"."""

    setting: str
    old: str | None
    new: str | None

    def __str__(self) -> str:
        return f"{self.setting} {mask(self.old or 'unset')} → {mask(self.new or 'unset')}"


@dataclass(frozen=True, kw_only=True)
class Replaced:
    """The running server that a plan stops, and what differs in the one that takes its place."""

    name: str
    url: str
    pid: int | None
    changes: tuple[Change, ...]

    def data(self) -> dict[str, Any]:
        """The same for programs."""
        changes = [{"setting": one.setting, "old": one.old, "new": one.new} for one in self.changes]
        return {"name": self.name, "url": self.url, "pid": self.pid, "changes": changes}

    def line(self) -> str:
        """What people are told of it."""
        told = "; ".join(str(change) for change in self.changes)
        return f"stops the server `{self.name}` at {self.url} (pid {self.pid}) for one with other settings: {told}"


def to_remember(decision: Decision, options: Options, *, hf_home: str | None, key: bool) -> Asked:
    """What to write down of a server: what was asked for, with paths that hold everywhere, and what came of it."""
    asked = {
        name: value
        for name in OPTION
        if name not in (*IDENTITY, *_ONCE) and (value := getattr(options, name)) is not None
    }
    if hf_home and options.cache_directory is None:
        asked[HF_HOME] = hf_home
    serve, places, hosting, lock = decision.serve, decision.places, decision.hosting, decision.lock
    source = decision.image or decision.stack
    settings = {
        "target": decision.target.name,
        "stack": source.name if source else None,
        "python": decision.python,
        "environment": path_for(places.prefix, lock).rsplit("/", 1)[-1] if lock else None,
        "image": hosting.reference if hosting else None,
        "container_engine": hosting.program if hosting else None,
        "model": serve.model,
        "revision": serve.revision,
        "served_model_name": serve.served_name,
        "chat_template": serve.chat_template,
        "cache_directory": places.huggingface,
        "port": serve.port,
        "bind": serve.host,
        "context_length": serve.context_length,
        "mem_fraction": serve.mem_fraction,
        "gpus": options.gpus,
        "extra": " ".join(options.extra or ()) or None,
        "key": "set" if key else None,
    }
    return Asked(options=asked, settings={name: str(value) for name, value in settings.items() if value is not None})


def differences(server: Server, launch: Launch, *, other_key: bool = False) -> tuple[Change, ...]:
    """What differs between a server and a launch in its place, by name; where no setting does, in their commands."""
    old = server.asked.settings if server.asked else _told_by(server)
    new = launch.asked.settings if launch.asked else {}
    # Of a server whose options nobody wrote down, only what its record tells can differ.
    names = [name for name in dict.fromkeys([*old, *new]) if server.asked or name in old]
    found = [
        Change(setting=name, old=old.get(name), new=new.get(name)) for name in names if old.get(name) != new.get(name)
    ]
    if other_key and not any(change.setting == "key" for change in found):
        found.append(Change(setting="key", old=old.get("key"), new="another"))
    return tuple(found) or (_other_words(server, launch),)


def _other_words(server: Server, launch: Launch) -> Change:
    """What differs between two commands of the same settings; of variables only the names, sorted, without values."""
    gone = [word for word in server.argv if word not in launch.argv]
    come = [word for word in launch.argv if word not in server.argv]
    if gone or come:
        return Change(setting="command", old=shlex.join(gone) or None, new=shlex.join(come) or None)
    names = sorted({name for name, _ in server.variables.items() ^ launch.variables.items()})
    return Change(setting="variables", old=None, new=", ".join(names) or None)


def _told_by(server: Server) -> dict[str, str]:
    """The settings of a server whose options nobody wrote down, as far as its record tells them."""
    told = {"stack": server.stack, "port": str(urlsplit(server.url).port or "") or None}
    if server.serve:
        told |= {"bind": server.serve.host, "context_length": _text(server.serve.context_length)}
    return {name: value for name, value in told.items() if value is not None}


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
