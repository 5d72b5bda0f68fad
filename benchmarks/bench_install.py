"""How long an install takes through sgprov and through plain uv, side by side in one run.

    python benchmarks/bench_install.py [--lock FILE] [--python PATH] [--rounds N] [--scratch DIR]

Cold: an empty cache. Second: another environment from the cache that the cold one left. Nothing: it is all there.
Both sides are whole processes (sgprov's includes its own start), each with a cache of its own; the sides take turns at
going first, because the index warms up. The real lock fetches some GB twice a round.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from provision.environments import installer  # noqa: E402
from provision.host.local import LocalHost  # noqa: E402
from provision.locks.lockfile import Lock  # noqa: E402
from provision.steps.environment import Environment  # noqa: E402

DEFAULT_LOCK = ROOT / "lockfiles" / "sglang-0.5.23.cp311.x86_64.txt"
CASES = ("cold", "second", "nothing")
# What each case may take at most, as a multiple of plain uv.
BOUNDS = {"cold": 1.05, "second": 1.10, "nothing": 1.00}


def lock_of(path: Path) -> Lock:
    stack, python, arch = path.name.removesuffix(".txt").rsplit(".", 2)
    return Lock(path, stack, f"{python[2]}.{python[3:]}", arch)


def timed(argv: list[str], environment: dict[str, str]) -> float:
    start = time.perf_counter()
    done = subprocess.run(argv, env=environment, cwd="/", capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"`{' '.join(argv)}` exited {done.returncode}:\n{done.stdout}{done.stderr}")
    return seconds


def plain(prefix: Path, lock: Lock, python: str, environment: dict[str, str]) -> float:
    uv = installer.program()
    seconds = 0.0
    if not prefix.exists():
        seconds += timed([uv, "venv", "--no-python-downloads", "--python", python, str(prefix)], environment)
    sync = [uv, "pip", "sync", "--require-hashes", "--only-binary", ":all:", "--python", f"{prefix}/bin/python"]
    return seconds + timed([*sync, str(lock.path)], environment)


def ours(prefix: Path, lock: Lock, python: str, environment: dict[str, str]) -> float:
    return timed([sys.executable, __file__, "--install", str(prefix), str(lock.path), python], environment)


def install(prefix: str, lock: str, python: str) -> None:
    """What `ours` measures, in a process of its own: the step as a run carries it out."""
    step = Environment(prefix=prefix, lock=lock_of(Path(lock)), interpreter=python)
    host = LocalHost(os.environ)
    if not step.satisfied(host):
        step.apply(host, lambda _: None)


def measure(
    side: Callable[[Path, Lock, str, dict[str, str]], float], place: Path, lock: Lock, python: str
) -> dict[str, float]:
    environment = {**os.environ, "UV_CACHE_DIR": str(place / "cache"), "UV_PYTHON_DOWNLOADS": "never"}
    try:
        first, second = place / "first", place / "second"
        cold = side(first, lock, python, environment)
        shutil.rmtree(first)
        again = side(second, lock, python, environment)
        return {"cold": cold, "second": again, "nothing": side(second, lock, python, environment)}
    finally:
        shutil.rmtree(place, ignore_errors=True)


def in_process(lock: Lock, python: str, scratch: Path) -> float:
    """Seconds for `satisfied` alone, the best of five: what a run without anything to do spends here."""
    host = LocalHost({**os.environ, "UV_CACHE_DIR": str(scratch / "cache")})
    step = Environment(prefix=str(scratch / "prefix"), lock=lock, interpreter=python)
    try:
        step.apply(host, lambda _: None)
        best = float("inf")
        for _ in range(5):
            start = time.perf_counter()
            fresh = Environment(prefix=step.prefix, lock=Lock(lock.path, lock.stack, lock.python, lock.arch))
            assert fresh.satisfied(host)  # noqa: S101
            best = min(best, time.perf_counter() - start)
        return best
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lock", type=Path, default=DEFAULT_LOCK, help="named STACK.cp311.x86_64.txt")
    parser.add_argument("--python", help="the interpreter; default: the one of the lock's version on PATH")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--scratch", type=Path, help="where caches and environments go, and are removed from")
    parser.add_argument(
        "--in-process", action="store_true", help="also time `nothing` without a process (installs once more)"
    )
    options = parser.parse_args()
    lock = lock_of(options.lock.absolute())
    python = options.python or shutil.which(f"python{lock.python}")
    if not python:
        sys.exit(f"there is no python{lock.python} on PATH: name one with `--python`")
    scratch = Path(tempfile.mkdtemp(prefix="bench-install-", dir=options.scratch))
    results: dict[str, dict[str, list[float]]] = {side: {case: [] for case in CASES} for side in ("uv", "sgprov")}
    sides = [("uv", plain), ("sgprov", ours)]
    try:
        for number in range(options.rounds):
            for name, side in sides if number % 2 == 0 else sides[::-1]:
                for case, seconds in measure(side, scratch / name, lock, python).items():
                    results[name][case].append(seconds)
                    print(f"round {number + 1}  {name:<7} {case:<8} {seconds:8.3f} s", flush=True)
        print(f"\n{lock.name}: {len(lock.requirements)} wheels, median of {options.rounds}")
        for case in CASES:
            uv, mine = (statistics.median(results[side][case]) for side in ("uv", "sgprov"))
            print(
                f"{case:<8} uv {uv:8.3f} s   sgprov {mine:8.3f} s   ratio {mine / uv:5.2f} (bound {BOUNDS[case]:.2f})"
            )
        if options.in_process:
            print(f"nothing, without starting a process: {in_process(lock, python, scratch / 'own') * 1e3:.1f} ms")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--install"]:
        install(*sys.argv[2:])
    else:
        main()
