"""The GPU code in the wheels that lockfiles pin: the rows of `data/kernels.yml`."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from provision.catalog.load import decode
from provision.catalog.rows import Kernels

# The packages whose wheels decide on which GPUs a stack serves; each wheel of them in a lockfile has its rows.
PACKAGES = frozenset({"flashinfer", "lmdeploy", "sgl-kernel", "sglang-kernel", "torch", "vllm"})

_DATA = Path(__file__).with_name("data") / "kernels.yml"


@lru_cache(maxsize=1)
def load() -> tuple[Kernels, ...]:
    """Every row, in the order of the file."""
    return decode(_DATA, tuple[Kernels, ...])
