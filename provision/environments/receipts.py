"""Receipts: what was installed, when, from which lock, and how its smoke test went."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any

import msgspec

from provision import __version__
from provision.documents import decode_json
from provision.host import Host, HostView

SCHEMA = 1
LATEST = "receipt.json"
HISTORY = "receipts"


class Receipt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """One successful run. Either `environment` (a name) with its lock, or `image` with its digest, is set.

    `time` is UTC (ISO 8601), `model_revision` the commit of a model of the hub. `smoke` is what the smoke test
    measured, `server` the one that passed it; no field ever holds a secret. After a rollback `rolled_back_from` is the
    environment that was left: servers of it follow when they are started again, if the other one was theirs before.
    """

    target: str
    stack: str | None = None
    environment: str | None = None
    lock: str | None = None
    lock_digest: str | None = None
    python: str | None = None
    interpreter: str | None = None
    image: str | None = None
    image_digest: str | None = None
    model: str | None = None
    model_revision: str | None = None
    port: int | None = None
    smoke: dict[str, Any] = {}
    rolled_back_from: str | None = None
    server: str | None = None
    sgprov: str = __version__
    time: str = ""
    schema: int = SCHEMA

    def same_as(self, other: Receipt | None) -> bool:
        """Whether both say the same installation, whenever it was made and however its test went."""
        if other is None:
            return False
        unset: dict[str, Any] = {"time": "", "smoke": {}}
        return msgspec.structs.replace(self, **unset) == msgspec.structs.replace(other, **unset)


def now() -> str:
    """The time in UTC, such as `2026-01-31T10:20:30Z`."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_receipt(host: Host, prefix: str, receipt: Receipt, *, places: Iterable[str] | None = None) -> Receipt:
    """Write a receipt, with the time, beside the older ones and as the latest of `places` (the prefix); those last."""
    stamped = msgspec.structs.replace(receipt, time=now())
    text = msgspec.json.format(msgspec.json.encode(stamped), indent=2).decode() + "\n"
    host.write(f"{prefix}/{HISTORY}/{stamped.time.replace(':', '-')}.json", text)
    for place in (prefix,) if places is None else places:
        host.write(f"{place}/{LATEST}", text)
    return stamped


def read_receipt(view: HostView, prefix: str) -> Receipt | None:
    """The latest receipt; one that cannot be read, or is of a later schema, counts as absent."""
    return _read(view, f"{prefix}/{LATEST}")


def environment_receipt(view: HostView, prefix: str) -> Receipt | None:
    """The newest receipt that names an environment: a server from an image, under the same prefix, has none to name."""
    latest = read_receipt(view, prefix)
    if latest is None or latest.environment:
        return latest
    return next((one for one in receipt_history(view, prefix) if one.environment), None)


def receipt_history(view: HostView, prefix: str) -> tuple[Receipt, ...]:
    """All readable receipts, the newest first."""
    paths = reversed(view.glob(f"{glob.escape(prefix)}/{HISTORY}/*.json"))
    return tuple(receipt for path in paths if (receipt := _read(view, path)) is not None)


def _read(view: HostView, path: str) -> Receipt | None:
    text = view.read_state(path)
    if text is None:
        return None
    try:
        receipt = decode_json(text, Receipt)
    except msgspec.DecodeError:
        return None
    return receipt if receipt.schema <= SCHEMA else None
