"""Which environment is in use: two links, replaced one at a time, each in one step; and the receipt of a rollback."""

from __future__ import annotations

import msgspec

from provision.environments.claims import release
from provision.environments.layout import CURRENT, PREVIOUS, Stamp, current, previous, read_stamp
from provision.environments.locking import alone
from provision.environments.receipts import Receipt, environment_receipt, receipt_history, write_receipt
from provision.errors import StepFailed
from provision.host import Host


def switch(host: Host, prefix: str, path: str) -> None:
    """Make `path` the environment in use and keep the one before it as `previous`.

    Raises `StepFailed` for an environment without a stamp: what was interrupted must never be in use.
    """
    with alone(host, prefix):
        _switch(host, prefix, path)


def _switch(host: Host, prefix: str, path: str) -> None:
    if read_stamp(host, path) is None:
        raise StepFailed(
            f"`{path}` is not a complete environment", hint="run `sgprov bootstrap` again: it makes it anew"
        )
    before = current(host, prefix)
    if before == path:
        release(path)
        return
    # `previous` first: killed in between, both links lead to the old environment, which is in use and whole.
    if before is not None:
        host.link(f"{prefix}/{PREVIOUS}", _relative(before))
    host.link(f"{prefix}/{CURRENT}", _relative(path))
    release(path)


def rollback(host: Host, prefix: str) -> str:
    """Go back to `previous` and return its path; doing it twice comes back. Raises `StepFailed` without one.

    The receipt then says what is in use, and from where it was gone back. Interrupted between the two, the receipt
    still says what was installed last, as `doctor` will tell; running it again would come back.
    """
    with alone(host, prefix):
        return _rollback(host, prefix)


def _rollback(host: Host, prefix: str) -> str:
    now, before = current(host, prefix), previous(host, prefix)
    stamp = read_stamp(host, before) if before else None
    if before is None or stamp is None:
        raise StepFailed(
            f"there is no earlier environment under `{prefix}` to go back to",
            hint="`sgprov environments list` shows those there are",
        )
    if before == now:
        raise StepFailed(f"`{before}` is in use already, and no other is kept")
    receipt = _receipt(host, prefix, stamp)
    _switch(host, prefix, before)
    if receipt and now:
        left = now.rsplit("/", 1)[-1]
        write_receipt(host, prefix, msgspec.structs.replace(receipt, smoke={}, rolled_back_from=left))
    return before


def _receipt(host: Host, prefix: str, stamp: Stamp) -> Receipt | None:
    """What the receipt of an environment says: the one it was given when it was installed, or what its stamp knows."""
    found = next((one for one in receipt_history(host, prefix) if one.environment == stamp.name), None)
    if found:
        return found
    latest = environment_receipt(host, prefix)
    if latest is None:
        return None
    return Receipt(
        target=latest.target,
        stack=stamp.stack,
        environment=stamp.name,
        lock=stamp.lock,
        lock_digest=stamp.lock_digest,
        python=".".join(stamp.python.split(".")[:2]),
        interpreter=stamp.interpreter,
    )


def _relative(path: str) -> str:
    # Relative, so that the links survive a prefix that is mounted elsewhere in a container.
    return f"environments/{path.rsplit('/', 1)[-1]}"
