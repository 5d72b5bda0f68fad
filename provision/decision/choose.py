"""The choice: of a stack for a named target, and of a target where none is named."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from pathlib import Path, PurePosixPath

from msgspec.structs import replace as replaced

from provision.catalog.load import Catalog
from provision.catalog.rows import Layout, Serve, Target
from provision.config import Options
from provision.decision.hosting import as_wished, choose, hosting, reference_of
from provision.decision.model import Candidate, Decision, Fit, Hosting, Places, Previous
from provision.decision.weigh import Setting, image_candidate, minor, stack_candidate
from provision.errors import TooLittleDisk, UnsupportedHost, UsageError, WrongPython
from provision.facts.model import Facts, Gpu
from provision.locks.lockfile import available
from provision.locks.sizes import Sizes
from provision.report import Finding, Severity


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a decision is made from.

    `locks` is the folder of lockfiles, `sizes` what their wheels weigh. By prefix, `installed` has the digests of the
    locks whose environments are complete, `begun` the names of the directories of those that are not. `home` is the
    user's home, `hf_home` where HF_HOME puts the Hugging Face cache, `previous` what the server here was decided as.
    """

    wishes: Options
    facts: Facts
    catalog: Catalog
    locks: Path
    sizes: dict[str, Sizes] = field(default_factory=dict)
    installed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    begun: Mapping[str, frozenset[str]] = field(default_factory=dict)
    previous: Previous = field(default_factory=Previous)
    home: str = "/root"
    hf_home: str | None = None


_GB = 1e9
# Problems with these ids mean that what GPUs there are cannot be told.
_GPU_PROBLEMS = ("facts.gpu", "facts.driver", "facts.nvml")


def decide(question: Question) -> Decision:
    """The decision for the target that is wished for, else that of the server here, else the best-ranked one that fits.

    Raises `UnsupportedHost` with every reason, `WrongPython` where only the Python is wrong, `UsageError` for a
    name that is not in the catalog.
    """
    catalog, wishes, facts = question.catalog, question.wishes, question.facts
    if wishes.target:
        targets: Sequence[Target] = (catalog.target(wishes.target),)
    else:
        ranked = sorted((t for t in catalog.targets if t.rank is not None), key=lambda t: t.rank or 0)
        before = [t for t in catalog.targets if t.name == question.previous.target]
        targets = [*before, *(t for t in ranked if t not in before)]
    fits: list[Fit] = []
    for target in targets:
        named = _is_named(target, question)
        if not named:
            _refuse_unclear(facts)
        fit = _fit(target, question)
        # A machine with GPUs is never quietly made a CPU server, nor is a container that was handed none of them.
        if fit.chosen and (named or target.compute_capabilities or not (facts.gpus or _withheld(facts))):
            return _decision(fit, question, passed_over=fits)
        if fit.chosen:
            fit = replace(fit, chosen=None, objections=("this host has GPUs: it is made a CPU server by name only",))
        fits.append(fit)
    raise _refusal(fits, wishes, facts)


def weigh_targets(question: Question) -> tuple[Fit, ...]:
    """Every target with what speaks for and against it here; raises nothing because of the host."""
    return tuple(_fit(target, question) for target in question.catalog.targets)


def places_of(layout: Layout, wishes: Options, home: str, *, hf_home: str | None = None) -> Places:
    """Absolute paths; the user's wishes stand over the target's layout, and `hf_home` (HF_HOME) is one of them."""

    def absolute(path: str) -> str:
        if path == "~" or path.startswith("~/"):
            path = home + path[1:]
        return str(PurePosixPath("/") / path) if path.startswith("/") else str(Path(path).absolute())

    prefix = absolute(wishes.prefix or layout.prefix)
    # Whoever moves the prefix moves what lies under it by default.
    default = Layout()
    models = layout.models if not (wishes.prefix and layout.models == default.models) else f"{prefix}/models"
    return Places(
        prefix=prefix,
        models=absolute(wishes.model_directory or models),
        huggingface=absolute(wishes.cache_directory or hf_home or layout.huggingface),
        nim=absolute(wishes.cache_directory or layout.nim),
    )


