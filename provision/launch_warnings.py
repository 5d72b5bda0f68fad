"""What speaks against a launch and does not forbid it: an open endpoint, an image that moved, memory, the model."""

from __future__ import annotations

from collections.abc import Iterator

from provision import environments, models
from provision.checks.memory import shortage
from provision.decision import Decision
from provision.facts import Facts
from provision.host import HostView
from provision.plan import Plan
from provision.report import Finding, Severity
from provision.serving import keys, record
from provision.steps.image import PullImage


def warnings(view: HostView | None, built: Plan, facts: Facts, directory: str, key: str | None) -> Iterator[Finding]:
    """What speaks against the launch and does not forbid it; without a view, of a machine that is only assumed."""
    decision = built.decision
    if not key and (opened := keys.open_to_all(decision.serve, *decision.engine)):
        yield opened
    if view is None:
        return
    pull = next((step for step in built.steps if isinstance(step, PullImage)), None)
    if pull and (moved := pull.moved(view)):
        yield moved
    if short := _short_of_memory(view, facts, directory):
        yield short
    yield from models.findings(view, built)


def _short_of_memory(view: HostView, facts: Facts, directory: str) -> Finding | None:
    """A warning where a server that does not run yet will most likely be killed for lack of memory."""
    known = record.load(view, directory)
    text = shortage(facts.memory)
    if text is None or (known and record.members(view, known)):
        return None
    fix = ("a larger `--memory` of the container, limit of the pod or `--mem` of the job", "`sgprov doctor memory`")
    return Finding(check="memory-available", severity=Severity.WARNING, text=text, fix=fix)


def known_image(view: HostView, decision: Decision, directory: str) -> str | None:
    """The digest of the image that this server was last verified with, where it is one of the same name."""
    receipt = environments.read_receipt(view, directory) or environments.read_receipt(view, decision.places.prefix)
    same = receipt and decision.hosting and receipt.image == decision.hosting.reference
    return receipt.image_digest if receipt and same else None
