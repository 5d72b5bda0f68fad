"""Which GPU a PCI id or a driver's name stands for: what is known of a GPU that no driver speaks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

TABLE = Path(__file__).parent / "data" / "gpus.tsv"
_COLUMNS = 6


@dataclass(frozen=True, kw_only=True)
class KnownGpu:
    """A row of `data/gpus.tsv`: a PCI device of NVIDIA's, and what drivers call the boards that carry it.

    `subsystems` maps `vendor:device` of the board to the driver's name for it: 25b6 is an A2 or an A16 by board.
    """

    device: str
    chip: str
    compute_capability: str | None
    unified_memory: bool
    name: str
    subsystems: dict[str, str] = field(default_factory=dict)

    def name_of(self, subsystem: str | None) -> str:
        """The driver's name for the board `10de:145a`; the chip's where the board is not in the table."""
        names = set(self.subsystems.values())
        only = names.pop() if len(names) == 1 else self.name
        return self.subsystems.get(subsystem or "", only)


def by_pci_id(device: str) -> KnownGpu | None:
    """The row of a PCI device id, such as `2e12`."""
    return _by_device().get(device.lower())


def by_name(name: str) -> KnownGpu | None:
    """The row of a name as drivers print it (`NVIDIA A40`), where all rows of that name agree on what it can do."""
    return _by_name().get(name)


def parse_table(text: str) -> tuple[KnownGpu, ...]:
    """Parse, e.g., `2e12<TAB>GB20B<TAB>12.1<TAB>yes<TAB>GB10<TAB>10de:21ec=NVIDIA GB10`."""
    rows = []
    for line in text.splitlines():
        cells = line.split("\t")
        if line.startswith("#") or len(cells) != _COLUMNS:
            continue
        boards = (board.partition("=") for board in cells[5].split("; ") if board)
        rows.append(
            KnownGpu(
                device=cells[0],
                chip=cells[1],
                compute_capability=cells[2] or None,
                unified_memory=cells[3] == "yes",
                name=cells[4],
                subsystems={subsystem: name for subsystem, _, name in boards},
            )
        )
    return tuple(rows)


@cache
def _rows() -> tuple[KnownGpu, ...]:
    return parse_table(TABLE.read_text(encoding="utf-8"))


@cache
def _by_device() -> dict[str, KnownGpu]:
    return {row.device: row for row in _rows()}


@cache
def _by_name() -> dict[str, KnownGpu]:
    found: dict[str, KnownGpu] = {}
    ambiguous = set()
    for row in _rows():
        for name in {row.name, *row.subsystems.values()}:
            first = found.setdefault(name, row)
            if (first.compute_capability, first.unified_memory) != (row.compute_capability, row.unified_memory):
                ambiguous.add(name)
    return {name: row for name, row in found.items() if name not in ambiguous}