def chosen_gpus(facts: Facts, wishes: Options) -> tuple[Gpu, ...]:
    """The GPUs to use: all, or those whose indices were named (`--gpus 0,2`)."""
    if not wishes.gpus:
        return facts.gpus
    by_index = {str(gpu.index): gpu for gpu in facts.gpus}
    names = [part.strip() for part in wishes.gpus.split(",") if part.strip()]
    if not names:
        raise UsageError(f"`{wishes.gpus}` names no GPU", hint=f"the indices are {', '.join(by_index) or 'none'}")
    if unknown := [name for name in names if name not in by_index]:
        raise UsageError(
            f"there is no GPU {', '.join(unknown)} here", hint=f"the indices are {', '.join(by_index) or 'none'}"
        )
    return tuple(by_index[name] for name in names)


def _fit(target: Target, question: Question) -> Fit:
    wishes, facts, catalog = question.wishes, question.facts, question.catalog
    gpus = chosen_gpus(facts, wishes) if target.compute_capabilities else ()
    objections = _target_objections(target, facts, gpus)
    if not objections and not _is_named(target, question):
        objections = _surroundings_objections(target, facts)
    if objections:
        return Fit(target=target, chosen=None, candidates=(), objections=objections)
    python, interpreter = _python(target, wishes, facts)
    places = places_of(target.layout, wishes, question.home, hf_home=question.hf_home)
    previous = question.previous if question.previous.target == target.name else Previous()
    setting = Setting(
        facts=facts,
        gpus=gpus,
        python=python,
        interpreter=interpreter,
        places=places,
        wishes=wishes,
        sizes=question.sizes,
        installed=question.installed.get(places.prefix, frozenset()),
        begun=question.begun.get(places.prefix, frozenset()),
        previous=previous,
    )
    stacks = [stack_candidate(catalog.stack(name), available(question.locks, name), setting) for name in target.stacks]
    rows = [as_wished(catalog.image(name), wishes) for name in target.images]
    images = [image_candidate(row, setting, instead=catalog.images) for row in rows]
    candidates = [*images, *stacks] if target.prefer == "image" else [*stacks, *images]
    if wishes.stack:
        candidates = [one for one in candidates if one.name == wishes.stack]
        if not candidates:
            names = ", ".join([*target.stacks, *target.images])
            raise UsageError(f"target `{target.name}` has no stack `{wishes.stack}`", hint=f"it has {names}")
    fitting = [one for one in candidates if one.fits]
    # That of the server here; else one that fits without a warning, before a newer one that fits only with it.
    chosen = min(fitting, key=lambda one: (one.name != previous.stack, bool(one.warnings)), default=None)
    return Fit(target=target, chosen=chosen, candidates=tuple(candidates))


def _is_named(target: Target, question: Question) -> bool:
    """Whether somebody asked for this very target: now, or for the server that is here."""
    return target.name in {question.wishes.target, question.previous.target}


def _target_objections(target: Target, facts: Facts, gpus: Sequence[Gpu]) -> tuple[str, ...]:
    if not target.compute_capabilities:
        return ()
    if problems := _gpu_problems(facts):
        return tuple(f"what GPUs there are cannot be told: {problem.text}" for problem in problems)
    wanted = _capabilities(target)
    if not gpus:
        return (f"needs a GPU of compute capability {wanted}, none is here",)
    kinds: dict[tuple[str, str | None], list[Gpu]] = {}
    for gpu in gpus:
        kinds.setdefault((gpu.name, gpu.compute_capability), []).append(gpu)
    found = [said for those in kinds.values() if (said := _gpu_objection(target, those, wanted))]
    if len(gpus) < target.minimum_gpus:
        found.append(f"needs {target.minimum_gpus} GPUs, {len(gpus)} here")
    return tuple(found)


def _gpu_objection(target: Target, those: Sequence[Gpu], wanted: str) -> str | None:
    """What speaks against GPUs of one kind, said once however many there are."""
    gpu, several = those[0], len(those) > 1
    who, are = (f"{len(those)} GPUs", "are") if several else (f"GPU {gpu.index}", "is")
    if gpu.compute_capability is None:
        return f"the compute capability of {who} ({gpu.name}) is not known"
    if gpu.compute_capability not in target.compute_capabilities:
        return f"{who} ({gpu.name}) {are} {gpu.compute_capability}, it is for {wanted}"
    if target.gpu_names and not _is_called(gpu, target.gpu_names):
        return f"{who} {are} {'' if several else 'a '}{gpu.name}, it is for {' or '.join(target.gpu_names)}"
    return None


def _capabilities(target: Target) -> str:
    few = 3
    every = target.compute_capabilities
    return " or ".join(every) if len(every) <= few else f"{every[0]} to {every[-1]}"


