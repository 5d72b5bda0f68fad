"""The step that has the server running with the settings of the plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from provision.errors import ServingFailed
from provision.host import Host, HostView
from provision.serving import record, server
from provision.serving.launch import Launch
from provision.serving.phases import Phase
from provision.serving.status import status
from provision.steps.base import Applied, Progress


@dataclass(frozen=True, kw_only=True)
class StartServer:
    """The server `name` runs with `launch`; one of ours that runs by that name with other settings is replaced.

    `servers` is the directory of all servers.
    """

    servers: str
    name: str
    launch: Launch
    stack: str | None = None
    timeout_s: float = server.READY_TIMEOUT_S

    looks_only = False

    @property
    def id(self) -> str:
        return "server"

    def preview(self) -> str:
        return f"serve `{self.launch.model}` at {self.launch.url}"

    def satisfied(self, host: HostView) -> bool:
        known = record.load(host, record.directory_of(self.servers, self.name))
        if known is None or (known.argv, known.variables) != (self.launch.argv, self.launch.variables):
            return False
        return status(host, known).health == "running"

    def apply(self, host: Host, tell: Callable[[Progress], None]) -> Applied:
        known = record.load(host, record.directory_of(self.servers, self.name))
        if known and (known.argv, known.variables) != (self.launch.argv, self.launch.variables):
            tell(Progress(text=f"stopping the `{self.name}` that runs with other settings", milestone=True))
            server.stop(host, self.servers, name=self.name)
        started = server.start(host, self.servers, self.launch, name=self.name, stack=self.stack)

        def phase(now: Phase, seconds: float) -> None:
            tell(Progress(text=f"{now} ({seconds:.0f} s)", milestone=True))

        try:
            ready = server.wait_until_ready(host, started, timeout_s=self.timeout_s, tell=phase)
        except ServingFailed as error:
            raise _diagnosed(error, started.log) from error
        took = f", ready after {ready.ready_after_s:.0f} s" if ready.ready_after_s is not None else ""
        return Applied(note=f"pid {ready.pid} at {ready.url}{took}")


def _diagnosed(error: ServingFailed, log: str) -> ServingFailed:
    """The error with what its log is known to mean."""
    from provision.diagnosis import diagnose_file  # noqa: PLC0415  # a second of patterns that a good launch skips

    return ServingFailed(str(error), hint=error.hint, findings=diagnose_file(log))
