"""What nvidia-smi says of the state of each GPU, asked once for all checks."""

from __future__ import annotations

from provision.checks.base import Context
from provision.facts.smi import PROGRAMS
from provision.facts.smi_text import unknown_field, value

# Columns go by position: drivers rename them, and drop some.
FIELDS = (
    *("index", "persistence_mode", "compute_mode", "ecc.errors.uncorrected.volatile.total", "retired_pages.pending"),
    *("clocks_throttle_reasons.active", "pcie.link.width.current", "pcie.link.width.max"),
)

State = dict[str, str | None]
_MOST_DIGITS = 19


def gpu_states(context: Context) -> tuple[State, ...]:
    """A row a GPU; nothing where nvidia-smi cannot be asked (`gpu-answers` says so) or was not recorded."""
    return context.once("gpu states", lambda: _ask(context))


def compute_processes(context: Context) -> tuple[tuple[int, str, int | None], ...]:
    """(pid, name, MiB) of what computes on the GPUs. A container sees none of its neighbours'."""
    return context.once("compute processes", lambda: _processes(context))


def parse_states(text: str, fields: tuple[str, ...] = FIELDS) -> tuple[State, ...]:
    """Parse, e.g., `0, Enabled, Default, 0, No, 0x0000000000000001, 16, 16`; `[N/A]` is None."""
    rows = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == len(fields) and _is_number(cells[0]):
            rows.append({field: value(cell) for field, cell in zip(fields, cells, strict=True)})
    return tuple(rows)


def parse_processes(text: str) -> tuple[tuple[int, str, int | None], ...]:
    """Parse, e.g., `4711, /usr/bin/python3, 20480`; memory is `[N/A]` on unified memory and under WSL."""
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) >= 3 and _is_number(cells[0]):  # noqa: PLR2004  # pid, name, memory
            used = value(cells[-1])
            name = ",".join(cells[1:-1])
            found.append((int(cells[0]), name, int(used) if used and _is_number(used) else None))
    return tuple(found)


def _is_number(text: str) -> bool:
    # Python refuses to make a number of thousands of digits.
    return text.isdecimal() and len(text) <= _MOST_DIGITS


def _ask(context: Context) -> tuple[State, ...]:
    fields: tuple[str, ...] = FIELDS
    program = _program(context)
    while program:
        outcome = context.view.query([program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"])
        unknown = unknown_field(outcome.out + outcome.err)
        if outcome.ok or unknown not in fields[1:]:
            return parse_states(outcome.out, fields) if outcome.ok else ()
        fields = tuple(field for field in fields if field != unknown)
    return ()


def _processes(context: Context) -> tuple[tuple[int, str, int | None], ...]:
    program = _program(context)
    if program is None:
        return ()
    fields = "pid,process_name,used_memory"
    outcome = context.view.query([program, f"--query-compute-apps={fields}", "--format=csv,noheader,nounits"])
    return parse_processes(outcome.out) if outcome.ok else ()


def _program(context: Context) -> str | None:
    wsl = context.facts.surroundings.wsl and context.view.stat(PROGRAMS[1]) is not None
    return PROGRAMS[1] if wsl else PROGRAMS[0]
