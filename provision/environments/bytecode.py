"""Bytecode that an environment's own Python left in it: no difference, if it is what its source comes to.

Python runs a `.pyc` without a look at its source but for size and time, so one that somebody added is code that nobody
sees. What Python compiles the sources to (which are compared with their wheels) is what it may hold.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from provision.environments.presence import BYTECODE
from provision.host import HostView
from provision.host.scratch import scratch

_SCRIPT = str(Path(__file__).with_name("ask_bytecode.py"))
# A module takes milliseconds; an environment that was much used has thousands.
_MOST_S = 600.0


def source_of(path: str) -> str | None:
    """`torch/version.py`, of `torch/__pycache__/version.cpython-312.opt-1.pyc`; None for what is no bytecode."""
    folder, _, name = path.rpartition("/")
    above, _, last = folder.rpartition("/")
    stem, dot, rest = name.partition(".")
    if last != BYTECODE or not dot or not rest.endswith("pyc") or not rest.startswith("cpython-"):
        return None
    return f"{above}/{stem}.py"


def genuine(view: HostView, root: str, paths: Sequence[str], interpreter: str) -> frozenset[str]:
    """Those of `paths`, below `root`, whose code is what the interpreter compiles their sources to."""
    if not paths:
        return frozenset()
    workers = os.cpu_count() or 1
    shares = [paths[number::workers] for number in range(min(workers, len(paths)))]
    with scratch(view) as folder, ThreadPoolExecutor(workers) as pool:
        asked = [_write(folder / str(number), root, share) for number, share in enumerate(shares)]
        answers = pool.map(lambda file: view.query([interpreter, "-I", "-S", _SCRIPT, file], timeout_s=_MOST_S), asked)
        return frozenset(
            share[int(number)]
            for share, answer in zip(shares, answers, strict=True)
            for number in answer.out.split()
            if number.isdigit() and int(number) < len(share)
        )


def _write(file: Path, root: str, paths: Sequence[str]) -> str:
    lines = (f"{root}/{path}\t{root}/{source_of(path)}\n" for path in paths)
    file.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")
    return str(file)
