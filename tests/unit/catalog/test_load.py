"""The catalog is read by checks, which run in several threads."""

from __future__ import annotations

import subprocess
import sys

import pytest

READ = """
import sys, threading
from provision.catalog import engines
sys.setswitchinterval(1e-6)
barrier = threading.Barrier(8)
def read():
    barrier.wait()
    engines.load.__wrapped__()
threads = [threading.Thread(target=read) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


@pytest.mark.usefixtures("real_machine")
def test_several_threads_may_be_the_first_to_read_it() -> None:
    """msgspec 0.22 ends the process where two threads are the first to need a type: half of these runs did."""
    for _ in range(5):
        assert subprocess.run([sys.executable, "-c", READ], check=False, timeout=60).returncode == 0
