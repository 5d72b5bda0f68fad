"""A machine that is not here: facts from `--assume gpu=A40,driver=550.90.07`, for planning from a laptop."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from provision.catalog.gpus import by_name
from provision.catalog.load import nearest
from provision.errors import UsageError
from provision.facts.model import (
    ContainerEngine,
    Driver,
    Facts,
    Gpu,
    Memory,
    OperatingSystem,
    Python,
    Slurm,
    Surroundings,
)

HOST = "an assumed machine"
KEYS = (
    "gpu",
    "count",
    "compute_capability",
    "driver",
    "cuda",
    "arch",
    "os",
    "glibc",
    "python",
    "memory_gib",
    "runpod",
    "slurm",
    "docker",
)
_OF_THE_GPU = {"count", "compute_capability"}
_YES = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


def parse(text: str) -> dict[str, str]:
    """`gpu=A40,driver=550.90.07` as a mapping. Raises `UsageError` for an unknown key, with the nearest one."""
    given = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise UsageError(f"`{part.strip()}` is not KEY=VALUE", hint="such as `--assume gpu=A40,driver=550.90.07`")
        if key not in KEYS:
            near = nearest(key, KEYS)
            raise UsageError(
                f"`--assume` knows no `{key}`",
                hint=f"did you mean `{near}`?" if near else f"it knows {', '.join(KEYS)}",
            )
        given[key] = value
    return given


def changed(own: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """A target's own machine, in which some facts are others; another GPU brings what belongs to it."""
    kept = {key: value for key, value in own.items() if "gpu" not in given or key not in _OF_THE_GPU}
    return {**kept, **given}


def facts(given: Mapping[str, str]) -> Facts:
    """The facts of a machine of which only this much is known. Raises `UsageError` for a value that cannot be."""
    name = given.get("gpu", "none")
    gpus: tuple[Gpu, ...] = ()
    if name.lower() != "none":
        gpus = tuple(_gpu(index, name, given) for index in range(_number(given, "count", 1)))
    for key in ("driver", "glibc", "python", "cuda", "compute_capability"):
        if key in given and not re.fullmatch(r"\d+(\.\d+)*", given[key]):
            raise UsageError(f"`{key}={given[key]}` must be a version", hint="digits and dots, such as 550.90.07")
    identifier, _, version = given.get("os", "ubuntu-22.04").partition("-")
    python = given.get("python")
    docker = ContainerEngine(name="Docker", running=True, nvidia_runtime=bool(gpus))
    return Facts(
        host=HOST,
        arch=given.get("arch", "x86_64"),
        glibc=given.get("glibc", "2.35"),
        os=OperatingSystem(id=identifier, version=version),
        memory=_memory(given),
        gpus=gpus,
        driver=Driver(version=given["driver"], cuda=given.get("cuda"), source="assumed") if "driver" in given else None,
        pythons=(Python(path=f"/usr/bin/python{python}", version=f"{python}.0", venv=True),) if python else (),
        surroundings=Surroundings(runpod=_yes(given, "runpod")),
        slurm=Slurm(controller=False) if _yes(given, "slurm") else None,
        engines=(docker,) if _yes(given, "docker") else (),
    )


def _gpu(index: int, name: str, given: Mapping[str, str]) -> Gpu:
    known = by_name(name) or by_name(f"NVIDIA {name}")
    capability = given.get("compute_capability") or (known.compute_capability if known else None)
    if capability is None:
        raise UsageError(
            f"no GPU is called `{name}`",
            hint="use the name that `nvidia-smi -L` prints, or add `compute_capability=8.6`",
        )
    return Gpu(
        index=index,
        name=f"NVIDIA {name.removeprefix('NVIDIA ')}",
        compute_capability=capability,
        unified_memory=bool(known and known.unified_memory),
        sources={"name": "assumed"},
    )


def _memory(given: Mapping[str, str]) -> Memory | None:
    if "memory_gib" not in given:
        return None
    mib = _number(given, "memory_gib", 0) * 1024
    return Memory(total_mib=mib, available_mib=mib)


def _number(given: Mapping[str, str], key: str, otherwise: int) -> int:
    return int(_convert(given, key, otherwise, int, "a whole number"))


def _yes(given: Mapping[str, str], key: str) -> bool:
    return bool(_convert(given, key, False, _YES.__getitem__, "`yes` or `no`"))  # noqa: FBT003


def _convert(given: Mapping[str, str], key: str, otherwise: Any, convert: Callable[[str], Any], what: str) -> Any:
    if key not in given:
        return otherwise
    try:
        return convert(given[key].lower())
    except (ValueError, KeyError):
        raise UsageError(f"`{key}={given[key]}` must be {what}") from None