def _is_called(gpu: Gpu, names: Sequence[str]) -> bool:
    """Whether a name stands in the GPU's as a word: a `GH200` is no `H200`."""
    return any(re.search(rf"\b{re.escape(name)}\b", gpu.name) for name in names)


def _surroundings_objections(target: Target, facts: Facts) -> tuple[str, ...]:
    """What keeps a target from being chosen unasked; whoever names it gets it, wherever it is."""
    if "runpod" in target.rank_needs and not facts.surroundings.runpod:
        return ("is for RunPod pods, and this is not one",)
    return ()


def _python(target: Target, wishes: Options, facts: Facts) -> tuple[str | None, str | None]:
    """The minor version to use and the interpreter that was named. Raises `WrongPython` against the target's rule."""
    wanted, path = wishes.python, None
    if wanted and "/" in wanted:
        path = wanted
        known = next((one for one in facts.pythons if one.path == wanted), None)
        if known is None:
            raise UsageError(f"`{wanted}` is not a Python interpreter", hint="name one that `sgprov facts` lists")
        wanted = known.version
    wanted = minor(wanted) if wanted else None
    if target.python and wanted and wanted != target.python:
        named = f"`{path}` is {known.version}" if path and known else f"`--python {wishes.python}` was given"
        raise WrongPython(
            f"target `{target.name}` needs Python {target.python}; {named}",
            hint=f"leave `--python` out, or give `--python {target.python}`",
        )
    return target.python or wanted, path


def _decision(fit: Fit, question: Question, passed_over: Sequence[Fit]) -> Decision:
    wishes, facts = question.wishes, question.facts
    chosen = fit.chosen
    assert chosen is not None  # noqa: S101  # the caller asked
    why = [f"{other.target.name}: {'; '.join(other.why_not)}" for other in passed_over]
    why += [f"{one.name}: {'; '.join(one.objections)}" for one in fit.candidates if one.objections]
    why += [_second(one) for one in fit.candidates if one.fits and one is not chosen]
    why.append(f"{chosen.name}: {'; '.join(chosen.reasons)}")
    findings = list(chosen.warnings)
    gpus = chosen_gpus(facts, wishes) if fit.target.compute_capabilities else ()
    if len({gpu.name for gpu in gpus}) > 1:
        names = ", ".join(sorted({gpu.name for gpu in gpus}))
        findings.append(
            Finding(
                check="gpu-mixed",
                severity=Severity.WARNING,
                text=f"this host has several kinds of GPU ({names}); the slowest sets the pace",
                fix=("name those of one kind with `--gpus`",),
            )
        )
    serve = serve_of(fit.target, wishes)
    if chosen.image and chosen.image.model:
        # Whatever it was called when it was asked for: this is the name that clients have to say.
        serve = replaced(serve, model=chosen.image.model)
    return Decision(
        target=fit.target,
        places=places_of(fit.target.layout, wishes, question.home, hf_home=question.hf_home),
        serve=serve,
        hosting=_hosting(chosen, question, gpus),
        stack=chosen.stack,
        lock=chosen.lock,
        python=chosen.lock.python if chosen.lock else None,
        interpreter=chosen.interpreter,
        image=chosen.image,
        candidates=fit.candidates,
        why=tuple(why),
        findings=tuple(findings),
        download_bytes=chosen.download_bytes,
        disk_bytes=chosen.disk_bytes,
    )


def _second(one: Candidate) -> str:
    """Why one that fits was not taken: what it warns of, or that it comes after the one that was."""
    warnings = "; ".join(warning.text for warning in one.warnings)
    return f"{one.name}: fits {f'with a warning: {warnings}' if warnings else f'too: `--stack {one.name}` takes it'}"


def _hosting(chosen: Candidate, question: Question, gpus: Sequence[Gpu]) -> Hosting | None:
    wishes, facts = question.wishes, question.facts
    reference = reference_of(chosen.image, facts.arch) if chosen.image else wishes.image
    if reference is None:
        return None
    engine, _ = choose(facts, wishes, gpus=bool(gpus), first=question.previous.container_engine)
    assert engine is not None  # noqa: S101  # else the candidate would not fit
    named = [gpu.index for gpu in gpus] if wishes.gpus else []
    return hosting(engine, reference, facts.arch, named if gpus else None)


