"""Where on this machine sgprov has been at work: the prefixes that hold servers and environments."""

from __future__ import annotations

import shlex

from provision import config
from provision.host import HostView
from provision.remembered import prefixes


def flag_for(view: HostView, prefix: str) -> str:
    """` --prefix DIR` for a command that somebody is to type, where that command would not look there by itself."""
    return "" if prefix in prefixes(view, config.load({})) else f" --prefix {shlex.quote(prefix)}"
