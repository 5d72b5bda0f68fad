"""How long an install takes through sgprov and through plain uv, side by side in one run.

    python benchmarks/bench_install.py [--lock FILE] [--python PATH] [--rounds N] [--scratch DIR] [--cache DIR]

Cold: an empty cache. Second: another environment from the cache that the cold one left. Nothing: it is all there.
Both sides are whole processes (sgprov's includes its own start), each with a cache of its own; the sides take turns at
going first, because the index warms up. The real lock fetches some GB twice a round; `--cache` names a warm cache and
leaves the cold case out. On a busy machine believe the seconds of CPU time, which are shown too.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from provision.environments import uv  # noqa: E402
from provision.host.local import LocalHost  # noqa: E402
from provision.locks.lockfile import Lock  # noqa: E402
from provision.steps.environment import Environment  # noqa: E402

DEFAULT_LOCK = ROOT / "lockfiles" / "sglang-0.5.23.cp311.x86_64.txt"
# What each case may take at most, as a multiple of plain uv.
BOUNDS = {"cold": 1.05, "second": 1.30, "nothing": 1.00}


Side = Callable[[Path, Lock, str, dict[str, str]], "Seconds"]


def lock_of(path: Path) -> Lock:
    stack, python, arch = path.name.removesuffix(".txt").rsplit(".", 2)
    return Lock(path, stack, f"{python[2]}.{python[3:]}", arch)


class Seconds(NamedTuple):
    wall: float
    cpu: float

    def plus(self, other: Seconds) -> Seconds:
        return Seconds(self.wall + other.wall, self.cpu + other.cpu)


def timed(argv: list[str], environment: dict[str, str]) -> Seconds:
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(argv, env=environment, cwd="/", capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"`{' '.join(argv)}` exited {done.returncode}:\n{done.stdout}{done.stderr}")
    return Seconds(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def plain(prefix: Path, lock: Lock, python: str, environment: dict[str, str]) -> Seconds:
    program = uv.program()
    seconds = Seconds(0, 0)
    if not prefix.exists():
        seconds = timed([program, "venv", "--no-python-downloads", "--python", python, str(prefix)], environment)
    sync = [program, "pip", "sync", "--require-hashes", "--only-binary", ":all:", "--python", f"{prefix}/bin/python"]
    return seconds.plus(timed([*sync, str(lock.path)], environment))


def ours(prefix: Path, lock: Lock, python: str, environment: dict[str, str]) -> Seconds:
    return timed([sys.executable, __file__, "--install", str(prefix), str(lock.path), python], environment)


def install(prefix: str, lock: str, python: str) -> None:
    """What `ours` measures, in a process of its own: the step as a run carries it out."""
    step = Environment(prefix=prefix, lock=lock_of(Path(lock)), interpreter=python)
    host = LocalHost(os.environ)
    if not step.satisfied(host):
        step.apply(host, lambda _: None)


def measure(side: Side, place: Path, lock: Lock, python: str, cache: Path | None) -> dict[str, Seconds]:
    environment = {**os.environ, "UV_CACHE_DIR": str(cache or place / "cache"), "UV_PYTHON_DOWNLOADS": "never"}
    first, second = place / "first", place / "second"
    found: dict[str, Seconds] = {}
    try:
        if not cache:
            found["cold"] = side(first, lock, python, environment)
            shutil.rmtree(first)
        found["second"] = side(second, lock, python, environment)
        found["nothing"] = side(second, lock, python, environment)
        return found
    finally:
        shutil.rmtree(place, ignore_errors=True)


def show(case: str, uv: list[Seconds], mine: list[Seconds]) -> None:
    for name, of in (("median", statistics.median), ("least", min)):
        words = []
        for side, all_seconds in (("uv", uv), ("sgprov", mine)):
            wall, cpu = of(one.wall for one in all_seconds), of(one.cpu for one in all_seconds)
            words.append(f"{side} {wall:7.3f} s ({cpu:.2f} s CPU)")
        ratio = of(one.wall for one in mine) / of(one.wall for one in uv)
        print(f"{case:<8} {name:<7} {'   '.join(words)}   ratio {ratio:.2f} (bound {BOUNDS[case]:.2f})")


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
            assert fresh.satisfied(host)
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
    parser.add_argument("--cache", type=Path, help="a cache that holds every wheel of the lock")
    parser.add_argument(
        "--in-process", action="store_true", help="also time `nothing` without a process (installs once more)"
    )
    options = parser.parse_args()
    lock = lock_of(options.lock.absolute())
    python = options.python or shutil.which(f"python{lock.python}")
    if not python:
        sys.exit(f"there is no python{lock.python} on PATH: name one with `--python`")
    scratch = Path(tempfile.mkdtemp(prefix="bench-install-", dir=options.scratch))
    sides: list[tuple[str, Side]] = [("uv", plain), ("sgprov", ours)]
    results: dict[tuple[str, str], list[Seconds]] = {}
    try:
        for number in range(options.rounds):
            for name, side in sides if number % 2 == 0 else sides[::-1]:
                for case, seconds in measure(side, scratch / name, lock, python, options.cache).items():
                    results.setdefault((case, name), []).append(seconds)
                    print(f"round {number + 1}  {name:<7} {case:<8} {seconds.wall:8.3f} s", flush=True)
        print(f"\n{lock.name}: {len(lock.requirements)} wheels, median and least of {options.rounds}")
        for case in dict.fromkeys(case for case, _ in results):
            show(case, results[case, "uv"], results[case, "sgprov"])
        if options.in_process:
            print(f"nothing, without starting a process: {in_process(lock, python, scratch / 'own') * 1e3:.1f} ms")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--install"]:
        install(*sys.argv[2:])
    else:
        main()
