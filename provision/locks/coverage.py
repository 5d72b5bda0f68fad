"""Whether the kernels of a wheel run on a GPU, from the targets they were compiled for."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path, PurePosixPath

from provision.catalog import kernels
from provision.catalog.rows import Kernels
from provision.errors import UsageError
from provision.locks import fatbin
from provision.locks.fatbin import Code
from provision.locks.lockfile import Lock

_CAPABILITY = re.compile(r"(\d{1,2})\.(\d)")
_TARGET = re.compile(r"(\d{1,2})\.(\d)([af]?)")

# "Binary compatibility is guaranteed from one minor revision to the next one", but not "between desktop and Tegra":
# https://docs.nvidia.com/cuda/cuda-c-programming-guide/#binary-compatibility
_TEGRA = frozenset({(5, 3), (6, 2), (7, 2), (8, 7), (10, 1), (11, 0)})

# Which compute capabilities share family-specific code: the table of
# https://docs.nvidia.com/cuda/cuda-c-programming-guide/#family-specific-features
_FAMILIES = (frozenset({(10, 0), (10, 3)}), frozenset({(11, 0)}), frozenset({(12, 0), (12, 1)}))


class Way(str, Enum):
    """How code gets to run on a GPU. `JIT` is PTX, which the driver compiles at the first start."""

    NATIVE = "native"
    COMPATIBLE = "compatible"
    JIT = "jit"
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Whether a GPU runs some code, and by which of its targets.

    With `Way.NONE`, `target` is PTX that only the driver is too old for.
    """

    way: Way
    capability: str
    target: str | None = None
    driver_cuda: str | None = None

    @property
    def runs(self) -> bool:
        return self.way is not Way.NONE

    def sentence(self, row: Kernels) -> str:
        """Such as "sgl-kernel 0.3.19 holds sm_80, which runs on 8.6"."""
        name = f"{row.package} {row.version}"
        if row.optional:
            name += f" ({PurePosixPath(row.library).name})"
        if self.way is Way.NATIVE:
            return f"{name} holds {_sm(self.target)}, made for {self.capability}"
        if self.way is Way.COMPATIBLE:
            return f"{name} holds {_sm(self.target)}, which runs on {self.capability}"
        if self.way is Way.JIT:
            needs = f" if it is for CUDA {row.ptx_cuda} or newer" if row.ptx_cuda and not self.driver_cuda else ""
            return f"{name} holds PTX for {_sm(self.target)}, which the driver compiles for {self.capability}{needs}"
        if self.target:
            return (
                f"{name} holds only PTX of CUDA {row.ptx_cuda} for {self.capability}, "
                f"which a driver for CUDA {self.driver_cuda} cannot compile"
            )
        held = ", ".join(_sm(native) for native in row.native) or "no machine code"
        return f"{name} for {row.arch} holds {held}; nothing of that runs on {self.capability}"


@dataclass(frozen=True, kw_only=True)
class Library:
    """The GPU code in one library of a wheel, in the terms of a `Kernels` row."""

    name: str
    native: tuple[str, ...]
    ptx: tuple[str, ...] = ()
    ptx_cuda: str | None = None
    fat_binaries: int = 0


def runs_on(
    native: Iterable[str],
    ptx: Iterable[str],
    capability: str,
    driver_cuda: str | None,
    *,
    ptx_cuda: str | None = None,
) -> Coverage:
    """How code for these targets ("8.0", "9.0a", "12.0f") runs on a GPU ("8.6").

    PTX counts unless both CUDA versions are known and the driver's is older than the one that made the PTX.
    """
    gpu = _capability(capability)
    way, target = _by_machine_code(native, gpu)
    if target is None:
        way, target = _by_ptx(ptx, gpu, driver_cuda, ptx_cuda)
    return Coverage(way=way, capability=capability, target=target, driver_cuda=driver_cuda)


def of_lock(
    lock: Lock, capability: str, driver_cuda: str | None, rows: Iterable[Kernels] | None = None
) -> tuple[tuple[Kernels, Coverage], ...]:
    """The kernels that a lock installs, and how each runs on a GPU; empty where the catalog has no rows for it."""
    pinned = {requirement.name: requirement.version for requirement in lock.requirements}
    return tuple(
        (row, runs_on(row.native, row.ptx, capability, driver_cuda, ptx_cuda=row.ptx_cuda))
        for row in (kernels.load() if rows is None else rows)
        if row.arch == lock.arch and pinned.get(row.package) == row.version
    )


