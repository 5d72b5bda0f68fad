"""The real SGLang, kept up: replaced by another, killed for real, and started again by the supervisor of the first."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from live.real_command import sgprov

pytestmark = pytest.mark.engine
NAME = "kept-up"


@pytest.fixture
def where(cpu_prefix: str) -> Iterator[tuple[str, ...]]:
    yield ("--prefix", cpu_prefix)
    sgprov("serve", "stop", NAME, "--prefix", cpu_prefix)


def test_a_server_that_bootstrap_replaced_is_kept_up(where: tuple[str, ...], unused_port: int) -> None:
    target = ("--target", "cpu", "--port", str(unused_port), *where)
    first = sgprov("serve", "start", NAME, *target, "--restart", "--json")
    assert first.rc == 0 and first.json["kept_up"].startswith("supervised by"), first.out + first.err
    replaced = sgprov("bootstrap", *target, "--name", NAME, "--context-length", "512", "--json")
    assert replaced.rc == 0, replaced.out + replaced.err
    step = next(step for step in replaced.json["steps"] if step["step"] == "server")
    assert step["note"].endswith("kept up like the one before")
    healed = sgprov("experiment", "self-heal", NAME, *where, "--rounds", "1", "--json")
    assert healed.rc == 0, healed.out + healed.err
    (found,) = healed.json["rounds"]
    assert found["detect_s"] < 1.0 and found["lost"] and found["cold"]
    (now,) = sgprov("serve", "status", NAME, *where, "--json").json["servers"]
    assert now["health"] == "running" and "512" in now["command"]
