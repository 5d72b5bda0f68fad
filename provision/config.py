"""Flags, environment and sgprov.yml become `Options`; the only reader of the process's environment."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from provision import documents, trust
from provision.errors import NotPermitted, UntrustedPath, UsageError
from provision.options import ONE_RUN, OPTION, VARIABLE_PREFIX
from provision.report import Finding, Severity, notice
from provision.secrets import know

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
# Lists of directories in which children look for what they run, load or compile.
_SEARCHED = ("PATH", "LD_LIBRARY_PATH", "LIBRARY_PATH", "CPATH")
# Variables whose values are credentials, whoever they are for; and the login in an address.
_SECRET_NAME = re.compile(r"(?:TOKEN|KEY|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)$", re.IGNORECASE)
_LOGIN = re.compile(r"://([^\s/?#@]+(?:@[^\s/?#@]+)*)@")
CONFIG_FILE = "sgprov.yml"
_LIMIT_BYTES = 256 * 1024
# Of the variables of Ansible and its runner, those that say how hosts are reached and vaults are opened. All others are
# left out for a fleet: most name folders or plugins whose code would be run.
_ANSIBLE_PREFIXES = ("ANSIBLE_", "AWX_", "RUNNER_")
_ANSIBLE_VARIABLES = frozenset(
    {
        *("ANSIBLE_REMOTE_USER", "ANSIBLE_REMOTE_PORT", "ANSIBLE_PRIVATE_KEY_FILE", "ANSIBLE_SSH_COMMON_ARGS"),
        *("ANSIBLE_CONNECTION_PASSWORD_FILE", "ANSIBLE_BECOME_PASSWORD_FILE", "ANSIBLE_VAULT_PASSWORD_FILE"),
        *("ANSIBLE_BECOME", "ANSIBLE_BECOME_METHOD", "ANSIBLE_BECOME_USER"),
        *("ANSIBLE_VAULT_IDENTITY", "ANSIBLE_VAULT_IDENTITY_LIST", "ANSIBLE_INVENTORY_ENABLED"),
    }
)
# `SGPROV_*` variables that are no wishes.
_OTHER_VARIABLES = ("api_key", "config", "home", "server", "wheels")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user asked for; `options.OPTIONS` says what each is. None is "not said": the target's row decides.

    Sources, strongest first: command-line flags, `SGPROV_*` variables, `sgprov.yml`. `port` is a number or `auto`;
    `python` a version (`3.10`) or the path of an interpreter. `image` is a container image to serve from: in place of
    a target's own, or to run its stack in. `extra` goes to the engine as it is.
    """

    target: str | None = None
    prefix: str | None = None
    python: str | None = None
    model: str | None = None
    revision: str | None = None
    allow_pickle: bool | None = None
    served_model_name: str | None = None
    chat_template: str | None = None
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
    extra: tuple[str, ...] | None = None
    allow_unauthenticated: bool | None = None
    insecure: bool | None = None


def process_environment() -> dict[str, str]:
    """The environment for children: this process's, less secrets and what would leak into their imports.

    Programs and libraries are searched for in absolute directories only.
    """
    hidden = {*SECRET_VARIABLES, *LEAKING_VARIABLES, WHEELS_VARIABLE}
    given = {name: _searched(name, value) for name, value in os.environ.items() if name not in hidden}
    return {name: value for name, value in given.items() if value or name not in _SEARCHED}


def _searched(name: str, value: str) -> str:
    """The value of a variable. In a list of directories an empty entry (`:` at its end) is the current one, too."""
    if name not in _SEARCHED:
        return value
    return os.pathsep.join(entry for entry in value.split(os.pathsep) if entry.startswith("/"))


def secret(name: str) -> str | None:
    """The value of one secret variable, for the step that hands it on by name; never store or print it."""
    return os.environ.get(name) or None


def know_secrets() -> None:
    """Have the credentials in this process's environment masked by their values: those of indexes and proxies, too."""
    for name, value in os.environ.items():
        if name == WHEELS_VARIABLE or "://" in value:
            know(*(unquote(word) for login in _LOGIN.findall(value) for word in login.split(":", 1)[-1:]))
        elif name in SECRET_VARIABLES or (_SECRET_NAME.search(name) and not value.startswith(("/", "~", "."))):
            know(value)


