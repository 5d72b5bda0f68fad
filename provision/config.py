"""Flags, environment and sgprov.yml become `Options`; the only reader of the process's environment."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from provision.errors import UsageError

# Names whose values are secrets: they reach a child only where a step passes them by name.
SECRET_VARIABLES = (
    *("NGC_API_KEY", "NGC_CLI_API_KEY", "SGPROV_REGISTRY_KEY"),
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "SGPROV_API_KEY"),
)
# Where a fleet's controller serves wheels to its hosts: an address with a token in it, so a secret too.
WHEELS_VARIABLE = "SGPROV_WHEELS"
# Variables of the caller that would reach into an environment of ours: they change what it imports, or (the last one)
# keep its bytecode from being written, which doubles the time of every start.
LEAKING_VARIABLES = (
    *("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONSTARTUP", "__PYVENV_LAUNCHER__"),
    "PYTHONDONTWRITEBYTECODE",
)
CONFIG_FILE = "sgprov.yml"
# `SGPROV_*` variables that are no wishes.
_OTHER_VARIABLES = ("api_key", "config", "home", "server", "wheels")
# What a number may be, both ends included.
_RANGES: dict[str, tuple[float, float]] = {"context_length": (1, 100_000_000), "mem_fraction": (0.01, 1.0)}
# Not four numbers: that would be an address, and a wrong one.
_HOST_NAME = re.compile(r"(?![0-9.]+$)[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user asked for. None is "not said": the target's row decides.

    Sources, strongest first: command-line flags, `SGPROV_*` variables, `sgprov.yml`. `port` is a number or `auto`;
    `python` a version (`3.10`) or the path of an interpreter. `image` is a container image to serve from: in place of
    a target's own, or to run its stack in.
    """

    target: str | None = None
    prefix: str | None = None
    python: str | None = None
    model: str | None = None
    model_directory: str | None = None
    cache_directory: str | None = None
    port: str | None = None
    bind: str | None = None
    name: str | None = None
    context_length: int | None = None
    mem_fraction: float | None = None
    gpus: str | None = None
    stack: str | None = None
    image: str | None = None
    container_engine: str | None = None


def process_environment() -> dict[str, str]:
    """The environment for children: this process's, less secrets and what would leak into their imports."""
    hidden = {*SECRET_VARIABLES, *LEAKING_VARIABLES, WHEELS_VARIABLE}
    return {name: value for name, value in os.environ.items() if name not in hidden}


def secret(name: str) -> str | None:
    """The value of one secret variable, for the step that hands it on by name; never store or print it."""
    return os.environ.get(name) or None


@contextmanager
def ready_for_ansible(programs: str) -> Iterator[None]:
    """While the block runs, Ansible's programs are on the PATH and no secret is in what its children inherit."""
    kept = {name: os.environ.pop(name) for name in (*SECRET_VARIABLES, WHEELS_VARIABLE) if name in os.environ}
    path = os.environ.get("PATH", os.defpath)
    os.environ["PATH"] = f"{programs}{os.pathsep}{path}"
    try:
        yield
    finally:
        os.environ["PATH"] = path
        os.environ.update(kept)


def load(flags: Mapping[str, Any], *, file: str | None = None) -> Options:
    """Merge flags over `SGPROV_*` variables over the config file. Unknown keys are errors that suggest the nearest."""
    options = _from_file(file)
    options = _merge(options, _from_variables(), source="the environment")
    return _merge(options, {k: v for k, v in flags.items() if v is not None}, source="the command line")


def _from_file(file: str | None) -> Options:
    file = file or os.environ.get("SGPROV_CONFIG") or None
    path = Path(file or CONFIG_FILE)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if file:
            raise UsageError(f"there is no file at `{path}`", hint="name an existing one with `--config`") from None
        return Options()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"`{path}` cannot be read: {error}") from error
    import yaml  # noqa: PLC0415  # only where there is a file

    try:
        given = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise UsageError(f"`{path}` is not valid YAML: {error}") from error
    if not isinstance(given, dict):
        raise UsageError(f"`{path}` must hold keys and values, not a {type(given).__name__}")
    return _merge(Options(), given, source=f"`{path}`")


def _from_variables() -> dict[str, str]:
    known = _names()
    given = {}
    for name, value in os.environ.items():
        key = name.removeprefix("SGPROV_").lower()
        if not name.startswith("SGPROV_") or not value:
            continue
        if key in known:
            given[key] = value
        elif key not in _OTHER_VARIABLES and (near := difflib.get_close_matches(key, known, n=1, cutoff=0.75)):
            raise UsageError(
                f"the environment has an unknown `{name}`", hint=f"did you mean `SGPROV_{near[0].upper()}`?"
            )
    return given


def _merge(options: Options, given: Mapping[Any, Any], *, source: str) -> Options:
    known = _names()
    clean = {}
    for key, value in given.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"the keys are {', '.join(known)}"
            raise UsageError(f"{source} has an unknown key: `{key}`", hint=hint)
        clean[key] = _typed(key, value, source=source)
    return replace(options, **clean)


def _names() -> list[str]:
    return [field.name for field in fields(Options)]


def _typed(key: str, value: Any, *, source: str) -> Any:
    """A value of the field's type. YAML's `python: 3.10` arrives as the number 3.1: refused, not guessed."""
    kinds: dict[str, type] = {"context_length": int, "mem_fraction": float}
    if key == "python" and isinstance(value, float):
        raise UsageError(f"`python: {value}` in {source} is a number", hint='quote it: `python: "3.10"`')
    kind = kinds.get(key, str)
    wanted = {int: "a whole number", float: "a number"}.get(kind, "text")
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise UsageError(f"`{key}` in {source} must be {wanted}, not a {type(value).__name__}")
    try:
        typed = kind(value)
    except (ValueError, OverflowError):
        raise UsageError(f"`{key}` in {source} must be {wanted}, not `{value}`") from None
    lowest, highest = _RANGES.get(key, (None, None))
    if lowest is not None and highest is not None and not lowest <= typed <= highest:
        raise UsageError(f"`{key}` in {source} must be from {lowest} to {highest}, not {value}")
    if key == "name" and not _NAME.fullmatch(typed):
        raise UsageError(
            f"`{value}` cannot name a server", hint="use small letters, digits, `.`, `_` and `-`, at most 63 of them"
        )
    if key == "bind" and not _is_address(typed):
        raise UsageError(f"`{value}` is not an address to listen on", hint="such as `127.0.0.1`, `0.0.0.0` or `::`")
    if key == "python" and "/" not in typed and not re.fullmatch(r"3\.\d{1,2}(\.\d{1,2})?", typed):
        raise UsageError(f"`{value}` is not a Python", hint="a version such as `3.10`, or the path of an interpreter")
    return typed


def _is_address(text: str) -> bool:
    """Whether it is an IP address, or a name that could be one's."""
    import ipaddress  # noqa: PLC0415  # only where an address is asked for

    try:
        ipaddress.ip_address(text)
    except ValueError:
        return _HOST_NAME.fullmatch(text) is not None
    return True
