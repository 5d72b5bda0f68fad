"""Which hosts are alike, and in what the others differ: "14 alike; 2 have driver 535.104.05"."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from provision.fleet.answers import Report
from provision.fleet.model import Group, HostState
from provision.report import Severity

# In the order in which they are told.
TRAITS = ("gpu", "driver", "stack", "lock", "python", "sgprov", "os", "glibc", "arch", "files")
_NONE = "none"


def traits(host: HostState) -> dict[str, str]:
    """What is compared of a host; what is not known of it is left out, not guessed."""
    found: dict[str, str | None] = {}
    if machine := host.machine:
        found |= {"gpu": host.gpu or _NONE, "driver": machine.driver or _NONE}
        found |= {"os": machine.os, "glibc": machine.glibc, "arch": machine.arch}
    if report := host.report:
        found |= {"stack": report.stack, "lock": report.lock, "files": _files(report)}
        # Full where it was installed just now, the minor version where it was there: the latter can be compared.
        found["python"] = ".".join((report.python or "").split(".")[:2])
    if host.asked:
        found["sgprov"] = host.asked.tool
    return {name: value for name in TRAITS if (value := found.get(name))}


def _files(report: Report) -> str | None:
    """Which packages' files are not what was installed, where a host looked (`doctor` does)."""
    if report.verdict is None:
        return None
    checked = [one for one in report.findings if one.check.startswith("environment-")]
    wrong = [one.check for one in checked if one.severity is Severity.ERROR]
    return ", ".join(sorted(set(wrong))) or "as installed"


def group(hosts: Sequence[HostState]) -> tuple[Group, ...]:
    """Hosts that answered, alike ones together, the largest group first."""
    by_traits: dict[tuple[tuple[str, str], ...], list[str]] = defaultdict(list)
    for host in hosts:
        if known := traits(host):
            by_traits[tuple(known.items())].append(host.name)
    ordered = sorted(by_traits.items(), key=lambda each: (-len(each[1]), each[1][0]))
    if not ordered:
        return ()
    usual = dict(ordered[0][0])
    return tuple(
        Group(hosts=tuple(names), traits=dict(known), differs=tuple(_differences(usual, dict(known))))
        for known, names in ordered
    )


def sentence(groups: Sequence[Group]) -> str:
    """Such as "14 alike; 2 have driver 535.104.05 (gpu-7, gpu-12)"."""
    if not groups:
        return ""
    if len(groups) == 1:
        count = len(groups[0].hosts)
        return f"all {count} alike" if count > 1 else ""
    alike = len(groups[0].hosts)
    parts = [f"{alike} alike" if alike > 1 else "no two alike"]
    for other in groups[1:]:
        verb = "have" if len(other.hosts) > 1 else "has"
        parts.append(f"{len(other.hosts)} {verb} {', '.join(other.differs)} ({_some(other.hosts)})")
    return "; ".join(parts)


def drift(groups: Sequence[Group]) -> dict[str, dict[str, int]]:
    """Trait to its values and how many hosts have each, for traits that are not the same everywhere."""
    counted: dict[str, Counter[str]] = defaultdict(Counter)
    for each in groups:
        for name in TRAITS:
            counted[name][each.traits.get(name, "unknown")] += len(each.hosts)
    return {name: dict(values.most_common()) for name, values in counted.items() if len(values) > 1}


def _differences(usual: dict[str, str], other: dict[str, str]) -> Iterable[str]:
    for name in TRAITS:
        if usual.get(name) != other.get(name):
            yield f"{name} {other.get(name, 'unknown')}"


def _some(names: Sequence[str]) -> str:
    few = 4
    shown = ", ".join(names[:few])
    return shown if len(names) <= few else f"{shown} and {len(names) - few} more"
