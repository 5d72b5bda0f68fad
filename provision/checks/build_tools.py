"""Checks of what compiles kernels on this host: Triton, FlashInfer and DeepGEMM do so while a server starts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

from packaging.version import Version

from provision.checks.base import Context, check, error, info, serves_on_gpus, warning
from provision.environments import path_for
from provision.report import Finding

_check = partial(check, "build-tools")
# What Triton hands to ptxas for these GPUs is newer than the ptxas of CUDA 12 in its wheel.
_PTXAS_CAPABILITIES = ("11.0", "12.1")
_PTXAS_CUDA = Version("13.0")
_RELEASE = re.compile(r"release (\d{1,2}\.\d{1,2})")


@_check(
    "build-compiler",
    "A C compiler is here",
    looks_at="`cc --version`, `gcc --version`, `clang --version`, and CC",
    why="Triton compiles a small launcher for every kernel with it: without one the first request fails",
    remedy="`sudo apt-get install -y gcc`",
    applies=serves_on_gpus,
)
def build_compiler(context: Context) -> Iterator[Finding]:
    names = [context.view.variable("CC") or "cc", "gcc", "clang"]
    if not any(context.view.query([name, "--version"]).installed for name in names):
        yield error(
            "no C compiler (cc, gcc, clang): Triton cannot compile its launchers", "`sudo apt-get install -y gcc`"
        )


@_check(
    "build-cxx-compiler",
    "A C++ compiler is here",
    looks_at="`c++ --version`, `g++ --version`, and CXX",
    why="FlashInfer and DeepGEMM compile kernels that their wheels do not hold, with nvcc, which needs one",
    remedy="`sudo apt-get install -y g++`",
    applies=serves_on_gpus,
)
def build_cxx_compiler(context: Context) -> Iterator[Finding]:
    names = [context.view.variable("CXX") or "c++", "g++"]
    if not any(context.view.query([name, "--version"]).installed for name in names):
        yield warning(
            "no C++ compiler: kernels that no wheel holds cannot be compiled", "`sudo apt-get install -y g++`"
        )


@_check(
    "build-nvcc",
    "nvcc is here",
    looks_at="nvcc in PATH, CUDA_HOME, /usr/local/cuda, and in the environment's wheels",
    why="FlashInfer and DeepGEMM compile with it what their wheels do not hold for this GPU and model",
    remedy="`sudo apt-get install -y cuda-nvcc-13-0`, or `export CUDA_HOME=/usr/local/cuda`",
    applies=lambda context: serves_on_gpus(context) and _needs(context, "nvcc"),
)
def build_nvcc(context: Context) -> Iterator[Finding]:
    if _nvcc(context) is None:
        yield warning(
            "no nvcc: a model whose kernels are not in the wheels will not start",
            "`sudo apt-get install -y cuda-nvcc-13-0`, or `export CUDA_HOME=DIR` where a toolkit is",
        )


@_check(
    "build-nvcc-version",
    "nvcc is of the stack's CUDA and not newer than the driver",
    looks_at="`nvcc --version` against the stack's CUDA major and the CUDA version that the driver supports",
    why="code of another CUDA major does not load; PTX of a toolkit newer than the driver cannot be compiled",
    remedy="`export CUDA_HOME=/usr/local/cuda-13.0`, with the stack's CUDA",
    applies=serves_on_gpus,
)
def build_nvcc_version(context: Context) -> Iterator[Finding]:
    version, stack = _nvcc(context), context.decision.stack if context.decision else None
    if version is None or stack is None:
        return
    cuda = context.facts.driver.cuda if context.facts.driver else None
    if version.major != Version(stack.cuda).major:
        yield warning(
            f"nvcc is of CUDA {version}, the stack is built for {stack.cuda}",
            f"`export CUDA_HOME=/usr/local/cuda-{stack.cuda}`",
        )
    elif cuda and version > Version(cuda):
        yield warning(
            f"nvcc is of CUDA {version}, the driver supports {cuda}: its PTX cannot be compiled here",
            f"`export CUDA_HOME=/usr/local/cuda-{stack.cuda}`, or update the driver",
        )


@_check(
    "build-ninja",
    "ninja is here",
    looks_at="ninja in the environment, in PATH, and among the locked wheels",
    why="FlashInfer and torch run their builds with it",
    remedy="`sudo apt-get install -y ninja-build`",
    applies=serves_on_gpus,
)
def build_ninja(context: Context) -> Iterator[Finding]:
    lock = context.decision.lock if context.decision else None
    if lock and lock.version("ninja"):
        return
    if not context.view.query(["ninja", "--version"]).installed:
        yield warning("no ninja: kernels cannot be compiled on this host", "`sudo apt-get install -y ninja-build`")


@_check(
    "build-ptxas",
    "ptxas knows this GPU",
    looks_at="on compute capability 11.0 and 12.1: TRITON_PTXAS_PATH, and the CUDA version of nvcc",
    why="the ptxas in Triton's wheel may not know sm_121a: `Value 'sm_121a' is not defined for option 'gpu-name'`",
    remedy="`export TRITON_PTXAS_PATH=/usr/local/cuda/bin/ptxas`, of CUDA 13.0 or newer",
    applies=lambda context: (
        serves_on_gpus(context) and any(gpu.compute_capability in _PTXAS_CAPABILITIES for gpu in context.gpus)
    ),
)
def build_ptxas(context: Context) -> Iterator[Finding]:
    named = context.view.variable("TRITON_PTXAS_PATH")
    if named and context.view.stat(named) is None:
        yield error(f"TRITON_PTXAS_PATH names `{named}`, which is not there", "`unset TRITON_PTXAS_PATH`")
        return
    version = _nvcc(context)
    if named is None and (version is None or version < _PTXAS_CUDA):
        capability = next(
            gpu.compute_capability for gpu in context.gpus if gpu.compute_capability in _PTXAS_CAPABILITIES
        )
        yield warning(
            f"no ptxas of CUDA {_PTXAS_CUDA} or newer for {capability}: Triton's own may not know it",
            "`sudo apt-get install -y cuda-nvcc-13-0 && export TRITON_PTXAS_PATH=/usr/local/cuda-13.0/bin/ptxas`",
        )


@_check(
    "build-caches",
    "Compiled kernels are kept",
    looks_at="the directories of FlashInfer's, Triton's and Inductor's caches: there, and writable",
    why="a cache that cannot be written is compiled again at every start, for minutes, without a word",
    remedy="`sudo chown -R $USER ~/.cache`",
    applies=serves_on_gpus,
)
def build_caches(context: Context) -> Iterator[Finding]:
    view, home = context.view, context.home
    for path in (
        view.variable("TRITON_CACHE_DIR") or f"{home}/.triton",
        f"{view.variable('FLASHINFER_WORKSPACE_BASE') or home}/.cache/flashinfer",
    ):
        there = view.stat(path)
        if there and not there.writable:
            yield warning(f"`{path}` belongs to {there.owner} and is not writable", f"`sudo chown -R $USER {path}`")
    if stale := view.glob(f"{home}/.cache/flashinfer/*/*/cached_ops/*/*.lock"):
        yield info(f"{len(stale)} lock files lie in FlashInfer's cache; a killed build leaves one that others wait for")


def _needs(context: Context, what: str) -> bool:
    stack = context.decision.stack if context.decision else None
    return bool(stack and what in stack.needs)


def _nvcc(context: Context) -> Version | None:
    """The CUDA version of the first nvcc that answers."""
    return context.once("nvcc", lambda: _ask_nvcc(context))


def _ask_nvcc(context: Context) -> Version | None:
    homes = [context.view.variable("CUDA_HOME"), context.view.variable("CUDA_PATH"), "/usr/local/cuda"]
    programs = ["nvcc", *(f"{home}/bin/nvcc" for home in homes if home)]
    lock = context.decision.lock if context.decision else None
    if lock:
        packages = f"{path_for(context.places.prefix, lock)}/lib/python{lock.python}/site-packages/nvidia"
        programs += [*context.view.glob(f"{packages}/*/bin/nvcc")]
    for program in programs:
        outcome = context.view.query([program, "--version"])
        if outcome.ok and (found := _RELEASE.search(outcome.out)):
            return Version(found[1])
    return None


CHECKS = (
    *(build_compiler, build_cxx_compiler, build_nvcc, build_nvcc_version, build_ninja, build_ptxas, build_caches),
)
