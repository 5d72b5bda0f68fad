"""Checks of a Slurm node: its controller, munge, and its nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from provision.checks.base import Context, check, error, info, warning
from provision.report import Finding
from provision.secrets import mask

_check = partial(check, "slurm")
_TARGET = "slurm-efa"
_BAD = ("down", "drain", "fail", "inval", "unknown", "not_resp")


def _installed(context: Context) -> bool:
    return context.facts.slurm is not None and context.facts.slurm.version is not None


def _say(context: Context) -> Callable[..., Finding]:
    """An error where the target is run by Slurm; any other is served beside it, and is not kept from that."""
    return error if context.target and context.target.name == _TARGET else warning


@_check(
    "slurm-controller",
    "Slurm's controller answers",
    looks_at="`scontrol ping`",
    why="without it no job can be submitted, and running ones cannot start steps",
    remedy="`sudo systemctl restart slurmctld` on the head node; `scontrol ping` again",
    applies=_installed,
)
def slurm_controller(context: Context) -> Iterator[Finding]:
    if context.facts.slurm and not context.facts.slurm.controller:
        yield _say(context)(
            "no Slurm controller answers `scontrol ping`", "`sudo systemctl restart slurmctld` on the head node"
        )


@_check(
    "slurm-munge",
    "munge runs",
    looks_at="whether `munge -n` can sign a message",
    why="Slurm signs every message with it: without it everything fails with `Invalid credential`",
    remedy="`sudo systemctl restart munge`; the key must be the same on all nodes, and their clocks alike",
    applies=_installed,
)
def slurm_munge(context: Context) -> Iterator[Finding]:
    # What it signs with is a credential: it goes nowhere.
    outcome = context.view.query(["munge", "-n", "--output=/dev/null"], timeout_s=5.0)
    if outcome.installed and not outcome.ok:
        said = mask((outcome.err or outcome.out).strip()[:200]) or outcome.ending
        yield _say(context)(f"munge does not sign: {said}", "`sudo systemctl restart munge`")


@_check(
    "slurm-nodes",
    "No node is down or drained",
    looks_at="`sinfo`: the states of all nodes",
    why="a job that wants them waits without an end, and the reason stands elsewhere",
    remedy="`sinfo -R` gives the reasons, `sudo scontrol update nodename=NAME state=resume` takes one back",
    applies=_installed,
)
def slurm_nodes(context: Context) -> Iterator[Finding]:
    outcome = context.view.query(["sinfo", "--noheader", "--format=%T %D"], timeout_s=5.0)
    rows = [line.split() for line in outcome.out.splitlines()] if outcome.ok else []
    bad = [f"{row[1]} {row[0]}" for row in rows if len(row) > 1 and row[0].lower().startswith(_BAD)]
    if bad:
        yield warning(f"Slurm has nodes that take no job: {', '.join(bad)}", "`sinfo -R` gives the reasons")


@_check(
    "slurm-job",
    "Whether this is inside of a job",
    looks_at="SLURM_JOB_ID",
    why="GPUs of a Slurm node are handed out by jobs: a server started outside of one takes what others were promised",
    remedy="`salloc --gpus 1`, and `sgprov bootstrap` inside of it",
    applies=lambda context: _installed(context) and bool(context.facts.gpus),
)
def slurm_job(context: Context) -> Iterator[Finding]:
    if context.facts.slurm and not context.facts.slurm.inside_job:
        yield info("this is a Slurm host and not inside of a job: its GPUs are Slurm's to hand out")


CHECKS = (slurm_controller, slurm_munge, slurm_nodes, slurm_job)
