"""A clock that jumps by a year, back and forth: durations are those of another clock, and times are only shown."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import small

KIND = "clock jumps"
PACKAGE = Path(__file__).parents[2] / "provision"
# Where the time of day is noted for people, compared with files' times, or asked of nobody.
SHOWN = {"serving/events.py", "serving/starting.py", "environments/receipts.py"}
FILES = {"host/scratch.py", "serving/scratch.py", "environments/sealing.py"}
_JUMPING = """
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long jump(void) {
    struct timespec now;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    return (now.tv_nsec / 250000000) % 2 ? 31536000 : -31536000;
}

int clock_gettime(clockid_t which, struct timespec *found) {
    int status = syscall(SYS_clock_gettime, which, found);
    if (status == 0 && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) found->tv_sec += jump();
    return status;
}

int gettimeofday(struct timeval *found, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    found->tv_sec = now.tv_sec;
    found->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *found) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (found) *found = now.tv_sec;
    return now.tv_sec;
}
"""


@pytest.fixture(scope="module")
def jumping(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A library that makes the time of day jump by a year, four times a second, for the process that loads it."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("NOT RUN: needs a C compiler")
    folder = tmp_path_factory.mktemp("clock")
    (folder / "jumping.c").write_text(_JUMPING)
    library = folder / "jumping.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(folder / "jumping.c")], check=True)
    return str(library)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[small.Small]:
    made = small.make(tmp_path)
    server = made.index.serve()
    yield made
    server.shutdown()
    server.server_close()


@pytest.mark.fault
@pytest.mark.tried(KIND, "Installing, looking, verifying and clearing while the clock jumps by a year, to and fro")
def test_every_command_ends_while_the_clock_jumps(machine: small.Small, jumping: str) -> None:
    place = ("--prefix", str(machine.home / "prefix"))
    variables = {"LD_PRELOAD": jumping, "UV_CACHE_DIR": str(machine.home / "cache")}
    for command in (
        *(("bootstrap", "--target", "cpu", "--no-smoke"), ("plan", "--target", "cpu"), ("environments", "list")),
        *(("environments", "verify"), ("serve", "status"), ("doctor", "--target", "cpu"), ("facts",)),
        *(("bootstrap", "--target", "cpu", "--no-smoke"), ("environments", "clear")),
    ):
        start = time.monotonic()
        status, said, err = machine.sgprov(*command, *(place if command[0] != "facts" else ()), **variables)
        took = time.monotonic() - start
        assert status in ({0, 4} if command[0] == "doctor" else {0}), (command, said, err)
        assert "Traceback" not in err
        assert took < 60
        told = [said.get("seconds", 0), *(step["seconds"] for step in said.get("steps", ()) if "seconds" in step)]
        assert all(0 <= seconds <= took for seconds in told), (command, told)
    assert said["removed"] == []


@pytest.mark.fault
@pytest.mark.parametrize("year", ["1990", "2199"])
@pytest.mark.tried(KIND, "Stamp and receipt dated far in the past or the future: the second run changes nothing")
def test_times_of_another_year_change_nothing(machine: small.Small, year: str) -> None:
    prefix = machine.home / "prefix"
    arguments = ("bootstrap", "--target", "cpu", "--no-smoke", "--prefix", str(prefix))
    assert machine.sgprov(*arguments)[0] == 0
    stamps = [*prefix.glob("environments/*/.sgprov/stamp.json"), prefix / "receipt.json"]
    for path in stamps:
        known = json.loads(path.read_text())
        path.write_text(json.dumps({**known, "time": f"{year}{known['time'][4:]}"}))
        path.chmod(0o644)
    status, said, _ = machine.sgprov(*arguments)
    assert status == 0 and not said["changed"], said
    assert machine.sgprov("environments", "list", "--prefix", str(prefix))[1]["environments"][0]["current"]


@pytest.mark.tried(KIND, "Nothing measures with the clock that people set")
def test_durations_are_measured_with_the_clock_that_nobody_sets() -> None:
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in {
                *("time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "time.localtime", "time.gmtime"),
            }:
                found.add(str(path.relative_to(PACKAGE)))
    assert found <= SHOWN | FILES, found - SHOWN - FILES
