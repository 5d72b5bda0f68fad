"""Ctrl-C at any moment ends us and every child, also one that is just being started."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from provision.errors import CommandFailed
from provision.host.local import LocalHost

pytestmark = pytest.mark.usefixtures("real_machine")
ROOT = Path(__file__).parents[3]
# Starts one child after the other, so that the signal falls into a start more often than not.
RUNS = """
import os, sys
from provision.host.local import LocalHost
host = LocalHost(dict(os.environ))
try:
    print("ready", flush=True)
    while True:
        host.run(["true"])
        host.run(sys.argv[1:])
except KeyboardInterrupt:
    sys.exit(130)
"""


def interrupted(command: list[str], after_s: float) -> int:
    process = subprocess.Popen(
        [sys.executable, "-c", RUNS, *command],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    status = process.wait(30)
    process.stdout.close()
    return status


def test_no_child_is_lost_and_none_keeps_us() -> None:
    chance = random.Random(20260101)  # noqa: S311
    for _ in range(30):
        # A length that nobody else sleeps, not even the same test in a container of this machine.
        command = ["sleep", f"98765.{time.time_ns()}"]
        assert interrupted(command, chance.uniform(0, 0.02)) == 130
        assert not [one for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == command]


def test_a_child_that_takes_too_long_is_ended() -> None:
    host = LocalHost({"PATH": "/usr/bin:/bin"})
    assert host.query(["sleep", "60"], timeout_s=0.1).ending.startswith("gave no answer")
    start = time.monotonic()
    deaf = host.query(["sh", "-c", "trap '' TERM; while :; do sleep 1; done"], timeout_s=0.1)
    assert deaf.ending.startswith("gave no answer") and time.monotonic() - start < 2, "politeness has its limit, too"
    with pytest.raises(CommandFailed, match="gave no answer"):
        host.run(["sleep", "60"], timeout_s=0.1)


def test_what_cannot_be_started(tmp_path: Path) -> None:
    host = LocalHost({"PATH": "/usr/bin:/bin"})
    with pytest.raises(CommandFailed, match="`no-such-program` is not installed"):
        host.run(["no-such-program"])
    with pytest.raises(CommandFailed, match="could not be started"):
        host.run(["true"], directory=str(tmp_path / "nowhere"))
    (tmp_path / "text").write_text("x")
    with pytest.raises(CommandFailed, match="could not be started"):
        host.run([str(tmp_path / "text")])
    assert host.query([str(tmp_path / "text")]).installed is False
