"""How long `sgprov doctor` takes with everything, beside what people paste into issues, in one run.

    python benchmarks/bench_doctor.py --environment DIR

`DIR` is an installed stack; `python -m torch.utils.collect_env` runs in it. Both run in turns, so that a busy machine
is equally unkind to both; the best and the middle of several rounds are shown, because noise only adds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 7
LIMIT_S = 0.4
# 4: a check found an error. That is an answer.
ANSWERS = (0, 4)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", required=True, type=Path)
    parser.add_argument("--prefix", help="what `sgprov doctor --prefix` gets, so that there is something installed")
    given = parser.parse_args()
    ours = [str(Path(sys.executable).with_name("sgprov")), "doctor", "--json"]
    ours += ["--prefix", given.prefix] if given.prefix else []
    theirs = [str(given.environment / "bin" / "python"), "-m", "torch.utils.collect_env"]
    seconds: dict[str, list[float]] = {"sgprov doctor": [], "collect_env": []}
    told = {}
    for _ in range(ROUNDS):
        for name, command in (("sgprov doctor", ours), ("collect_env", theirs)):
            start = time.perf_counter()
            done = subprocess.run(command, capture_output=True, check=False)
            seconds[name].append(time.perf_counter() - start)
            if done.returncode not in ANSWERS:
                sys.stderr.write(done.stderr.decode())
                return 1
            if name == "sgprov doctor":
                told = json.loads(done.stdout)
    for name, taken in seconds.items():
        print(f"{name:<14} best {min(taken):.3f} s, middle {statistics.median(taken):.3f} s")
    best = min(seconds["sgprov doctor"])
    ratio = min(seconds["collect_env"]) / best
    print(f"{len(told['checks'])} checks, {told['verdict']}; {ratio:.1f} times as fast, limit {LIMIT_S} s")
    return 0 if best <= LIMIT_S else 1


if __name__ == "__main__":
    raise SystemExit(main())
