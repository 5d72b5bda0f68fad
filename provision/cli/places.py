"""Where on this machine sgprov has been at work: the prefixes that hold servers and environments."""

from __future__ import annotations

import shlex

from provision import config
from provision.catalog.load import Catalog
from provision.catalog.rows import Layout
from provision.decision.choose import places_of
from provision.host import HostView


def prefixes(view: HostView, wishes: config.Options) -> tuple[str, ...]:
    """The prefix that was named, or of the named target, or all that exist: the default one and each target's."""
    home = view.variable("HOME") or "/root"
    catalog = Catalog()
    if wishes.prefix:
        return (places_of(Layout(), wishes, home).prefix,)
    if wishes.target:
        return (places_of(catalog.target(wishes.target).layout, wishes, home).prefix,)
    layouts = [Layout(), *(target.layout for target in catalog.targets)]
    found = dict.fromkeys(places_of(layout, wishes, home).prefix for layout in layouts)
    return tuple(prefix for prefix in found if view.stat(prefix) is not None)


def flag_for(view: HostView, prefix: str) -> str:
    """` --prefix DIR` for a command that somebody is to type, where that command would not look there by itself."""
    return "" if prefix in prefixes(view, config.load({})) else f" --prefix {shlex.quote(prefix)}"
