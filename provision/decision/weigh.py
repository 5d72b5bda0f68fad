"""What speaks for and against one stack or image on one host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from packaging.version import InvalidVersion, Version

from provision.catalog.archives import archive_of
from provision.catalog.rows import Image, Stack
from provision.config import Options
from provision.decision.hosting import ARCHS, choose
from provision.decision.model import Candidate, Places, Previous
from provision.facts.model import Facts, Gpu, Python
from provision.host import RESERVE_BYTES
from provision.locks.coverage import of_lock, runs_on
from provision.locks.lockfile import Lock
from provision.locks.sizes import Sizes
from provision.report import Finding, Severity

# Whose builds of Python bring the libraries that they load.
_WHOLE = ("uv", "conda")
_GIB = 1024**3
_GB = 1e9
# NVIDIA's consumer and workstation names: no forward-compatibility package exists for them.
_CONSUMER_NAMES = ("geforce", "titan", "rtx ", "quadro", "graphics device")


@dataclass
class Verdict:
    """Reasons, objections and warnings as they are found."""

    reasons: list[str] = field(default_factory=list)
    objections: list[str] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    lacking: tuple[str, int] | None = None

    def weigh(self, fits: bool, reason: str, objection: str) -> None:  # noqa: FBT001  # the condition is the subject
        (self.reasons if fits else self.objections).append(reason if fits else objection)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a stack or image is weighed against; `wishes` say which model, and which container engine.

    `gpus` are those to use (none for the CPU), `python` the minor version to use ("3.10") or None, `interpreter` a
    path that the user named, `previous` what the server here was decided as, if it is of the same target.
    """

    facts: Facts
    gpus: Sequence[Gpu]
    places: Places
    wishes: Options = field(default_factory=Options)
    python: str | None = None
    interpreter: str | None = None
    sizes: Mapping[str, Sizes] = field(default_factory=dict)
    installed: frozenset[str] = frozenset()
    begun: frozenset[str] = frozenset()
    previous: Previous = field(default_factory=Previous)


def stack_candidate(stack: Stack, locks: Sequence[Lock], setting: Setting) -> Candidate:
    """Weigh a stack with its lockfiles."""
    facts, gpus = setting.facts, setting.gpus
    verdict = Verdict()
    here = [lock for lock in locks if lock.arch == facts.arch]
    archs = ", ".join(sorted({lock.arch for lock in locks})) or "none"
    verdict.weigh(bool(here), f"wheels for {facts.arch}", f"no wheels locked for {facts.arch} (only {archs})")
    lock, interpreter = _lock_and_interpreter(here, setting, verdict)
    if gpus:
        _weigh_driver(stack.min_driver, stack.cuda, facts, gpus, verdict)
        if lock:
            _weigh_kernels(lock, gpus, facts, verdict)
    _weigh_glibc(stack, facts, verdict)
    size = setting.sizes.get(lock.name) if lock else None
    download, disk = (size.download_bytes, size.disk_bytes) if size else (None, None)
    if lock and lock.digest in setting.installed:
        download = disk = 0
    # What an interrupted installation left may be what fills the disk: the step looks again, and knows the cache.
    begun = lock is not None and any(lock.digest[:12] in name for name in setting.begun)
    if disk and not begun:
        _weigh_disk(disk, facts, setting.places, verdict)
    if setting.wishes.image:
        engine, told = choose(facts, setting.wishes, gpus=bool(gpus), first=setting.previous.container_engine)
        verdict.weigh(engine is not None, told, told)
    return Candidate(
        name=stack.name,
        kind="stack",
        stack=stack,
        lock=lock,
        interpreter=interpreter,
        pythons=tuple(one.python for one in here),
        reasons=tuple(verdict.reasons),
        objections=tuple(verdict.objections),
        warnings=tuple(verdict.warnings),
        download_bytes=download,
        disk_bytes=disk,
        lacking=verdict.lacking,
    )


def image_candidate(image: Image, setting: Setting, *, instead: Sequence[Image] = ()) -> Candidate:
    """Weigh a container image: architecture, driver, machine code, and an engine that can hand out GPUs.

    `instead` are the other rows, of which one for this architecture is named where this one is not.
    """
    verdict, facts, gpus = Verdict(), setting.facts, setting.gpus
    arch = ARCHS.get(facts.arch, facts.arch)
    verdict.weigh(arch in image.archs, f"image for {arch}", _wrong_arch(image, arch, instead))
    if setting.wishes.model and image.model and not _is_model(setting.wishes.model, image.model):
        verdict.objections.append(f"serves `{image.model}`, not `{setting.wishes.model}`")
    _weigh_driver(image.min_driver, image.cuda, facts, gpus, verdict)
    for capability in sorted({gpu.compute_capability for gpu in gpus if gpu.compute_capability}):
        if native := image.native.get(arch):  # type: ignore[call-overload]  # any name of an architecture may be asked
            covered, listed = runs_on(native, (), capability, None), ", ".join(native)
            not_held = f"holds code for {listed}, not for {capability}"
            verdict.weigh(covered.runs, f"holds code for {capability}", not_held)
    engine, told = choose(facts, setting.wishes, gpus=bool(gpus), first=setting.previous.container_engine)
    verdict.weigh(engine is not None, told, told)
    return Candidate(
        name=image.name,
        kind="image",
        image=image,
        reasons=tuple(verdict.reasons),
        objections=tuple(verdict.objections),
        warnings=tuple(verdict.warnings),
        download_bytes=int(image.size_gib * _GIB) if image.size_gib else None,
    )