def serve_of(target: Target, wishes: Options) -> Serve:
    """The target's settings with what the user wished on top."""
    serve = target.serve
    if wishes.port and wishes.port != "auto":
        if not wishes.port.isdigit() or not 0 < int(wishes.port) < 65536:  # noqa: PLR2004  # the last port
            raise UsageError(f"`{wishes.port}` is not a port", hint="a number from 1 to 65535, or `auto`")
        serve = replaced(serve, port=int(wishes.port))
    changes = {
        "model": wishes.model,
        "revision": wishes.revision,
        "served_name": wishes.served_model_name,
        "chat_template": wishes.chat_template and str(Path(wishes.chat_template).expanduser().absolute()),
        "host": wishes.bind,
        "context_length": wishes.context_length,
        "mem_fraction": wishes.mem_fraction,
    }
    serve = replaced(serve, **{key: value for key, value in changes.items() if value is not None})
    serve = replaced(serve, extra=(*serve.extra, *(wishes.extra or ())))
    # A real model has real weights: dummy ones are only for the built-in one.
    if wishes.model and not wishes.model.startswith("builtin:") and target.serve.load_format == "dummy":
        serve = replaced(serve, load_format=None)
    # How the target's own model is quantized says nothing of another: the engine reads that from the model itself.
    if wishes.model and PurePosixPath(wishes.model).name != PurePosixPath(target.serve.model or "").name:
        serve = replaced(serve, quantization=None)
    return serve


def _gpu_problems(facts: Facts) -> tuple[Finding, ...]:
    return tuple(
        problem
        for problem in facts.problems
        if problem.severity is Severity.ERROR and problem.check.startswith(_GPU_PROBLEMS)
    )


def _withheld(facts: Facts) -> tuple[Finding, ...]:
    """What says that the machine has GPUs which its container was not handed."""
    return tuple(problem for problem in facts.problems if problem.check == "facts.gpus" and not facts.gpus)


def _refuse_unclear(facts: Facts) -> None:
    if problems := _gpu_problems(facts):
        lines = "\n".join(f"  {problem.text}" for problem in problems)
        fixes = [fix for problem in problems for fix in problem.fix]
        raise UnsupportedHost(
            f"what GPUs this host has cannot be told:\n{lines}",
            hint=fixes[0] if fixes else "`sgprov doctor` says more",
        )


def _refusal(fits: Sequence[Fit], wishes: Options, facts: Facts) -> UnsupportedHost:
    kind, hint = _remedy(fits, wishes, facts)
    if wishes.target:
        lines = "\n".join(f"  {line}" for line in fits[0].why_not)
        return kind(f"target `{wishes.target}` does not fit this host:\n{lines}", hint=hint)
    lines = "\n".join(f"  {fit.target.name}: {'; '.join(fit.why_not)}" for fit in sorted(fits, key=_distance))
    return kind(f"no target in the catalog fits this host:\n{lines}", hint=hint)


def _distance(fit: Fit) -> tuple[int, int]:
    """How far a target is from fitting. The nearest is told first: its reasons are those that decide.

    One whose GPUs these are comes before one for others, and of those the one that takes the most kinds.
    """
    if fit.objections:
        return (1, -len(fit.target.compute_capabilities))
    return (0, min((len(one.objections) for one in fit.candidates), default=0))


def _remedy(fits: Sequence[Fit], wishes: Options, facts: Facts) -> tuple[type[UnsupportedHost], str]:
    """What kind of refusal it is, and what mends it; where a single thing keeps a candidate away, it is that."""
    if not wishes.target and (withheld := [fix for problem in _withheld(facts) for fix in problem.fix]):
        return UnsupportedHost, f"{withheld[0]}, or `--target cpu`"
    alone = [one for fit in fits if not fit.objections for one in fit.candidates if len(one.objections) == 1]
    lacking = min((one.lacking for one in alone if one.lacking), key=itemgetter(1), default=None)
    if lacking:
        mount, short = lacking
        return TooLittleDisk, (
            f"free {short / _GB:.1f} GB on {mount} (`sgprov environments clear` removes what is no longer used), or "
            "name a directory on another disk with `--prefix`"
        )
    unlocked = [one for one in alone if wishes.python and one.pythons and one.lock is None]
    if unlocked:
        versions = list(dict.fromkeys(version for one in unlocked for version in one.pythons))
        return WrongPython, (
            f"`--python {versions[-1]}` ({', '.join(versions)} have a lock); without `--python` one of those that is "
            "here is chosen, or else fetched"
        )
    if not wishes.target:
        return UnsupportedHost, "`sgprov doctor` says more"
    fixes = [fix for problem in _gpu_problems(facts) for fix in problem.fix]
    return UnsupportedHost, fixes[0] if fixes and fits[0].objections else "`sgprov targets` says what fits this host"
