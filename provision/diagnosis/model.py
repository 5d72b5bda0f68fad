"""What a diagnosis is: findings with their example lines, ranked, and the alarming lines that mean nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from provision.diagnosis.signatures import Signature
from provision.report import Finding, Severity

_KINDS = ("cause", "symptom", "generic", "wrapper")
_CONFIDENCES = ("high", "medium", "low")


@dataclass(frozen=True)
class Line:
    """A line of the log as it may be shown: cleaned, cut, without secrets. `number` counts from 1."""

    number: int
    text: str


@dataclass(frozen=True)
class Found:
    """A signature that fired, and the first lines on which it did."""

    signature: Signature
    lines: tuple[Line, ...]

    @property
    def rank(self) -> tuple[int, int, int, int]:
        """Causes before what follows from them, the sure before the unsure, the first in the log before the last."""
        row = self.signature
        return (
            _KINDS.index(row.kind),
            _CONFIDENCES.index(row.confidence),
            int(row.severity == "warning"),
            self.lines[0].number,
        )

    def to_builtins(self) -> dict[str, Any]:
        row = self.signature
        return {
            "id": row.id,
            "category": row.category,
            "severity": row.severity,
            "confidence": row.confidence,
            "kind": row.kind,
            "text": row.cause,
            "fix": list(row.remedy),
            "lines": [{"number": line.number, "text": line.text} for line in self.lines],
            "source": row.source,
        }


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What one log says. `versions` are the packages it names; the first finding is the likeliest cause."""

    findings: tuple[Found, ...] = ()
    harmless: tuple[Found, ...] = ()
    versions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    lines_read: int = 0
    bytes_read: int = 0

    @property
    def category(self) -> str | None:
        """The category of the likeliest cause."""
        return self.findings[0].signature.category if self.findings else None

    def to_builtins(self) -> dict[str, Any]:
        return {
            "findings": [found.to_builtins() for found in self.findings],
            "harmless": [found.to_builtins() for found in self.harmless],
            "versions": {package: list(versions) for package, versions in sorted(self.versions.items())},
            "lines_read": self.lines_read,
            "bytes_read": self.bytes_read,
        }

    def to_findings(self) -> tuple[Finding, ...]:
        """The findings as those of a report, in the same order."""
        return tuple(
            Finding(
                check=found.signature.id,
                severity=Severity(found.signature.severity),
                text=found.signature.cause,
                fix=found.signature.remedy,
                data={
                    "category": found.signature.category,
                    "lines": [{"number": line.number, "text": line.text} for line in found.lines],
                },
            )
            for found in self.findings
        )
