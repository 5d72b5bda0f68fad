"""The catalog: every data file, parsed on first use, with errors that name the file and the path in it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import msgspec

from provision.catalog.rows import Component, CudaFamily, CudaToolkit, Image, Stack, Target
from provision.documents import TYPES
from provision.errors import ProvisionError, UsageError

T = TypeVar("T")

_DATA = Path(__file__).with_name("data")


class Catalog:
    """The rows of one folder of data; the shipped one unless a test brings its own."""

    def __init__(self, folder: Path = _DATA) -> None:
        self._folder = folder

    @cached_property
    def targets(self) -> tuple[Target, ...]:
        return decode(self._folder / "targets.yml", tuple[Target, ...])

    @cached_property
    def stacks(self) -> tuple[Stack, ...]:
        return decode(self._folder / "stacks.yml", tuple[Stack, ...])

    @cached_property
    def images(self) -> tuple[Image, ...]:
        return decode(self._folder / "images.yml", tuple[Image, ...])

    @cached_property
    def families(self) -> tuple[CudaFamily, ...]:
        return decode(self._folder / "cuda-families.yml", tuple[CudaFamily, ...])

    @cached_property
    def toolkits(self) -> tuple[CudaToolkit, ...]:
        return decode(self._folder / "cuda-toolkits.yml", tuple[CudaToolkit, ...])

    @cached_property
    def components(self) -> tuple[Component, ...]:
        """What the image variant `efa` adds."""
        return decode(self._folder / "efa.yml", tuple[Component, ...])

    def target(self, name: str) -> Target:
        """The target of that name. Raises `UsageError` with the nearest name."""
        return _named("target", name, self.targets, hint="`sgprov targets` lists them")

    def stack(self, name: str) -> Stack:
        return _named("stack", name, self.stacks, hint="`sgprov plan --json` lists those of a target")

    def image(self, name: str) -> Image:
        return _named("image", name, self.images, hint="`sgprov plan --json` lists those of a target")


def decode(path: Path, kind: type[T]) -> T:
    """The rows of a YAML file. Raises `ProvisionError` naming the file and the path of what is wrong in it."""
    try:
        with TYPES:
            return msgspec.yaml.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        raise ProvisionError(f"the catalog has no `{path.name}`", hint="install sgprov again") from None
    except msgspec.MsgspecError as error:
        raise ProvisionError(f"the catalog file `{path.name}` is wrong: {error}") from error


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that a misspelt one was probably meant to be."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return near[0] if near else None


def _named(kind: str, name: str, rows: Iterable[T], *, hint: str) -> T:
    by_name = {str(row.name): row for row in rows}  # type: ignore[attr-defined]  # every row here has a name
    if name in by_name:
        return by_name[name]
    near = nearest(name, by_name)
    raise UsageError(f"there is no {kind} `{name}`", hint=f"did you mean `{near}`?" if near else hint)
