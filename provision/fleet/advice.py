"""What there is to do about hosts that sgprov was never brought to: nothing is wrong with them."""

from __future__ import annotations

import shlex

from provision.fleet.model import HostState

# What a shell says of a program that is not there, and the module of sgprov.
_NO_TOOL = 127


def without_tool(host: HostState, inventory: str) -> None:
    """Say of a host that was asked for something, and has no sgprov, how it gets it."""
    if host.exit_status == _NO_TOOL:
        limit = f"-i {shlex.quote(inventory)} --limit {shlex.quote(host.name)}"
        host.finding = (
            "sgprov is not on this host yet\n"
            f"hint: `sgprov fleet doctor {limit} --install-tool` brings sgprov alone, and looks; "
            f"`sgprov fleet bootstrap {limit}` brings all"
        )


def would_come(host: HostState, target: str | None) -> None:
    """Say of such a host in a dry run what is known: it cannot tell yet what it would become."""
    wanted = f"its target `{target}`" if target else "the target that fits it best"
    host.finding = (
        f"to get sgprov, then {wanted}\n"
        "hint: with `--install-tool`, sgprov alone is brought to it, and it says what it would become"
    )
    host.changed = True
