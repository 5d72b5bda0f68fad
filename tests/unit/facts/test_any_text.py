"""Whatever a host prints, a parser answers or says that it cannot tell; it neither crashes nor hangs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import is_dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from provision.catalog.gpus import parse_table as parse_known_gpus
from provision.checks.environment import parse_libraries
from provision.checks.limits import parse_limits
from provision.checks.smi_state import parse_processes, parse_states
from provision.checks.topology import parse_peers
from provision.errors import ProbeError
from provision.facts import (
    containers,
    cpu,
    driver,
    driver_failures,
    nvml,
    operating_system,
    pci,
    pythons,
    slurm,
    smi_text,
    storage,
    topology,
)

PARSERS: list[Callable[[str], object]] = [
    *(smi_text.parse_csv, smi_text.parse_table, smi_text.parse_header, smi_text.parse_list, smi_text.unknown_field),
    *(nvml.parse_nvml, driver.parse_version, topology.parse_topology, pci.parse_address, parse_known_gpus),
    *(cpu.parse_arch, cpu.parse_cpuinfo, operating_system.parse_os_release, operating_system.parse_kernel),
    *(operating_system.parse_glibc, storage.parse_meminfo, storage.parse_limit, storage.parse_groups),
    *(containers.parse_docker, containers.parse_podman, containers.parse_daemon, containers.parse_init_groups),
    *(pythons.parse_python, slurm.parse_version, slurm.parse_ping),
    *(parse_libraries, parse_limits, parse_states, parse_processes, parse_peers),
    lambda text: driver_failures.explain(text, None),
]
# What parsers give, besides dataclasses of facts.
_PLAIN = (tuple, list, dict, set, frozenset, str, int, float, Version)
# What a number of thousands of digits, or a field of a hundred thousand letters, is put into.
LINES = (
    "{0}, python3, {0}",
    "{0}, Enabled, Default, 0, No, 0x1, 16, 16",
    "Max open files   {0}   {0}   files",
    "a.so,sha256=x,{0}",
    "a{0}.so,sha256=x,1",
    " GPU{0}   X   OK",
    "{0}",
)
# Pieces that lead parsers in, so that more than their first line is tried.
PIECES = st.sampled_from(
    [
        *(
            "GPU0",
            "GPU1",
            "\t",
            " X ",
            "NV12",
            "\n",
            ", ",
            "|",
            "   0  NVIDIA A40  On  ",
            "00000000:61:00.0 Off",
            "MiB /",
        ),
        *(
            "{",
            "}",
            '"error": {"code": 1}',
            "[N/A]",
            "[Unknown Error]",
            "Driver Version: 550",
            "ID=",
            '"',
            "'",
            "=",
            ":",
        ),
        *(
            "GPU 0:",
            "  MIG 1g.10gb  Device",
            "cpython\t3.10",
            "0::/",
            "memory",
            "MemTotal:   ",
            " kB",
            "²",
            "٣",
            "\x00",
        ),
        *(
            '{"gpus": [',
            '"host": 1, "version": 2',
            "ServerErrors",
            "[[[[",
            "99999999999999999999",
            "\r",
            "\u2028",
            "\x1b[4m",
        ),
    ]
)
TEXTS = st.one_of(st.text(max_size=400), st.lists(st.one_of(PIECES, st.text(max_size=5)), max_size=60).map("".join))


@pytest.mark.parametrize("parse", PARSERS, ids=lambda parse: f"{parse.__module__}.{parse.__name__}")
@given(text=TEXTS)
def test_any_text(parse: Callable[[str], object], text: str) -> None:
    start = time.monotonic()
    with contextlib.suppress(ProbeError):
        found = parse(text)
        assert found is None or isinstance(found, _PLAIN) or is_dataclass(found)
    assert time.monotonic() - start < 1


@pytest.mark.parametrize("parse", PARSERS, ids=lambda parse: f"{parse.__module__}.{parse.__name__}")
@pytest.mark.parametrize("line", LINES)
def test_numbers_and_fields_of_any_length(parse: Callable[[str], object], line: str) -> None:
    for length in (5_000, 200_000):
        with contextlib.suppress(ProbeError):
            parse(line.format("9" * length))


@pytest.mark.parametrize("parse", PARSERS, ids=lambda parse: f"{parse.__module__}.{parse.__name__}")
@pytest.mark.parametrize(
    "piece", ["|   0  NVIDIA ", "On ", "GPU0 ", ", ", "[", "0::/", " ", "A=", "ldd (", "9", "GPU is los", "Serial "]
)
def test_long_text_takes_no_time(parse: Callable[[str], object], piece: str) -> None:
    start = time.monotonic()
    with contextlib.suppress(ProbeError):
        parse(piece * (100_000 // len(piece)))
    assert time.monotonic() - start < 2
