"""Where the data lies that is not Python: inside an installed package, or beside it in a checkout."""

from __future__ import annotations

from pathlib import Path

from provision.errors import ProvisionError

_PACKAGE = Path(__file__).parents[1]


def folder(name: str) -> Path:
    """The folder `lockfiles` or `playbooks`. Raises `ProvisionError` where an installation lacks it."""
    for place in (_PACKAGE / "_shipped" / name, _PACKAGE.parent / name):
        if place.is_dir():
            return place
    raise ProvisionError(f"this installation of sgprov has no `{name}`", hint="install it again from its wheel")