def _wrong_arch(image: Image, arch: str, instead: Sequence[Image]) -> str:
    right = [one for one in instead if arch in one.archs and one.engine == image.engine]
    same = [one for one in right if one.model == image.model] or right
    hint = f"; for {arch} there is `{same[0].name}`" if same else ""
    return f"an image for {', '.join(image.archs)}, this host is {arch}{hint}"


def _is_model(wished: str, name: str) -> bool:
    """Whether `qwen3-32b` or `qwen/qwen3-32b` names the model `qwen/qwen3-32b`."""
    return wished in {name, name.rpartition("/")[2]}


def at_least(text: str, floor: str) -> bool | None:
    """Whether a version as something says it (a driver's `550.144.03`) is at least `floor`; None where it is none."""
    try:
        return Version(text) >= Version(floor)
    except InvalidVersion:
        return None


def minor(version: str) -> str:
    """`3.10` of `3.10.13`."""
    return ".".join(version.split(".")[:2])


def _lock_and_interpreter(here: Sequence[Lock], setting: Setting, verdict: Verdict) -> tuple[Lock | None, str | None]:
    python, interpreter = setting.python, setting.interpreter
    if not here:
        return None, interpreter
    offered = [lock for lock in here if python in {None, lock.python}]
    if not offered:
        versions = ", ".join(lock.python for lock in here)
        verdict.objections.append(f"no wheels for Python {python} (only {versions})")
        return None, interpreter
    offered = [lock for lock in offered if lock.python == setting.previous.python] or offered
    if interpreter:
        verdict.reasons.append(f"Python {offered[-1].python} at {interpreter}")
        return offered[-1], interpreter
    # Newest Python first, one with headers before one without: Triton compiles against them on first use.
    for those in _usable(setting):
        for lock in reversed(offered):
            found = [one for one in those if minor(one.version) == lock.python]
            found.sort(key=lambda one: not one.headers)
            if found:
                verdict.reasons.append(f"Python {lock.python} at {found[0].path}")
                return lock, found[0].path
    # One that a command of the system's own gives, before one that has to be fetched.
    system = setting.facts.os
    archive = archive_of(system.id, system.version) if system else None
    lock = next((lock for lock in offered if archive and lock.python == archive.python), offered[-1])
    verdict.reasons.append(f"Python {lock.python}, not on this host yet")
    return lock, None


def _usable(setting: Setting) -> tuple[Sequence[Python], ...]:
    """The interpreters of this host to choose from, in groups of which the first that has one is taken.

    Into an image goes one that brings the libraries that it loads, else one in a directory of its own; never the
    system's, whose directory would take the place of the image's.
    """
    every = setting.facts.pythons
    if not setting.wishes.image:
        return (every,)
    whole = [one for one in every if one.source in _WHOLE]
    return whole, [one for one in every if one not in whole and not one.path.startswith("/usr/")]


def _weigh_driver(floor: str, cuda: str, facts: Facts, gpus: Sequence[Gpu], verdict: Verdict) -> None:
    if facts.driver is None:
        verdict.objections.append("needs an NVIDIA driver, none is loaded")
        return
    enough = at_least(facts.driver.version, floor)
    told = f"driver {facts.driver.version}"
    if enough is None:
        verdict.objections.append(f"the driver version `{facts.driver.version}` cannot be read")
    elif enough:
        verdict.reasons.append(f"{told} >= {floor} (CUDA {cuda})")
    elif any(name in gpu.name.lower() for gpu in gpus for name in _CONSUMER_NAMES):
        verdict.objections.append(f"CUDA {cuda} needs driver {floor}, this host has {facts.driver.version}")
    else:
        verdict.reasons.append(f"{told} < {floor}")
        verdict.warnings.append(
            Finding(
                check="driver-floor",
                severity=Severity.WARNING,
                text=f"{told} is below {floor}, the floor of CUDA {cuda}: it works on a data-centre GPU only through "
                "the forward-compatibility package",
                fix=(f"update the driver to {floor} or newer", "or take a stack of an older CUDA: `--stack`"),
            )
        )


def _weigh_kernels(lock: Lock, gpus: Sequence[Gpu], facts: Facts, verdict: Verdict) -> None:
    cuda = facts.driver.cuda if facts.driver else None
    for capability in sorted({gpu.compute_capability for gpu in gpus if gpu.compute_capability}):
        for row, coverage in of_lock(lock, capability, cuda):
            if row.optional:
                continue
            verdict.weigh(coverage.runs, coverage.sentence(row), coverage.sentence(row))


def _weigh_glibc(stack: Stack, facts: Facts, verdict: Verdict) -> None:
    if facts.glibc is None:
        verdict.objections.append(f"needs glibc {stack.minimum_glibc}, this host has none (musl?)")
        return
    verdict.weigh(
        bool(at_least(facts.glibc, stack.minimum_glibc)),
        f"glibc {facts.glibc} >= {stack.minimum_glibc}",
        f"needs glibc {stack.minimum_glibc}, this host has {facts.glibc}",
    )


def _weigh_disk(needed: int, facts: Facts, places: Places, verdict: Verdict) -> None:
    for disk in facts.disks:
        if disk.path == places.prefix:
            wanted = needed + RESERVE_BYTES
            if disk.free < wanted:
                verdict.lacking = (disk.mount, wanted - disk.free)
            free = disk.free / _GB
            verdict.weigh(
                disk.free >= wanted,
                f"{needed / _GB:.1f} GB of {free:.1f} GB free on {disk.mount}",
                f"needs {wanted / _GB:.1f} GB under {places.prefix}, {disk.mount} has {free:.1f} GB free",
            )
