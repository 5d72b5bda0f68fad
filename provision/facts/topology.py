"""How the GPUs of this host reach each other."""

from __future__ import annotations

import re

from provision.errors import ProbeError
from provision.facts.model import Link
from provision.facts.smi import PROGRAMS
from provision.host import HostView

_STYLE = re.compile(r"\x1b\[[0-9;]{0,16}m")
_GPU = re.compile(r"GPU(\d{1,4})", re.ASCII)
_KIND = re.compile(r"NV\d{1,3}|SYS|NODE|PHB|PXB|PIX", re.ASCII)


def probe_links(view: HostView, *, gpus: int) -> tuple[Link, ...]:
    """The links between each two GPUs; nothing is asked where there is at most one, or no nvidia-smi."""
    if gpus < 2:  # noqa: PLR2004  # a link has two ends
        return ()
    for program in PROGRAMS:
        outcome = view.query([program, "topo", "-m"])
        if not outcome.installed:
            continue
        if not outcome.ok:
            raise ProbeError(f"`{program} topo -m` {outcome.ending}")
        return parse_topology(outcome.out)
    return ()


def parse_topology(text: str) -> tuple[Link, ...]:
    """Parse the matrix, e.g. `GPU0  X  NV12  SYS  0-23  0` below `GPU0 GPU1 GPU2 CPU Affinity NUMA Affinity`.

    Only as many cells of a row are read as the header names GPUs: further right, network cards stick together
    (`NIC11NIC12`) and affinity columns are sometimes empty, sometimes not there.
    """
    columns: list[int] = []
    links = []
    for line in _STYLE.sub("", text).splitlines():
        words = line.split()
        named = [_GPU.fullmatch(word) for word in words]
        if len(words) > 1 and named[0] and named[1]:
            columns = [int(found[1]) for found in named if found]
        elif columns and words and named[0]:
            row = int(named[0][1])
            cells = zip(columns, words[1 : len(columns) + 1], strict=False)
            links += [Link(a=row, b=b, kind=kind) for b, kind in cells if row < b and _KIND.fullmatch(kind)]
        elif words[:1] == ["Legend:"]:
            break
    return tuple(links)
