"""What a container target needs, as a plan shows it: this version decides and plans containers, and runs none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from provision.errors import UnsupportedHost
from provision.host import Host, HostView
from provision.steps.base import Progress


@dataclass(frozen=True, kw_only=True)
class ContainerStep:
    """One step of a container target, told and not carried out: `bootstrap` refuses before the first step."""

    id: str
    text: str

    looks_only = False

    def preview(self) -> str:
        return self.text

    def satisfied(self, host: HostView) -> bool:  # noqa: ARG002  # nothing looks into containers yet
        return False

    def apply(self, host: Host, tell: Callable[[Progress], None]) -> str:  # noqa: ARG002  # see the class
        raise UnsupportedHost(f"this version of sgprov does not run containers: {self.text}")
