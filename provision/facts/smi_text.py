"""Reading what nvidia-smi prints: its CSV, its table, its list. Functions of text only."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from provision.facts.driver_failures import explain
from provision.facts.model import Gpu, Mig
from provision.facts.sources import DriverAnswer, problem, sourced
from provision.report import Finding, Severity

# In this order in the output, whatever the header calls them.
FIELDS = (
    *("index", "uuid", "pci.bus_id", "name", "compute_cap", "memory.total", "memory.used"),
    *("mig.mode.current", "ecc.mode.current", "driver_version"),
)
# Nothing nvidia-smi prints is longer; what is, is not its output, and is not fed to patterns that backtrack.
_LONGEST_LINE = 400
_TABLE_GPU = re.compile(
    r"\|\s+(?P<index>\d{1,4})\s{1,4}(?P<name>\S.{0,60}?)\s+(?:On|Off|N/A)\s+\|\s+"
    r"(?P<address>[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.\d)\s+\S+\s+\|\s+(?P<ecc>\S+)\s+\|"
)
_TABLE_MEMORY = re.compile(r"\|\s*(\d{1,8})MiB\s*/\s*(\d{1,8})MiB\s*\|")
_TABLE_MIG = re.compile(r"\|\s+(Enabled|Disabled)\*?\s+\|\s*$")
_LIST_GPU = re.compile(r"GPU (\d{1,4}):")
_LIST_MIG = re.compile(r"\s+MIG (\S+)\s+Device")
_UNKNOWN_FIELD = re.compile(r'Field "([^"]{1,80})" is not a valid field to query')


def parse_csv(text: str, fields: Sequence[str] = FIELDS) -> DriverAnswer:
    """Parse, e.g., `0, GPU-8f1c…, 00000000:61:00.0, NVIDIA A40, 8.6, 46068, 1, [N/A], Enabled, 550.90.07`.

    Columns go by position. A line of another shape is something nvidia-smi wanted to say in between.
    """
    gpus, problems, driver = [], [], None
    for line in _lines(text):
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != len(fields) or not re.fullmatch(r"\d{1,4}", cells[0], re.ASCII):
            if failure := explain(line, None):
                problems.append(failure.finding(said=line.strip()))
            continue
        row = dict(zip(fields, cells, strict=True))
        problems += _complaints(row)
        driver = driver or value(row.get("driver_version"))
        gpus.append(_gpu(row))
    return DriverAnswer(source="nvidia-smi", gpus=tuple(gpus), driver=driver, problems=tuple(problems))


def parse_table(text: str) -> DriverAnswer:
    """Parse the plain table, e.g. `|   0  NVIDIA A40         On  |   00000000:61:00.0 Off |                    0 |`.

    For drivers whose CSV cannot be used, and for the CUDA version, which only the header has.
    """
    gpus: list[Gpu] = []
    for line in _lines(text):
        if found := _TABLE_GPU.search(line):
            ecc = {"off": False, "on": True}.get(found["ecc"].lower(), True if found["ecc"].isdecimal() else None)
            gpus.append(
                Gpu(index=int(found["index"]), name=found["name"], pci_address=found["address"].lower(), ecc=ecc)
            )
        elif gpus and (found := _TABLE_MEMORY.search(line)) and gpus[-1].memory_mib is None:
            gpus[-1] = replace(gpus[-1], memory_used_mib=int(found[1]), memory_mib=int(found[2]))
        elif gpus and (found := _TABLE_MIG.search(line)) and gpus[-1].mig is None:
            gpus[-1] = replace(gpus[-1], mig=Mig(enabled=found[1] == "Enabled"))
        elif line.startswith("| MIG devices"):
            break
    driver, cuda = parse_header(text)
    return DriverAnswer(
        source="nvidia-smi", gpus=tuple(sourced(gpu, "nvidia-smi") for gpu in gpus), driver=driver, cuda=cuda
    )


def parse_header(text: str) -> tuple[str | None, str | None]:
    """Driver and CUDA from, e.g., `| NVIDIA-SMI 565.72    Driver Version: 566.14    CUDA Version: 12.7     |`.

    Under WSL the tool and the (Windows) driver have two numbers; the driver's is the one that decides.
    """
    driver = re.search(r"(?:Driver|KMD) Version\s*:\s*(\d{3}\.\d{1,4}(?:\.\d{1,4})?)", text, re.ASCII)
    cuda = re.search(r"CUDA (?:UMD )?Version\s*:\s*(\d{1,2}\.\d{1,2})", text, re.ASCII)
    return (driver[1] if driver else None), (cuda[1] if cuda else None)


def parse_list(text: str) -> dict[int, tuple[str, ...]]:
    """MIG instances by GPU from `nvidia-smi -L`, e.g. `  MIG 1g.10gb     Device  2: (UUID: MIG-3fff3a97-…)`."""
    found: dict[int, tuple[str, ...]] = {}
    index = None
    for line in _lines(text):
        if gpu := _LIST_GPU.match(line):
            index = int(gpu[1])
        elif index is not None and (instance := _LIST_MIG.match(line)):
            found[index] = (*found.get(index, ()), instance[1])
    return found


def unknown_field(text: str) -> str | None:
    """The field an older driver does not know, from `Field "compute_cap" is not a valid field to query.`"""
    found = _UNKNOWN_FIELD.search(text)
    return found[1] if found else None


def value(cell: str | None) -> str | None:
    """A cell's value, or None for `[N/A]`, `Not Supported`, `[Unknown Error]`, …: unknown, never zero."""
    text = (cell or "").strip()
    plain = text.strip("[]").lower()
    unknown = ("n/a", "not supported", "unknown error", "insufficient permissions", "gpu requires reset", "gpu is lost")
    return None if not plain or plain in unknown or text.startswith("[") else text


