"""How fast and how small sgprov itself is, each beside what it is to be measured against, in one run.

    python benchmarks/bench_commands.py --prefix DIR [--target cpu] [--launch]

`DIR` holds an installed target (`sgprov bootstrap --no-smoke --prefix DIR`); `--launch` also starts it and times
how soon its ready line is noticed. Seconds are the best of several rounds, because noise only adds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import uv
from rich.console import Console
from rich.table import Table

ROUNDS = 9
READY_LINE = b"The server is fired up and ready to roll!"
SGPROV = (sys.executable, "-m", "provision")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--launch", action="store_true")
    given = parser.parse_args()
    rows = [*start_up(), *nothing_to_do(given.target, given.prefix)]
    if given.launch:
        rows += launch(given.target, given.prefix)
    return show(rows)


Row = tuple[str, float, float, str]


def start_up() -> list[Row]:
    command = str(Path(sys.executable).with_name("sgprov"))
    version, bare = alternately(
        lambda: seconds((command, "--version")), lambda: seconds((sys.executable, "-c", "pass"))
    )
    facts = min(seconds((*SGPROV, "facts", "--json")) for _ in range(ROUNDS))
    return [
        ("`sgprov --version` over `python -c pass`", version / bare, 5.0, "x"),
        ("`sgprov facts`", facts, 0.4, "s"),
        ("resident, `sgprov facts`", resident((*SGPROV, "facts", "--json")), 80.0, "MB"),
    ]


def nothing_to_do(target: str, prefix: str) -> list[Row]:
    ours = (*SGPROV, "bootstrap", "--target", target, "--prefix", prefix, "--no-smoke", "--json")
    plan = json.loads(subprocess.run(ours, capture_output=True, check=True).stdout)
    if plan["changed"]:
        sys.exit("the prefix was not up to date: it is now, run this again")
    python = str(Path(prefix, "current", "bin", "python"))
    lock = Path(__file__).parents[1] / "lockfiles" / plan["lock"]
    theirs = (uv.find_uv_bin(), "pip", "sync", "--quiet", "--require-hashes", "--python", python, str(lock))
    mine, plain = alternately(lambda: seconds(ours), lambda: seconds(theirs))
    return [
        ("`bootstrap --no-smoke` with nothing to do", mine, 1.0, "s"),
        ("… over uv's own no-op", mine / plain, 1.0, "x"),
        ("resident, the same", resident(ours), 80.0, "MB"),
    ]


def launch(target: str, prefix: str) -> list[Row]:
    log = Path(prefix, "servers", "bench", "server.log")
    log.unlink(missing_ok=True)
    written: list[float] = []
    watcher = threading.Thread(target=note_ready_line, args=(log, written), daemon=True)
    watcher.start()
    command = (*SGPROV, "bootstrap", "--target", target, "--prefix", prefix, "--name", "bench", "--port", "auto")
    noticed = 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("server: done:"):
                noticed = time.monotonic()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    subprocess.run((*SGPROV, "serve", "stop", "bench", "--prefix", prefix), check=True, capture_output=True)
    if process.returncode or not noticed or not written:
        sys.exit(f"the launch ended with {process.returncode}")
    return [
        ("ready noticed after the engine's ready line", noticed - written[0], 0.25, "s"),
        ("resident, a whole launch and smoke test", usage.ru_maxrss / 1000, 80.0, "MB"),
    ]


def note_ready_line(log: Path, written: list[float]) -> None:
    while True:
        try:
            if READY_LINE in log.read_bytes():
                written.append(time.monotonic())
                return
        except OSError:
            pass
        time.sleep(0.01)


def alternately(ours: Callable[[], float], theirs: Callable[[], float]) -> tuple[float, float]:
    """The best of each, taken turn by turn so that a busy moment meets both."""
    pairs = [(ours(), theirs()) for _ in range(ROUNDS)]
    return min(mine for mine, _ in pairs), min(other for _, other in pairs)


def seconds(argv: tuple[str, ...]) -> float:
    start = time.perf_counter()
    subprocess.run(argv, capture_output=True, check=True)
    return time.perf_counter() - start


def resident(argv: tuple[str, ...]) -> float:
    """Peak resident memory of a command itself, in MB."""
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_maxrss / 1000


def show(rows: list[Row]) -> int:
    table = Table("what", "measured", "at most", "")
    for what, measured, limit, unit in rows:
        table.add_row(what, f"{measured:.3g} {unit}", f"{limit:g} {unit}", "ok" if measured <= limit else "NOT REACHED")
    Console().print(table)
    return int(any(measured > limit for _, measured, limit, _ in rows))


if __name__ == "__main__":
    sys.exit(main())
