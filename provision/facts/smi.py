"""GPU facts from nvidia-smi, for where NVML cannot be asked directly."""

from __future__ import annotations

from dataclasses import replace

from provision.facts.driver_failures import HANGS, explain
from provision.facts.model import Gpu
from provision.facts.smi_text import FIELDS, parse_csv, parse_header, parse_list, parse_table, unknown_field
from provision.facts.sources import DriverAnswer, problem
from provision.host import HostView, Outcome
from provision.report import Finding, Severity

# WSL keeps its nvidia-smi where PATH does not always reach.
PROGRAMS = ("nvidia-smi", "/usr/lib/wsl/lib/nvidia-smi")


def probe_smi(view: HostView) -> DriverAnswer | None:
    """What nvidia-smi says, or None where it is not installed. CSV first, then the table."""
    for program in PROGRAMS:
        outcome, fields = _ask(view, program)
        if outcome.installed:
            return _read(view, program, outcome, fields)
    return None


def _ask(view: HostView, program: str) -> tuple[Outcome, tuple[str, ...]]:
    """The CSV of all fields this driver knows: compute_cap came with 510, mig.mode.current with 450."""
    fields: tuple[str, ...] = FIELDS
    while True:
        outcome = view.query([program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"])
        unknown = unknown_field(outcome.out + outcome.err)
        if outcome.ok or unknown not in fields[1:]:
            return outcome, fields
        fields = tuple(field for field in fields if field != unknown)


def _read(view: HostView, program: str, outcome: Outcome, fields: tuple[str, ...]) -> DriverAnswer:
    if outcome.rc is None:
        return _nothing(HANGS.finding(said=f"{program} {outcome.ending}"))
    said = (outcome.out + outcome.err).strip()
    answer = parse_csv(outcome.out, fields)
    failure = explain(said, outcome.rc)
    if failure and not failure.usable and not answer.gpus:
        return _nothing(failure.finding(said=said.splitlines()[0][:200] if said else f"{program} {outcome.ending}"))
    table = view.query([program])
    if not answer.gpus:
        answer = parse_table(table.out)
    if not answer.gpus:
        text = f"`{program}` {outcome.ending} and names no GPU: {said[:200] or 'it says nothing'}"
        return _nothing(problem("gpus", text, severity=Severity.ERROR))
    if failure and not any(finding.text.startswith(failure.text) for finding in answer.problems):
        first = next((line for line in said.splitlines() if explain(line, None)), f"{program} {outcome.ending}")
        answer = replace(answer, problems=(*answer.problems, failure.finding(said=first.strip())))
    driver, cuda = parse_header(table.out)
    # Under WSL the CSV, too, has the driver's number; where the two differ the header is the one people compare.
    return replace(answer, gpus=_with_instances(view, program, answer.gpus), driver=driver or answer.driver, cuda=cuda)


def _with_instances(view: HostView, program: str, gpus: tuple[Gpu, ...]) -> tuple[Gpu, ...]:
    if not any(gpu.mig and gpu.mig.enabled for gpu in gpus):
        return gpus
    instances = parse_list(view.query([program, "-L"]).out)
    return tuple(
        replace(gpu, mig=replace(gpu.mig, instances=instances.get(gpu.index, ()))) if gpu.mig else gpu for gpu in gpus
    )


def _nothing(*problems: Finding) -> DriverAnswer:
    return DriverAnswer(source="nvidia-smi", problems=problems)
