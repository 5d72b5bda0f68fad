"""What a machine is, in a few words: what a report of many hosts compares."""

from __future__ import annotations

from typing import Any

from provision.facts.model import Facts


def summary(facts: Facts) -> dict[str, Any]:
    """Plain data; None is "not there"."""
    return {
        "arch": facts.arch,
        "os": f"{facts.os.id} {facts.os.version}" if facts.os else None,
        "glibc": facts.glibc,
        "driver": facts.driver.version if facts.driver else None,
        "gpus": [gpu.name for gpu in facts.gpus],
    }
