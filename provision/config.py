"""Flags, environment and sgprov.yml become `Options`; the only reader of the process's environment."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from provision.errors import UsageError

# Names whose values are secrets: they reach a child only where a step passes them by name.
SECRET_VARIABLES = (
    *("NGC_API_KEY", "NGC_CLI_API_KEY", "SGPROV_REGISTRY_KEY"),
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "SGPROV_API_KEY"),
)
# Variables of the caller that would reach into an environment of ours: they change what it imports, or (the last one)
# keep its bytecode from being written, which doubles the time of every start.
LEAKING_VARIABLES = (
    *("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONSTARTUP", "__PYVENV_LAUNCHER__"),
    "PYTHONDONTWRITEBYTECODE",
)
CONFIG_FILE = "sgprov.yml"


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
    host: str | None = None
    name: str | None = None
    context_length: int | None = None
    mem_fraction: float | None = None
    gpus: str | None = None
    stack: str | None = None
    image: str | None = None
    container_engine: str | None = None


def process_environment() -> dict[str, str]:
    """The environment for children: this process's, less secrets and what would leak into their imports."""
    hidden = {*SECRET_VARIABLES, *LEAKING_VARIABLES}
    return {name: value for name, value in os.environ.items() if name not in hidden}


def secret(name: str) -> str | None:
    """The value of one secret variable, for the step that hands it on by name; never store or print it."""
    return os.environ.get(name) or None


def load(flags: Mapping[str, Any], *, file: str | None = None) -> Options:
    """Merge flags over `SGPROV_*` variables over the config file. Unknown keys are errors that suggest the nearest."""
    options = _from_file(file)
    options = _merge(options, _from_variables(), source="the environment")
    return _merge(options, {k: v for k, v in flags.items() if v is not None}, source="the command line")


def _from_file(file: str | None) -> Options:
    path = Path(file or os.environ.get("SGPROV_CONFIG") or CONFIG_FILE)
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
        if name.startswith("SGPROV_") and key in known and value:
            given[key] = value
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
    kinds = {"context_length": int, "mem_fraction": float}
    if key == "python" and isinstance(value, float):
        raise UsageError(f"`python: {value}` in {source} is a number", hint='quote it: `python: "3.10"`')
    kind = kinds.get(key, str)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise UsageError(f"`{key}` in {source} must be a {kind.__name__}, not a {type(value).__name__}")
    try:
        return kind(value)
    except ValueError:
        raise UsageError(f"`{key}` in {source} must be a {kind.__name__}, not `{value}`") from None
