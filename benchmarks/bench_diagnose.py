"""How fast `diagnose` reads, and in how much memory: `python benchmarks/bench_diagnose.py [MiB]`.

Three logs: a server at work (nearly all telemetry and access lines), one with many different lines (a request id of
letters in each), and one that repeats its error for ever.
"""

from __future__ import annotations

import random
import resource
import string
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from provision.diagnosis.matcher import diagnose

_BLOCK = 8 << 20


def working(random_: random.Random) -> str:
    number = random_.randrange(10_000)
    at = f"[2026-10-30 10:{number % 60:02}:{number // 60 % 60:02} TP0]"
    tail = f"#running-req: {number % 99}, #queue-req: 0, cuda graph: True"
    lines = (
        f'{at} INFO:     127.0.0.1:{number} - "POST /v1/chat/completions HTTP/1.1" 200 OK',
        f"{at} Prefill batch, #new-seq: 1, #new-token: {number}, #cached-token: 0, token usage: 0.08, {tail}",
        f"{at} Decode batch, {tail}, #token: {number}, gen throughput (token/s): {number}.11, #queue-req: 0",
    )
    return random_.choice(lines)


def different(random_: random.Random) -> str:
    words = " ".join("".join(random_.choices(string.ascii_lowercase, k=7)) for _ in range(8))
    return f"[2026-10-30 10:00:00] request {words} finished with 200, prompt 33 tokens, error budget left"


def failing(random_: random.Random) -> str:
    rank = random_.randrange(8)
    return f"[rank{rank}]: RuntimeError: CUDA error: no kernel image is available for execution on the device"


def stream(make: Callable[[random.Random], str], size: int) -> Iterator[bytes]:
    """The lines of one block again and again, with other digits each time, so that making them costs nothing."""
    random_ = random.Random(1)  # noqa: S311
    block = "\n".join(make(random_) for _ in range(40_000)).encode() + b"\n"
    while len(block) < _BLOCK:
        block += block
    for number in range(max(1, size // len(block))):
        digits = bytes(48 + (digit + number) % 10 for digit in range(10))
        yield block.translate(bytes.maketrans(b"0123456789", digits))


def main() -> None:
    size = int(sys.argv[1] if len(sys.argv) > 1 else 256) << 20
    diagnose([b""])  # compiles the patterns, once in a process
    for make in (working, different, failing):
        start, cpu_start = time.perf_counter(), time.process_time()
        told = diagnose(stream(make, size))
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{make.__name__:10} {told.bytes_read / 1e6:8.0f} MB in {seconds:6.2f} s = "
            f"{told.bytes_read / 1e6 / seconds:7.1f} MB/s ({told.bytes_read / 1e6 / cpu_seconds:.1f} MB/s of CPU), "
            f"peak {peak_mib:.0f} MiB, findings {len(told.findings)}"
        )


if __name__ == "__main__":
    main()
