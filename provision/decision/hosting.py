"""Which container engine runs a server, and how it hands out GPUs; or why none here can."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from provision.catalog.rows import Image
from provision.config import Options
from provision.decision.model import Hosting
from provision.errors import UsageError
from provision.facts.model import ContainerEngine, Facts

PROGRAMS = ("docker", "podman")
# Docker's names of CPU architectures.
ARCHS = {"x86_64": "amd64", "aarch64": "arm64"}


def choose(
    facts: Facts, wishes: Options, *, gpus: bool, first: str | None = None
) -> tuple[ContainerEngine | None, str]:
    """The engine with the reason for it, or None with what speaks against each; `first` goes before the others."""
    named = wishes.container_engine
    if named and named not in PROGRAMS:
        raise UsageError(f"there is no container engine `{named}`", hint=f"the engines are {' and '.join(PROGRAMS)}")
    engines = [engine for engine in facts.engines if named in {None, engine.name}]
    engines.sort(key=lambda engine: engine.name != first)
    running = [engine for engine in engines if engine.running]
    if not running:
        told = "; ".join(f"{engine.name}: {engine.problem}" for engine in engines if engine.problem)
        return None, told or f"needs {named or 'Docker or Podman'}, which is not here"
    if not gpus:
        return running[0], f"{running[0].name} runs"
    able = next((engine for engine in running if engine.nvidia_runtime or engine.cdi), None)
    if able is None:
        return None, f"{running[0].name} cannot hand out GPUs: no NVIDIA runtime and no CDI"
    return able, f"{able.name} hands out GPUs"


def hosting(engine: ContainerEngine, reference: str, arch: str, devices: Sequence[int] | None) -> Hosting:
    """How a server is to run in that engine. `devices` are the indices of the GPUs, empty for all, None for none."""
    return Hosting(
        program="podman" if engine.name == "podman" else "docker",
        reference=reference,
        arch=ARCHS.get(arch, arch),
        gpus=None if devices is None else "runtime" if engine.nvidia_runtime else "cdi",
        devices=tuple(str(device) for device in devices or ()),
        rootless=engine.rootless,
    )


def as_wished(image: Image, wishes: Options) -> Image:
    """The row, or with `--image` the same for another reference: a mirror's, or one of the user's own."""
    if not wishes.image:
        return image
    login = image.login and wishes.image.startswith(f"{image.registry}/")
    return replace(image, reference=wishes.image, digests={}, login=login)


def reference_of(image: Image, arch: str) -> str:
    """By digest where the row has one for this architecture, so that it is the very image that was meant."""
    digest = image.digests.get(ARCHS.get(arch, arch))
    if digest is None:
        return image.reference
    name, _, last = image.reference.rpartition("/")
    return f"{name}/{last.partition(':')[0]}@{digest}"