@contextmanager
def ready_for_ansible(programs: str, variables: Mapping[str, str]) -> Iterator[None]:
    """While the block runs, Ansible's programs are on the PATH, its settings are `variables` and those of the caller's
    that only say how hosts are reached, and no secret is in what its children inherit.
    """
    kept = dict(os.environ)
    for name in kept:
        dropped = name.startswith(_ANSIBLE_PREFIXES) and name not in _ANSIBLE_VARIABLES
        if dropped or name in {*SECRET_VARIABLES, WHEELS_VARIABLE}:
            del os.environ[name]
    os.environ["PATH"] = f"{programs}{os.pathsep}{_searched('PATH', kept.get('PATH', os.defpath))}"
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in os.environ.keys() - kept.keys():
            del os.environ[name]
        os.environ.update(kept)


def load(flags: Mapping[str, Any], *, file: str | None = None) -> Options:
    """Merge flags over `SGPROV_*` variables over the config file. Unknown keys are errors that suggest the nearest."""
    options = _from_file(file)
    options = _merge(options, _from_variables(), source="the environment")
    return _merge(options, {k: v for k, v in flags.items() if v is not None}, source="the command line")


def _from_file(file: str | None) -> Options:
    file = file or os.environ.get("SGPROV_CONFIG") or None
    source = f"`{file or CONFIG_FILE}`"
    raw = _named(file) if file else _found()
    if raw is None:
        return Options()
    given = documents.parse_yaml(raw, source=source) or {}
    if not isinstance(given, dict):
        raise UsageError(f"{source} must hold keys and values, not a {type(given).__name__}")
    options = _merge(Options(), given, source=source)
    if not file:
        _refuse_unsaid(given, source=source)
        _refuse_found(given, source=source)
    return options


def _named(file: str) -> bytes:
    """The file that was named. Raises `UsageError` for one that another user could have written."""
    try:
        trust.require(str(Path(file).expanduser()))
        # Links are followed, each of which was looked at; it is opened where they lead.
        descriptor = trust.open_state(str(Path(file).expanduser().resolve()))
    except FileNotFoundError:
        raise UsageError(f"there is no file at `{file}`", hint="name an existing one with `--config`") from None
    except (UntrustedPath, NotPermitted) as error:
        raise UsageError(f"`{file}` is not read: {error}", hint=error.hint) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(f"`{file}` cannot be read: {error}") from error
    return documents.read_descriptor(descriptor, file, limit=_LIMIT_BYTES)


def _found() -> bytes | None:
    """The file in the current directory; one that another user could have written is passed over, and that is told."""
    try:
        path = str(Path.cwd() / CONFIG_FILE)
        descriptor = trust.open_state(path)
    except FileNotFoundError:
        return None
    except (UntrustedPath, NotPermitted, OSError) as error:
        if not os.path.lexists(CONFIG_FILE):
            # A directory of others without one is no reason to say anything.
            return None
        notice(
            Finding(
                check="config-ignored",
                severity=Severity.WARNING,
                text=f"`{path}` is ignored: {error}",
                fix=(getattr(error, "hint", None) or "`ls -l` says whose it is", "or give what it says as flags"),
            )
        )
        return None
    return documents.read_descriptor(descriptor, CONFIG_FILE, limit=_LIMIT_BYTES)


def _refuse_unsaid(given: Mapping[Any, Any], *, source: str) -> None:
    """Raise `UsageError` for what counts only where somebody asks for it knowingly."""
    for key in given:
        if key in OPTION and OPTION[key].explicit:
            hint = f"give `{OPTION[key].flag}`, or name the file that says so with `--config`"
            raise UsageError(f"`{key}` is not taken from {source}", hint=hint)


def _refuse_found(given: Mapping[Any, Any], *, source: str) -> None:
    """Raise `UsageError` for what runs code or says where state lies: a file that came with a download is not asked."""
    for key in given:
        if key in OPTION and OPTION[key].named_file_only:
            hint = f"`--config {CONFIG_FILE}` takes it from there, or give `{OPTION[key].flag}`"
            raise UsageError(f"`{key}` is not taken from a {source} that nobody named", hint=hint)


def _from_variables() -> dict[str, str]:
    known = _names()
    given = {}
    for name, value in os.environ.items():
        key = name.removeprefix(VARIABLE_PREFIX).lower()
        if not name.startswith(VARIABLE_PREFIX) or not value:
            continue
        if key in known:
            _refuse_unsaid({key: value}, source=f"`{name}`")
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
            if str(key) in ONE_RUN:
                flag = f"--{str(key).replace('_', '-')}"
                raise UsageError(f"`{key}` is not taken from {source}", hint=f"it is for one run: `{flag}`")
            hint = f"did you mean `{near[0]}`?" if near else f"the keys are {', '.join(known)}"
            raise UsageError(f"{source} has an unknown key: `{key}`", hint=hint)
        clean[key] = OPTION[key].value(value, source=source)
    return replace(options, **clean)


def _names() -> list[str]:
    return list(OPTION)
