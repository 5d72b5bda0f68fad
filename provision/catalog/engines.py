"""How each engine is launched, watched and asked, by version: the rows of `engines.yml`."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
from packaging.version import InvalidVersion, Version

from provision.catalog.load import decode
from provision.catalog.rows import Row
from provision.errors import UsageError

_DATA = Path(__file__).with_name("data") / "engines.yml"


class Ranged(Row, frozen=True, kw_only=True):
    """A row that holds for some versions: from `since` up to, but not including, `before`."""

    source: str
    since: str | None = None
    before: str | None = None

    def holds(self, version: Version) -> bool:
        if self.since is not None and version < Version(self.since):
            return False
        return self.before is None or version < Version(self.before)


R = TypeVar("R", bound=Ranged)


class LaunchRow(Ranged, frozen=True, kw_only=True):
    """The command: `{python}`, `{bin}` (its directory) and `{model}` are filled in.

    `with_key` is the one of a server with an API key, for what `{script}` does with the file `{key}`; None where there
    is no way that shows the key to nobody.
    """

    argv: tuple[str, ...]
    with_key: tuple[str, ...] | None = None


class Flag(Ranged, frozen=True, kw_only=True):
    """What a setting of `Serve` becomes. `values` limits the row to those; booleans are `true` and `false`."""

    setting: str
    argv: tuple[str, ...] = ()
    variables: dict[str, str] = msgspec.field(default_factory=dict)
    values: tuple[str, ...] | None = None


class Variable(Ranged, frozen=True, kw_only=True):
    """An environment variable for every server of the engine, or for those with a model on the disk."""

    name: str
    value: str
    when: Literal["always", "local-model"] = "always"


class Probe(Ranged, frozen=True, kw_only=True):
    """Paths to ask. `answers` is cheap and only says that HTTP is up; `ready` tells readiness by its status alone,
    None where no path does; `health` is the engine's own health check, may generate a token, and says no by itself
    after less than `health_limit_s`: who is silent for longer hangs."""

    answers: str
    health: str
    ready: str | None = None
    health_limit_s: float = 30.0


class PhaseRow(Row, frozen=True, kw_only=True):
    """A stretch of the launch, which begins with the line that `pattern` matches (the first one with the process)."""

    name: str
    text: str
    pattern: str | None = None


class LogRow(Ranged, frozen=True, kw_only=True):
    """What the engine's log says: that it is ready, that it is lost, how far it is, and that it works on requests.

    Regular expressions; `work` is None where it says nothing of the kind.
    """

    ready: str
    death: tuple[str, ...]
    phases: tuple[PhaseRow, ...]
    progress: str | None = None
    work: str | None = None
    native_model: str | None = None
    fallback_model: str | None = None


class PortRow(Ranged, frozen=True, kw_only=True):
    """TCP ports that a server takes besides its own, as offsets from it unless `absolute`.

    `fixed` ones must all be free; of the others it takes some. `per_rank` adds one for each data-parallel rank.
    From `wrap_since` an offset that would pass 65535 is subtracted instead.
    """

    name: str
    first: int
    last: int
    when: Literal["always", "dp-attention"] = "always"
    fixed: bool = True
    absolute: bool = False
    per_rank: bool = False
    wrap_since: str | None = None


class AdminRow(Ranged, frozen=True, kw_only=True):
    """Routes that need no more right than a chat does, and what whoever may call them does to the server."""

    does: str
    routes: tuple[str, ...]


class ArchitectureRow(Ranged, frozen=True, kw_only=True):
    """The only architectures (as `config.json` calls them) that the engine serves on a device, and why not the others.

    `such_as` is a model of the hub to take instead.
    """

    device: str
    architectures: tuple[str, ...]
    why: str
    such_as: str


class Engine(Row, frozen=True, kw_only=True):
    """One engine; `since` is the oldest version the rows were checked for.

    `longer_context` is the variable without which it refuses a context that is longer than its model's; None where it
    takes any. `safe_load_format` is the value of `load_format` with which it loads no weights that can run code.
    `drain` is the signal after which it takes no more requests, answers those it has, and ends.
    """

    name: str
    since: str
    source: str
    launch: tuple[LaunchRow, ...]
    flags: tuple[Flag, ...]
    variables: tuple[Variable, ...]
    probes: tuple[Probe, ...]
    log: tuple[LogRow, ...]
    ports: tuple[PortRow, ...]
    dp_attention: tuple[str, ...] = ()
    architectures: tuple[ArchitectureRow, ...] = ()
    longer_context: str | None = None
    safe_load_format: str | None = None
    admin: tuple[AdminRow, ...] = ()
    drain: Literal["SIGINT", "SIGTERM"] = "SIGTERM"

    def rows(self, rows: Iterable[R], version: str) -> tuple[R, ...]:
        """Those that hold for a version. Raises `UsageError` for one that is none, or older than any that is known."""
        exact = parse_version(version)
        if exact < Version(self.since):
            raise UsageError(f"{self.name} {version} is older than {self.since}, the oldest that sgprov can launch")
        return tuple(row for row in rows if row.holds(exact))

    def takes_key(self, version: str) -> bool:
        """Whether it can be given a key that its clients have to know, and that no other user of the machine sees."""
        return self.rows(self.launch, version)[0].with_key is not None

    def probe(self, version: str) -> Probe:
        return self.rows(self.probes, version)[0]

    def log_of(self, version: str) -> LogRow:
        return self.rows(self.log, version)[0]


@cache
def load(path: Path = _DATA) -> dict[str, Engine]:
    """Every engine by name. Raises `ProvisionError` naming the place of what is wrong in the file."""
    return {engine.name: engine for engine in decode(path, tuple[Engine, ...])}


def engine(name: str) -> Engine:
    """The engine of that name. Raises `UsageError`."""
    engines = load()
    if name not in engines:
        raise UsageError(f"there is no engine `{name}`", hint=f"the engines are {', '.join(engines)}")
    return engines[name]


def parse_version(text: str) -> Version:
    """Parse, e.g., `0.5.6.post2`. Raises `UsageError`."""
    try:
        return Version(text)
    except InvalidVersion:
        raise UsageError(f"`{text}` is not a version", hint="write it as its wheel does: `0.5.6.post2`") from None
