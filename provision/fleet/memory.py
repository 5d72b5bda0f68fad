"""How the last run over an inventory ended, so that the next one can take up what failed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from provision.errors import UsageError
from provision.fleet.model import State
from provision.host import Host
from provision.host.scratch import state_directory


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """Host to how it ended."""

    inventory: str
    command: str
    hosts: dict[str, str]


def place(host: Host, inventory: str) -> str:
    """The file for that inventory, in the user's state folder."""
    name = hashlib.sha256(str(Path(inventory).absolute()).encode()).hexdigest()[:16]
    return str(state_directory(host) / "fleets" / f"{name}.json")


def remember(host: Host, inventory: str, command: str, states: Mapping[str, State]) -> None:
    """Keep how each host of this run ended; those that it did not mean keep what is known of them.

    Raises `StepFailed` or `UntrustedPath` where that cannot be written.
    """
    before = recall(host, inventory)
    hosts = {**(before.hosts if before else {}), **{name: state.value for name, state in states.items()}}
    kept = Remembered(inventory=str(Path(inventory).absolute()), command=command, hosts=hosts)
    host.write(place(host, inventory), msgspec.json.encode(kept).decode() + "\n", mode=0o600)


def recall(host: Host, inventory: str) -> Remembered | None:
    """What is remembered; one that is damaged counts as absent. Raises `UntrustedPath` for what is no file of ours."""
    text = host.read_state(place(host, inventory))
    try:
        return msgspec.json.decode(text.encode(), type=Remembered) if text else None
    except msgspec.MsgspecError:
        return None


def failed(host: Host, inventory: str) -> tuple[str, ...]:
    """The hosts that did not end well. Raises `UsageError` where nothing is known, or nothing failed."""
    known = recall(host, inventory)
    if known is None:
        raise UsageError("nothing is known of an earlier run over this inventory", hint="leave `--failed` out")
    names = tuple(name for name, state in known.hosts.items() if state != State.OK.value)
    if not names:
        raise UsageError("no host of the last run failed", hint="leave `--failed` out")
    return names
