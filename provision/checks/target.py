"""Checks of the choice: that some stack fits this host, and that its kernels hold code for its GPUs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from provision.catalog.rows import Kernels
from provision.checks.base import Context, check, error, gpus_are_clear, has_gpus, has_lock, info, warning
from provision.errors import ProvisionError
from provision.locks.coverage import Coverage, Way, of_lock
from provision.locks.lockfile import Lock
from provision.plan import EXAMPLE_MODEL
from provision.report import Finding

_check = partial(check, "target")
# Findings of the decision that another check here repeats under its own name.
_SAID_ELSEWHERE = frozenset({"driver-floor", "gpu-mixed", "disk-links"})


@_check(
    "target-fits",
    "Some stack fits this host",
    looks_at="the decision that `sgprov plan` shows: arch, GPUs, driver, SM coverage, glibc, Python and disk",
    why="what does not fit now fails later, after gigabytes of downloads and minutes of loading",
    remedy="`sgprov targets` says what fits; `sgprov plan --target NAME` gives every reason",
)
def target_fits(context: Context) -> Iterator[Finding]:
    refusal = context.refusal
    if refusal is None or not gpus_are_clear(context):
        return
    text = str(refusal)
    if context.candidates and context.target is None:
        # Targets for other GPUs are left out; `sgprov targets` has them all.
        lines = [f"  {one.name}: {'; '.join(one.objections)}" for one in context.candidates]
        text = "no stack fits this host:\n" + "\n".join(lines)
    yield error(text, _hint(refusal), code=refusal.code)


@_check(
    "target-warnings",
    "Nothing speaks against the chosen stack",
    looks_at="the warnings of the decision",
    why="a stack may fit with a reservation that is good to know before it is installed",
    remedy="`sgprov plan` shows them with the other candidates",
    applies=lambda context: context.decision is not None,
)
def target_warnings(context: Context) -> Iterator[Finding]:
    findings = context.decision.findings if context.decision else ()
    yield from (finding for finding in findings if finding.check not in _SAID_ELSEWHERE)


@_check(
    "target-model",
    "A model is named",
    looks_at="the target's row and `--model`",
    why="some targets serve whatever model they are given, and bootstrap needs one to test the server with",
    remedy="`sgprov bootstrap --model ORG/NAME`",
    applies=lambda context: bool(context.decision and context.decision.stack),
)
def target_model(context: Context) -> Iterator[Finding]:
    if context.serve.model is None:
        name = context.target.name if context.target else ""
        yield warning(
            f"target `{name}` has no model of its own", f"`sgprov bootstrap --target {name} --model {EXAMPLE_MODEL}`"
        )


@_check(
    "kernels-cover-gpu",
    "The stack's kernels hold code for every GPU",
    looks_at="the machine code in the locked wheels (catalog), against the compute capability of each GPU",
    why="a wheel without code for a GPU imports and fails at the first request: `no kernel image is available`",
    remedy="`sgprov targets` names the stacks that do; `--stack` takes one of them",
    applies=has_gpus,
)
def kernels_cover_gpu(context: Context) -> Iterator[Finding]:
    locks = _locks(context)
    missing = [[sentence for way, sentence in _ways(context, lock) if way is Way.NONE] for lock in locks]
    # Where nothing was decided every candidate has to fail, or another reason kept the covering one away.
    if not missing or not all(missing):
        return
    sentences = tuple(dict.fromkeys(sentence for each in missing for sentence in each))
    text = sentences[0] if len(sentences) == 1 else "no locked stack holds machine code for every GPU here"
    yield error(text, "`sgprov targets` names the targets that fit", sentences=list(sentences))


@_check(
    "kernels-compiled-at-start",
    "No kernel has to be compiled by the driver",
    looks_at="whether a GPU is served by machine code or by PTX",
    why="PTX is compiled at the first start: minutes without a sign of life, and only on a driver new enough for it",
    remedy="`sgprov plan` shows a stack with machine code, where there is one; otherwise wait for the first start",
    applies=lambda context: has_lock(context) and bool(context.gpus),
)
def kernels_compiled_at_start(context: Context) -> Iterator[Finding]:
    for lock in _locks(context):
        for way, sentence in _ways(context, lock):
            if way is Way.JIT:
                yield warning(sentence, "nothing to mend: the first start takes minutes longer")


@_check(
    "kernels-optional",
    "Optional kernel libraries cover the GPU too",
    looks_at="libraries of the locked wheels that only some models or GPUs need",
    why="a model that needs one of them will not run here, while others do",
    remedy="`sgprov plan` before choosing such a model",
    applies=lambda context: has_lock(context) and bool(context.gpus),
)
def kernels_optional(context: Context) -> Iterator[Finding]:
    for lock in _locks(context):
        for row, coverage in _rows(context, lock):
            if row.optional and not coverage.runs:
                yield info(coverage.sentence(row))


def _hint(refusal: ProvisionError) -> str:
    hint = refusal.hint or ""
    return hint if hint and "sgprov doctor" not in hint else "`sgprov targets` says what fits this host"


def _locks(context: Context) -> tuple[Lock, ...]:
    if context.decision:
        return (context.decision.lock,) if context.decision.lock else ()
    return tuple(one.lock for one in context.candidates if one.lock)


def _rows(context: Context, lock: Lock) -> Iterator[tuple[Kernels, Coverage]]:
    gpus = context.gpus or context.facts.gpus
    cuda = context.facts.driver.cuda if context.facts.driver else None
    for capability in sorted({gpu.compute_capability for gpu in gpus if gpu.compute_capability}):
        yield from of_lock(lock, capability, cuda)


def _ways(context: Context, lock: Lock) -> list[tuple[Way, str]]:
    return [(coverage.way, coverage.sentence(row)) for row, coverage in _rows(context, lock) if not row.optional]


CHECKS = (target_fits, target_warnings, target_model, kernels_cover_gpu, kernels_compiled_at_start, kernels_optional)