def _gpu(row: dict[str, str]) -> Gpu:
    mig, ecc = value(row.get("mig.mode.current")), value(row.get("ecc.mode.current"))
    capability = value(row.get("compute_cap"))
    gpu = Gpu(
        index=int(row["index"]),
        name=value(row["name"]) or "NVIDIA GPU",
        uuid=value(row.get("uuid")),
        pci_address=value(row.get("pci.bus_id")),
        compute_capability=capability if re.fullmatch(r"\d{1,2}\.\d", capability or "", re.ASCII) else None,
        memory_mib=_mib(row.get("memory.total")),
        memory_used_mib=_mib(row.get("memory.used")),
        mig=Mig(enabled=mig == "Enabled") if mig in {"Enabled", "Disabled"} else None,
        ecc=ecc == "Enabled" if ecc in {"Enabled", "Disabled"} else None,
    )
    return sourced(gpu, "nvidia-smi")


def _complaints(row: dict[str, str]) -> Iterator[Finding]:
    """What cells such as `[GPU requires reset]` say about the GPU; once for each kind."""
    for said in sorted({cell for cell in row.values() if cell.startswith("[")}):
        if failure := explain(said, None):
            # `[Insufficient Permissions]` for one value is an unknown value.
            if failure.name != "permission":
                yield failure.finding(said=f"GPU {row['index']}: {said}")
        elif said.lower() == "[unknown error]":
            fields = ", ".join(field for field, cell in row.items() if cell == said)
            fix = ("look for `Xid` in `sudo dmesg`; reset the GPU or reboot",)
            yield problem("gpus", f"GPU {row['index']} answers `{said}` for {fields}", severity=Severity.ERROR, fix=fix)


def _mib(cell: str | None) -> int | None:
    found = re.fullmatch(r"(\d{1,9})(?: MiB)?", value(cell) or "", re.ASCII)
    return int(found[1]) if found else None


def _lines(text: str) -> Iterator[str]:
    return (line for line in text.splitlines() if len(line) <= _LONGEST_LINE)
