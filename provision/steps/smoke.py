"""The step that tests what was started: only a server that answers rightly is a verified one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from provision.errors import ProvisionError, ServingFailed
from provision.host import Host, HostView
from provision.report import Finding, Severity
from provision.serving import record, server, smoke
from provision.serving.launch import Launch
from provision.serving.listening import key_of
from provision.steps.base import Applied, Progress
from provision.steps.server import gone_back

# Beside the server's record: what the receipt repeats.
RESULT = "smoke.json"


@dataclass(frozen=True, kw_only=True)
class Smoke:
    """The server `name` answers: models, a chat, streaming, and its cache."""

    servers: str
    name: str
    launch: Launch

    looks_only = True

    @property
    def id(self) -> str:
        return "smoke"

    def preview(self) -> str:
        return f"ask {self.launch.url} for its models, a chat, a stream, and the same long prompt twice"

    def satisfied(self, host: HostView) -> bool:  # noqa: ARG002  # what was true a minute ago has to be asked again
        return False

    def apply(self, host: Host, tell: Callable[[Progress], None]) -> Applied:
        tell(Progress(text=self.preview()))
        directory = record.directory_of(self.servers, self.name)
        known = record.load(host, directory)
        try:
            findings = smoke.run(
                self.launch.url,
                api_key=key_of(host, known) if known else None,
                log=f"{directory}/{record.LOG}",
                engine=self.launch.engine,
                version=self.launch.version,
            )
            host.write(f"{directory}/{RESULT}", json.dumps(summary(findings)) + "\n")
        except ProvisionError as error:
            # What it would have said is not known: neither is whether this server is worth keeping.
            raise gone_back(
                host, error, servers=self.servers, name=self.name, tell=tell, otherwise_stop=True
            ) from error
        except BaseException:
            server.restore(host, self.servers, name=self.name)
            raise
        wrong = [finding for finding in findings if finding.severity is Severity.ERROR]
        if wrong:
            raise self._failed(host, wrong[0].text, findings, tell)
        seconds = sum(finding.seconds or 0.0 for finding in findings)
        passed = sum(finding.severity is Severity.OK for finding in findings)
        return Applied(
            note=f"{passed} of {len(findings)} checks are well, in {seconds:.1f} s",
            findings=findings,
            data={"endpoint": f"{self.launch.url}/v1", "smoke": summary(findings)},
        )

    def _failed(
        self, host: Host, wrong: str, findings: tuple[Finding, ...], tell: Callable[[Progress], None]
    ) -> ProvisionError:
        log = f"{record.directory_of(self.servers, self.name)}/server.log"
        text = f"the server at {self.launch.url} does not serve rightly: {wrong}"
        if record.replaced(host, record.directory_of(self.servers, self.name)) is None:
            hint = f"it is still up: `sgprov serve logs {self.name}` shows what it says"
            hint += f", `sgprov serve stop {self.name}` ends it"
            return ServingFailed(text, hint=hint, findings=findings)
        error = ServingFailed(text, hint=f"`sgprov diagnose {log}`", findings=findings)
        return gone_back(host, error, servers=self.servers, name=self.name, tell=tell)


def summary(findings: tuple[Finding, ...]) -> dict[str, object]:
    """Check id to its severity, seconds and numbers: what a receipt keeps of a smoke test."""
    return {
        finding.check: {"severity": finding.severity.value, "seconds": finding.seconds, **finding.data}
        for finding in findings
    }
