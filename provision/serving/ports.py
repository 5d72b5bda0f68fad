"""The TCP ports that a server takes beside its own; pure arithmetic on rows."""

from __future__ import annotations

from dataclasses import dataclass

from packaging.version import Version

from provision.catalog.engines import Engine, PortRow, engine, parse_version
from provision.catalog.rows import Serve

HIGHEST = 65535


@dataclass(frozen=True, kw_only=True)
class DerivedPort:
    """The ports `first` to `last`. Where `fixed`, all of them must be free; else the server takes some that are."""

    name: str
    first: int
    last: int
    fixed: bool

    def holds(self, port: int) -> bool:
        return self.first <= port <= self.last


def derive(row_of: Engine, version: str, serve: Serve) -> tuple[DerivedPort, ...]:
    """The ports of a server with these settings, its own first.

    Of one node without an address of its own for `torch.distributed`; IPC through files takes no port.
    """
    with_attention = any(word.split("=")[0] in row_of.dp_attention for word in serve.extra)
    exact = parse_version(version)
    return tuple(
        _derived(row, exact, serve)
        for row in row_of.rows(row_of.ports, version)
        if row.when == "always" or (row.when == "dp-attention" and with_attention)
    )


def derive_for(name: str, version: str, serve: Serve) -> tuple[DerivedPort, ...]:
    """The ports of a server of the engine called `name`."""
    return derive(engine(name), version, serve)


def _derived(row: PortRow, version: Version, serve: Serve) -> DerivedPort:
    ranks = _attention_ranks(serve) - 1 if row.per_rank else 0
    if row.absolute:
        return DerivedPort(name=row.name, first=row.first, last=row.last, fixed=row.fixed)
    base = serve.port
    first, last = base + row.first, base + row.last + ranks
    if row.wrap_since and first > HIGHEST and version >= Version(row.wrap_since):
        first, last = base - row.last, base - row.first
    return DerivedPort(name=row.name, first=first, last=last, fixed=row.fixed)


def _attention_ranks(serve: Serve) -> int:
    return max(1, serve.data_parallel or 1)
