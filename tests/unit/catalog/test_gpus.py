from __future__ import annotations

import re

import pytest

from provision.catalog import gpus


def test_every_row_is_read() -> None:
    lines = [line for line in gpus.TABLE.read_text().splitlines() if not line.startswith("#")]
    rows = gpus.parse_table("\n".join(lines))
    assert len(rows) == len(lines) > 470
    assert all(row.compute_capability is None or re.fullmatch(r"\d+\.\d", row.compute_capability) for row in rows)
    devices = [row.device for row in rows if row.device != "----"]
    assert len(set(devices)) == len(devices)


@pytest.mark.parametrize(
    ("device", "board", "name", "capability", "unified"),
    [
        ("2235", "10de:145a", "NVIDIA A40", "8.6", False),
        ("2235", None, "NVIDIA A40", "8.6", False),
        ("25B6", "10de:14a9", "NVIDIA A16", "8.6", False),
        ("25b6", "10de:157e", "NVIDIA A2", "8.6", False),
        ("25b6", "1028:0000", "A2 / A16", "8.6", False),
        ("2342", "10de:1809", "NVIDIA GH200 480GB", "9.0", False),
        ("2e12", "10de:21ec", "NVIDIA GB10", "12.1", True),
        ("2b00", None, "NVIDIA Thor", "11.0", True),
        ("3182", None, "NVIDIA B300 SXM6 AC", "10.3", False),
    ],
)
def test_a_device_is_named_by_its_board(device: str, board: str, name: str, capability: str, unified: bool) -> None:
    row = gpus.by_pci_id(device)
    assert row is not None
    assert (row.name_of(board), row.compute_capability, row.unified_memory) == (name, capability, unified)


@pytest.mark.parametrize(
    ("name", "capability"),
    [
        ("NVIDIA A40", "8.6"),
        ("NVIDIA A100-SXM4-80GB", "8.0"),
        ("NVIDIA H100 80GB HBM3", "9.0"),
        ("Tesla T4", "7.5"),
        ("NVIDIA GeForce RTX 5090", "12.0"),
        ("NVIDIA Thor", "11.0"),
        ("Orin (nvgpu)", "8.7"),
    ],
)
def test_drivers_names_are_known(name: str, capability: str) -> None:
    row = gpus.by_name(name)
    assert row is not None and row.compute_capability == capability


def test_what_is_not_known() -> None:
    assert gpus.by_pci_id("ffff") is None
    assert gpus.by_name("Voodoo 2") is None
