"""The real SGLang, in a container of a Debian that holds nothing of it: installed, launched, verified, killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import nim_stand_in, parts
from live.real_command import Ran, sgprov

from provision.containers.names import unique_name

pytestmark = [pytest.mark.engine, pytest.mark.container, pytest.mark.usefixtures("real_machine")]
NAME = "boxed"


@pytest.fixture(scope="module")
def arguments(cpu_prefix: str) -> tuple[str, ...]:
    # With the libraries that a Python of this machine may load; one that brings its own would do with less.
    image = nim_stand_in.with_python()
    where = ("--prefix", cpu_prefix, "--port", "21943", "--name", NAME)
    return ("bootstrap", "--target", "cpu", "--image", image, *where, "--json")


@pytest.fixture(scope="module")
def bootstrapped(arguments: tuple[str, ...], cpu_prefix: str) -> Iterator[Ran]:
    yield sgprov(*arguments)
    sgprov("serve", "stop", NAME, "--prefix", cpu_prefix)
    assert parts.docker("ps", "--all", "--quiet", "--filter", f"name=sgprov-{NAME}") == ""


def server(prefix: str) -> dict[str, object]:
    found: list[dict[str, object]] = sgprov("serve", "status", NAME, "--prefix", prefix, "--json").json["servers"]
    return found[0]


def test_it_ends_at_a_verified_endpoint(bootstrapped: Ran, cpu_prefix: str) -> None:
    assert bootstrapped.rc == 0, bootstrapped.out + bootstrapped.err
    severities = {one["check"]: one["severity"] for one in bootstrapped.json["findings"]}
    assert severities["smoke-cache"] == severities["smoke-chat"] == severities["smoke-native-model"] == "ok"
    receipt = json.loads(Path(cpu_prefix, "receipt.json").read_text())
    assert (
        receipt["image"] == nim_stand_in.WITH_PYTHON
        and receipt["image_digest"].startswith("sha256:")
        and receipt["lock"]
    )


def test_a_second_run_changes_nothing(bootstrapped: Ran, arguments: tuple[str, ...]) -> None:
    assert bootstrapped.rc == 0
    again = sgprov(*arguments)
    assert (again.rc, again.json["changed"]) == (0, False), again.out


def test_it_is_looked_at_like_a_process(bootstrapped: Ran, cpu_prefix: str) -> None:
    assert bootstrapped.rc == 0
    found = server(cpu_prefix)
    assert (found["health"], found["container"]) == ("running", unique_name(cpu_prefix, NAME))
    logs = sgprov("serve", "logs", NAME, "--prefix", cpu_prefix)
    assert "fired up and ready" in logs.out
    assert sgprov("smoke", NAME, "--prefix", cpu_prefix, "--json").rc == 0


def test_a_server_that_is_killed_in_its_container_is_noticed(bootstrapped: Ran, cpu_prefix: str) -> None:
    assert bootstrapped.rc == 0
    found = server(cpu_prefix)
    first = int(str(found["pid"]))
    children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    deadline = time.monotonic() + 15
    # For a moment it only refuses connections: its container ends when its first process does.
    while (now := server(cpu_prefix))["health"] != "dead" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert now["health"] == "dead", now
    assert "killed by signal 9" in str(now["text"])


def test_an_image_that_its_python_cannot_start_in_is_refused_before_anything_is_launched(
    cpu_prefix: str, tmp_path: Path
) -> None:
    (tmp_path / "only-this").write_text("no C library, no anything\n")
    subprocess.run(["tar", "-C", str(tmp_path), "-cf", str(tmp_path / "image.tar"), "only-this"], check=True)
    image = "sgprov-test/empty:1"
    parts.docker("import", str(tmp_path / "image.tar"), image)
    try:
        where = ("--prefix", cpu_prefix, "--port", "21980", "--name", "refused")
        ran = sgprov("bootstrap", "--target", "cpu", "--image", image, *where, "--json")
        assert ran.rc == 5, ran.out + ran.err
        statuses = {step["step"]: step["status"] for step in ran.json["steps"]}
        assert (statuses["inside"], statuses["environment"], statuses["server"]) == (
            "failed",
            "not-reached",
            "not-reached",
        )
        failed = next(step for step in ran.json["steps"] if step["step"] == "inside")
        assert f"does not start in `{image}`" in failed["error"] and "python install" in failed["hint"]
        assert parts.docker("ps", "--all", "--quiet", "--filter", f"ancestor={image}") == ""
    finally:
        parts.docker("rmi", image)