def of_wheel(path: Path) -> tuple[Library, ...]:
    """The libraries of a wheel that hold GPU code, read without unpacking it. Raises `UsageError`."""
    found = []
    try:
        with zipfile.ZipFile(path) as wheel:
            for member in wheel.infolist():
                if ".so" not in PurePosixPath(member.filename).suffixes:
                    continue
                with wheel.open(member) as stream:
                    # A linker script may have that name as well.
                    counted = fatbin.scan(stream, name=member.filename) if fatbin.is_elf(stream) else None
                if counted:
                    found.append(summarise(member.filename, counted))
    except OSError as error:
        raise UsageError(f"`{path}` cannot be read: {error.strerror}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UsageError(f"`{path}` is not a wheel, or a damaged one: {error}") from error
    return tuple(found)


def summarise(name: str, counted: Mapping[frozenset[Code], int]) -> Library:
    """What most fat binaries of a library hold.

    Those with nothing but `a` targets are kernels written for these GPUs, which the library picks there and nowhere
    else: they do not count, unless there is nothing else.
    """
    general = {codes: count for codes, count in counted.items() if any(code.suffix != "a" for code in codes)} or counted
    held: Counter[Code] = Counter()
    for codes, count in general.items():
        held.update(dict.fromkeys(codes, count))
    most = sorted(code for code, count in held.items() if 2 * count > sum(general.values()))
    toolkits = [code.toolkit for code in most if code.toolkit]
    return Library(
        name=name,
        native=tuple(code.capability for code in most if code.kind == "elf"),
        ptx=tuple(dict.fromkeys(code.capability for code in most if code.kind == "ptx")),
        ptx_cuda=max(toolkits, key=_version) if toolkits else None,
        fat_binaries=sum(counted.values()),
    )


def _by_machine_code(native: Iterable[str], gpu: tuple[int, int]) -> tuple[Way, str | None]:
    running = [target for target in native if _machine_code_runs(target, gpu)]
    if not running:
        return Way.NONE, None
    if exact := [target for target in running if _target(target)[:2] == gpu]:
        return Way.NATIVE, min(exact, key=_target)
    return Way.COMPATIBLE, max(running, key=_target)


def _by_ptx(
    ptx: Iterable[str], gpu: tuple[int, int], driver_cuda: str | None, ptx_cuda: str | None
) -> tuple[Way, str | None]:
    compilable = [target for target in ptx if _ptx_compiles(target, gpu)]
    if not compilable:
        return Way.NONE, None
    too_new = driver_cuda and ptx_cuda and _version(driver_cuda) < _version(ptx_cuda)
    return (Way.NONE if too_new else Way.JIT), max(compilable, key=_target)


def _machine_code_runs(target: str, gpu: tuple[int, int]) -> bool:
    major, minor, suffix = _target(target)
    if (major, minor) == gpu:
        return True
    if suffix:
        return suffix == "f" and _same_family((major, minor), gpu)
    return major == gpu[0] and minor < gpu[1] and not {(major, minor), gpu} & _TEGRA


def _ptx_compiles(target: str, gpu: tuple[int, int]) -> bool:
    major, minor, suffix = _target(target)
    if suffix:
        return (major, minor) == gpu or (suffix == "f" and _same_family((major, minor), gpu))
    return (major, minor) <= gpu


def _same_family(code: tuple[int, int], gpu: tuple[int, int]) -> bool:
    return code <= gpu and any(code in family and gpu in family for family in _FAMILIES)


def _target(text: str) -> tuple[int, int, str]:
    matched = _TARGET.fullmatch(text)
    if not matched:
        raise UsageError(f"`{text}` is not a target such as 8.0, 9.0a or 12.0f")
    return int(matched[1]), int(matched[2]), matched[3]


def _capability(text: str) -> tuple[int, int]:
    matched = _CAPABILITY.fullmatch(text)
    if not matched:
        raise UsageError(f"`{text}` is not a compute capability such as 8.6 or 12.1")
    return int(matched[1]), int(matched[2])


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text))


def _sm(target: str | None) -> str:
    """Such as "sm_90a" for "9.0a"."""
    return f"sm_{(target or '').replace('.', '')}"
