"""What sgprov costs over the same `docker run` by hand, and how soon it knows that a container has died.

    python benchmarks/bench_containers.py [--rounds 7]

Both start the same image with the same words, and end when the server says that it is ready: by hand with `docker run`
and a question every 10 ms, and with `sgprov serve start`, whole, from a shell. The image is the tests' stand-in for
NIM, which is ready half a second after its start. Seconds are medians; the two take turns.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import requests

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from live import nim_stand_in, parts
from live.test_containers import NAME, nim

from provision import runner
from provision.host.local import LocalHost
from provision.serving import server
from provision.serving.status import status

KEY = "nvapi-" + "b" * 64


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    os.environ["NGC_API_KEY"] = KEY
    host = LocalHost({name: os.environ[name] for name in ("PATH", "HOME")})
    with tempfile.TemporaryDirectory() as name:
        image = nim_stand_in.build(Path(name))
        made = nim(host, name, image, parts.free_port())
        report = runner.apply(made, host)
        assert report.ok, report  # nothing to measure
        server.stop(host, f"{name}/servers", name="test-nim")
        hand, ours, noticed = [], [], []
        for _ in range(rounds):
            hand.append(by_hand(made.launch.argv, made.launch.url))
            ours.append(by_sgprov(name))
            noticed.append(death(host, name))
    overhead = statistics.median(ours) - statistics.median(hand)
    print(f"ready by hand         {statistics.median(hand):6.2f} s   {_all(hand)}")
    print(f"ready by sgprov       {statistics.median(ours):6.2f} s   {_all(ours)}")
    print(f"overhead              {overhead:6.2f} s   at most 1.00")
    print(f"a death noticed after {max(noticed):6.2f} s   at most 1.00, the longest of {rounds}")
    return int(overhead > 1.0 or max(noticed) > 1.0)


def by_hand(argv: tuple[str, ...], url: str) -> float:
    start = time.monotonic()
    subprocess.run(argv, check=True, capture_output=True)
    while not _ready(url):
        time.sleep(0.01)
    took = time.monotonic() - start
    subprocess.run(["docker", "rm", "--force", NAME], check=True, capture_output=True)
    return took


def by_sgprov(prefix: str) -> float:
    start = time.monotonic()
    argv = [sys.executable, "-m", "provision", "serve", "start", "test-nim", "--prefix", prefix, "--json"]
    subprocess.run(argv, check=True, capture_output=True)
    return time.monotonic() - start


def death(host: LocalHost, prefix: str) -> float:
    """Seconds from the end of the container's first process until `status` says so; then it is stopped."""
    known = server.known(host, f"{prefix}/servers", name="test-nim")
    assert known.pid is not None  # it was started
    start = time.monotonic()
    os.kill(known.pid, signal.SIGKILL)
    while status(host, known).health == "running":
        time.sleep(0.01)
    took = time.monotonic() - start
    server.stop(host, f"{prefix}/servers", name="test-nim")
    return took


def _ready(url: str) -> bool:
    try:
        return bool(requests.get(f"{url}/v1/health/ready", timeout=1).ok)
    except requests.RequestException:
        return False


def _all(seconds: list[float]) -> str:
    return " ".join(f"{one:.2f}" for one in seconds)


if __name__ == "__main__":
    sys.exit(main())
