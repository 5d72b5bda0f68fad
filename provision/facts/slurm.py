"""Whether this host belongs to a Slurm cluster."""

from __future__ import annotations

import re

from provision.errors import ProbeError
from provision.facts.model import Slurm
from provision.host import HostView

# The controller may be in another building, but a submit host that waits longer than this is not well.
_PING_TIMEOUT_S = 5.0


def probe_slurm(view: HostView) -> Slurm | None:
    """Slurm's version and whether its controller answers; None where neither its commands nor a job of its are here."""
    inside_job = view.variable("SLURM_JOB_ID") is not None
    outcome = view.query(["sinfo", "--version"])
    if not outcome.installed:
        return Slurm(inside_job=True) if inside_job else None
    if not outcome.ok:
        raise ProbeError(f"`sinfo --version` {outcome.ending}")
    ping = view.query(["scontrol", "ping"], timeout_s=_PING_TIMEOUT_S)
    if ping.installed and ping.rc is None:
        raise ProbeError(f"`scontrol ping` {ping.ending}", hint="look at the network to the Slurm controller")
    return Slurm(version=parse_version(outcome.out), controller=parse_ping(ping.out), inside_job=inside_job)


def parse_version(text: str) -> str | None:
    """Parse `slurm 23.11.4`, and distributions' `slurm-wlm 21.08.5`."""
    found = re.match(r"slurm\S{0,20} (\d{2}\.\d{1,2}(?:\.\d{1,3})?)", text.strip(), re.ASCII)
    return found[1] if found else None


def parse_ping(text: str) -> bool:
    """Whether any controller is up, from, e.g., `Slurmctld(primary) at head1 is UP`."""
    return re.search(r"\bis UP\b", text) is not None
