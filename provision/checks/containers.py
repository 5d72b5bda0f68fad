"""Checks of Docker and Podman: there, running, ours to use, and able to hand out GPUs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from packaging.version import InvalidVersion, Version

from provision.checks.base import Context, check, error, info, warning
from provision.facts.model import ContainerEngine
from provision.report import Finding

_check = partial(check, "containers")
_TOOLKIT = "`sudo apt-get install -y nvidia-container-toolkit`"
_RUNTIME = "`sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker`"
_CDI = "`sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`"
# Docker reads CDI files by itself from this version on: https://docs.docker.com/build/building/cdi/
_DOCKER_CDI = Version("28.2")


def _wanted(context: Context) -> bool:
    """Whether the target is, or can only be, served from an image."""
    if context.decision:
        return context.decision.image is not None
    target = context.target
    return bool(target and target.images and (target.prefer == "image" or not target.stacks))


def _has_engines(context: Context) -> bool:
    return bool(context.facts.engines)


@_check(
    "container-engine",
    "A container engine is installed",
    looks_at="`docker info` and `podman version`",
    why="the target is served from an image",
    remedy="`sudo apt-get install -y docker.io`",
    applies=_wanted,
)
def container_engine(context: Context) -> Iterator[Finding]:
    if not context.facts.engines:
        yield error(
            "neither Docker nor Podman is here, and the target is an image", "`sudo apt-get install -y docker.io`"
        )


@_check(
    "container-daemon",
    "The container engine answers this user",
    looks_at="`docker info`: a daemon that is down and a user without permission are told apart",
    why="`start docker` is the wrong advice for a user who is not in the group `docker`",
    remedy="`sudo systemctl start docker`, or `sudo usermod -aG docker $USER` and log in again",
    applies=_has_engines,
)
def container_daemon(context: Context) -> Iterator[Finding]:
    for engine in context.facts.engines:
        if engine.problem:
            fix = (
                "`sudo usermod -aG docker $USER`, then log in again"
                if "permission" in engine.problem
                else "`sudo systemctl start docker`"
            )
            say = error if _wanted(context) and not _running(context) else info
            yield say(f"{engine.name}: {engine.problem}", *(() if say is info else (fix,)))


@_check(
    "container-gpus",
    "The container engine can hand out GPUs",
    looks_at="the NVIDIA runtime in `docker info` and daemon.json, and CDI files in /etc/cdi and /var/run/cdi",
    why="without one of them `--gpus all` fails: `could not select device driver`; a new DGX Spark has no CDI file",
    remedy=f"{_TOOLKIT}, then {_RUNTIME}",
    applies=lambda context: bool(context.facts.gpus) and _running(context) is not None,
)
def container_gpus(context: Context) -> Iterator[Finding]:
    engine = _running(context)
    if engine and not any(one.nvidia_runtime or one.cdi for one in context.facts.engines if one.running):
        say = error if _wanted(context) else info
        yield say(
            f"{engine.name} has neither the NVIDIA runtime nor a CDI file: it cannot hand out GPUs", _TOOLKIT, _RUNTIME
        )


@_check(
    "container-cdi",
    "The way to hand out GPUs fits the engine's version",
    looks_at="Docker's version where only a CDI file is there, and rootless engines with the NVIDIA runtime",
    why="Docker before 28.2 reads CDI files only where it is told to; a rootless one may not use the runtime's cgroups",
    remedy=_CDI,
    applies=lambda context: bool(context.facts.gpus) and _running(context) is not None,
)
def container_cdi(context: Context) -> Iterator[Finding]:
    for engine in context.facts.engines:
        version = _version(engine)
        if engine.name == "docker" and engine.cdi and not engine.nvidia_runtime and version and version < _DOCKER_CDI:
            yield warning(
                f"Docker {engine.version} has a CDI file and no NVIDIA runtime: `--gpus` needs {_DOCKER_CDI}", _RUNTIME
            )
        if engine.rootless and engine.nvidia_runtime and not engine.cdi:
            yield warning(
                f"{engine.name} is rootless: the NVIDIA runtime may not set up cgroups for it",
                "`sudo nvidia-ctk config --in-place --set nvidia-container-cli.no-cgroups=true`",
                _CDI,
            )


@_check(
    "container-image-arch",
    "The image is for this CPU architecture",
    looks_at="the architectures of the target's images in the catalog",
    why="an image of another architecture is pulled without a word and ends with `exec format error`",
    remedy="`sgprov targets` names what fits",
    applies=lambda context: any(one.image for one in context.candidates),
)
def container_image_arch(context: Context) -> Iterator[Finding]:
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(context.facts.arch, context.facts.arch)
    images = [one.image for one in context.candidates if one.image]
    if images and not any(arch in image.archs for image in images) and _wanted(context):
        archs = ", ".join(sorted({each for image in images for each in image.archs}))
        yield error(
            f"the target's images are for {archs}, this host is {arch}",
            "`sgprov targets` names what fits",
        )


@_check(
    "container-default-runtime",
    "Which runtime containers get",
    looks_at="`default-runtime` in /etc/docker/daemon.json",
    why="where it is `nvidia`, every container gets the driver's libraries, also those that bring their own",
    remedy="`sudo nvidia-ctk runtime configure --runtime=docker --set-as-default=false`",
    applies=_has_engines,
)
def container_default_runtime(context: Context) -> Iterator[Finding]:
    text = "".join((context.view.read("/etc/docker/daemon.json") or "").split())
    if '"default-runtime":"nvidia"' in text:
        yield info("`nvidia` is Docker's default runtime: `--gpus` is not needed, and every container gets the driver")


def _running(context: Context) -> ContainerEngine | None:
    return next((engine for engine in context.facts.engines if engine.running), None)


def _version(engine: ContainerEngine) -> Version | None:
    try:
        return Version((engine.version or "").split("+")[0])
    except InvalidVersion:
        return None


CHECKS = (
    *(container_engine, container_daemon, container_gpus, container_cdi),
    *(container_image_arch, container_default_runtime),
)
