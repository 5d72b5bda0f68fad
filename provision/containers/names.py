"""What may stand in a command of a container engine: nothing that it would read as an option, or as two fields."""

from __future__ import annotations

import hashlib
import ipaddress
import re

from provision.errors import UsageError

# https://github.com/distribution/reference: a registry, a path, a tag, a digest; or an image's id.
_REFERENCE = re.compile(r"(?:\[[0-9a-fA-F:.]+\]:\d{1,5}/)?[A-Za-z0-9][A-Za-z0-9._/:@+-]{0,500}")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# `--mount` reads its value as a line of comma-separated values.
_PARTING = re.compile(r'[,"\x00-\x1f\x7f]')


def unique_name(prefix: str, server: str) -> str:
    """What the container or unit of a server is called: two prefixes of a machine may each have one of that name."""
    return f"sgprov-{server}-{hashlib.sha256(prefix.encode()).hexdigest()[:8]}"


def checked_reference(reference: str) -> str:
    """The reference of an image. Raises `UsageError` for what is none, such as an option."""
    if not _REFERENCE.fullmatch(reference):
        raise UsageError(f"`{reference}` is not the name of an image", hint="such as `docker.io/library/debian:12`")
    return reference


def checked_name(name: str) -> str:
    """The name of a container."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"`{name}` is not the name of a container", hint="choose another with `--name`")
    return name


def checked_path(path: str) -> str:
    """A path that is to be mounted."""
    if not path.startswith("/") or _PARTING.search(path):
        raise UsageError(
            f"`{path}` cannot be mounted into a container",
            hint="a whole path without commas, quotes and line breaks: `--prefix`, `--model`, `--cache-directory`",
        )
    return path


def checked_variable(name: str) -> str:
    """The name of a variable."""
    if not _VARIABLE.fullmatch(name):
        raise UsageError(f"`{name}` is not the name of a variable")
    return name


def checked_address(address: str) -> str:
    """Where a port is published: engines take addresses, and no names."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        raise UsageError(
            f"a container's port is published on an IP address, not on `{address}`", hint="`--bind 127.0.0.1`"
        ) from None
