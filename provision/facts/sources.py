"""What one source of GPU facts (NVML, nvidia-smi) has to say, in one shape, and how findings about facts are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from provision.errors import ProbeError
from provision.facts.model import Gpu
from provision.report import Finding, Severity


@dataclass(frozen=True, kw_only=True)
class DriverAnswer:
    """GPUs, driver and the CUDA version it reports, with what was wrong; `source` is `nvml`, `nvidia-smi` or `pci`.

    `hangs`: the source gave no answer in time, and asking the same driver in another way would wait as long again.
    """

    source: str
    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    cuda: str | None = None
    problems: tuple[Finding, ...] = ()
    hangs: bool = False


class PartlyTold(ProbeError):
    """A probe that failed for some of what it looked at; `found` holds the rest."""

    def __init__(self, message: str, *, found: object, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.found = found


def problem(topic: str, text: str, *, severity: Severity = Severity.WARNING, fix: Sequence[str] = ()) -> Finding:
    """A finding about facts; `topic` is the key of the facts that could not be told (`gpus`)."""
    return Finding(check=f"facts.{topic}", severity=severity, text=text, fix=tuple(fix))


def sourced(gpu: Gpu, source: str) -> Gpu:
    """The GPU with `source` named for every fact it holds."""
    facts = ("name", "uuid", "pci_address", "compute_capability", "memory_mib", "mig", "ecc")
    return replace(gpu, sources={fact: source for fact in facts if getattr(gpu, fact) is not None})
