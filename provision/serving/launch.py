"""Turn the settings of a target into the command that starts one version of an engine; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Literal

import msgspec

from provision.catalog.engines import Engine, Flag
from provision.catalog.engines import engine as engine_named
from provision.catalog.rows import Serve
from provision.errors import UsageError
from provision.serving.keys import SCRIPT
from provision.serving.ports import DerivedPort, derive

# Not a setting with a flag of its own: the model is part of the command, `extra` is passed on as it is.
_ELSEWHERE = ("model", "extra")


@dataclass(frozen=True, kw_only=True)
class Inside:
    """The container that a server runs in, and where it is published. `secrets` are handed on by the engine by name."""

    program: Literal["docker", "podman"]
    name: str
    port: int
    address: str = "127.0.0.1"
    secrets: tuple[str, ...] = ()
    restarts: int = 0


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a server was asked for: `options` by name, as they were given, and the `settings` that came of them."""

    options: dict[str, bool | str | int | float | tuple[str, ...]] = {}
    settings: dict[str, str] = {}

    def of_environment(self, environment: str, *, stack: str, python: str) -> Asked:
        """The same for another environment, whatever stack and Python were asked for before."""
        options = {name: value for name, value in self.options.items() if name not in {"stack", "python"}}
        settings = {**self.settings, "stack": stack, "python": python, "environment": environment}
        return Asked(options=options, settings=settings)


@dataclass(frozen=True, kw_only=True)
class Launch:
    """A server, ready to be started: its command, the variables to set, where it answers and what ports it takes.

    With `container` the command is that of the container's engine, and what it prints is the container's id.
    `serve`, `python` and `given` are what it was rendered from, None where the command was not made by `render`.
    `key_file` is where a server with an API key finds it. `asked` goes into the server's record.
    """

    engine: str
    version: str
    argv: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)
    url: str
    model: str
    ports: tuple[DerivedPort, ...] = ()
    container: Inside | None = None
    serve: Serve | None = None
    python: str | None = None
    given: dict[str, str] = field(default_factory=dict)
    key_file: str | None = None
    asked: Asked | None = None


def render(
    engine: str,
    version: str,
    serve: Serve,
    *,
    python: str,
    model_path: str,
    given: Mapping[str, str] | None = None,
    key_file: str | None = None,
) -> Launch:
    """The launch of `serve` with that version of an engine, whose environment's interpreter is `python`.

    `given` are variables beside those that the engine's rows set, `key_file` holds the key that clients must have.
    Raises `UsageError` for a setting that this version does not know.
    """
    row = engine_named(engine)
    words = {"python": python, "bin": str(PurePosixPath(python).parent), "model": model_path}
    argv = [word.format_map(words) for word in _command(row, version, words, key_file)]
    variables = {
        variable.name: variable.value
        for variable in row.rows(row.variables, version)
        if variable.when == "always" or PurePosixPath(model_path).is_absolute()
    }
    for flag, value in _flags(row, version, serve):
        argv += [word.format(value=value) for word in flag.argv]
        variables |= {name: text.format(value=value) for name, text in flag.variables.items()}
    return Launch(
        engine=engine,
        version=version,
        argv=(*argv, *serve.extra),
        variables={**(given or {}), **variables},
        url=url_of(serve.host, serve.port),
        model=model_path,
        ports=derive(row, version, serve),
        serve=serve,
        python=python,
        given=dict(given or {}),
        key_file=key_file,
    )


def at(launch: Launch, model_path: str) -> Launch:
    """The same launch with the model at that place; as it is where it was not made by `render`."""
    if launch.serve is None or launch.python is None or launch.model == model_path:
        return launch
    rendered = render(
        launch.engine,
        launch.version,
        launch.serve,
        python=launch.python,
        model_path=model_path,
        given=launch.given,
        key_file=launch.key_file,
    )
    return replace(rendered, asked=launch.asked)


def _command(row: Engine, version: str, words: dict[str, str], key_file: str | None) -> tuple[str, ...]:
    launch = row.rows(row.launch, version)[0]
    if key_file is None:
        return launch.argv
    if launch.with_key is None:
        raise UsageError(
            f"{row.name} {version} cannot ask for a key, or only for one that every user of the machine can read",
            hint="unset `SGPROV_API_KEY` (and remove `api-key` beside the server's record, where it has one), and let a"
            " proxy in front of the server ask for the key",
        )
    words |= {"key": key_file, "script": str(PurePosixPath(key_file).with_name(SCRIPT))}
    return launch.with_key


def url_of(host: str, port: int) -> str:
    """Where a server on this machine is asked: one that listens on every address answers on the loopback one."""
    asked = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104  # nothing is bound
    return f"http://[{asked}]:{port}" if ":" in asked else f"http://{asked}:{port}"


def _flags(engine: Engine, version: str, serve: Serve) -> Iterator[tuple[Flag, str]]:
    flags = engine.rows(engine.flags, version)
    for setting, given in msgspec.structs.asdict(serve).items():
        if setting in _ELSEWHERE or given is None:
            continue
        value = str(given).lower() if isinstance(given, bool) else str(given)
        rows = [flag for flag in flags if flag.setting == setting]
        fits = [flag for flag in rows if flag.values is None or value in flag.values]
        if not fits:
            raise _unknown(engine, version, setting, value, rows)
        yield fits[0], value


def _unknown(engine: Engine, version: str, setting: str, value: str, rows: list[Flag]) -> UsageError:
    if rows:
        allowed = ", ".join(f"`{value}`" for row in rows for value in row.values or ())
        return UsageError(
            f"{engine.name} {version} knows no `{setting}: {value}`", hint=f"for `{setting}` it knows {allowed}"
        )
    since = [flag.since for flag in engine.flags if flag.setting == setting and flag.since]
    hint = f"it is known from {since[0]} on" if since else f"leave it out, or pass {engine.name}'s own flag in `extra`"
    return UsageError(f"{engine.name} {version} has no flag for the setting `{setting}`", hint=hint)
