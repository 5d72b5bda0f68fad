"""Which environment is in use: two links, replaced one at a time, each in one step."""

from __future__ import annotations

from provision.environments.layout import CURRENT, PREVIOUS, current, previous, read_stamp
from provision.errors import StepFailed
from provision.host import Host


def switch(host: Host, prefix: str, path: str) -> None:
    """Make `path` the environment in use and keep the one before it as `previous`.

    Raises `StepFailed` for an environment without a stamp: what was interrupted must never be in use.
    """
    if read_stamp(host, path) is None:
        raise StepFailed(
            f"`{path}` is not a complete environment", hint="run `sgprov bootstrap` again: it completes it"
        )
    before = current(host, prefix)
    if before == path:
        return
    # `previous` first: killed in between, both links lead to the old environment, which is in use and whole.
    if before is not None:
        host.link(f"{prefix}/{PREVIOUS}", _relative(before))
    host.link(f"{prefix}/{CURRENT}", _relative(path))


def rollback(host: Host, prefix: str) -> str:
    """Go back to `previous` and return its path; doing it twice comes back. Raises `StepFailed` without one."""
    before = previous(host, prefix)
    if before is None or read_stamp(host, before) is None:
        raise StepFailed(
            f"there is no earlier environment under `{prefix}` to go back to",
            hint="`sgprov environments list` shows those there are",
        )
    if before == current(host, prefix):
        raise StepFailed(f"`{before}` is in use already, and no other is kept")
    switch(host, prefix, before)
    return before


def _relative(path: str) -> str:
    # Relative, so that the links survive a prefix that is mounted elsewhere in a container.
    return f"environments/{path.rsplit('/', 1)[-1]}"
