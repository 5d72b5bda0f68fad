"""The same code on the machine that runs the tests: what it must find everywhere."""

from __future__ import annotations

import json
import platform
import sys
import time

import pytest

from provision import config
from provision.facts import gather, to_json
from provision.facts.nvml import COMMAND
from provision.facts.pythons import probe_python
from provision.host.local import LocalHost

pytestmark = pytest.mark.usefixtures("real_machine")
FIXED = {"gpus", "driver", "arch", "os", "glibc", "pythons", "problems"}


def test_facts_of_this_machine() -> None:
    start = time.monotonic()
    facts = to_json(gather(LocalHost(config.process_environment()), directories=["/"]))
    assert time.monotonic() - start < 10
    assert facts.keys() >= FIXED
    assert facts["arch"] == platform.machine()
    assert facts["disks"][0]["total"] > facts["disks"][0]["free"] >= 0
    json.dumps(facts)


def test_an_interpreter_that_is_named() -> None:
    host = LocalHost(config.process_environment())
    found = probe_python(host, sys.executable)
    assert found is not None
    assert (found.path, found.version) == (sys.executable, platform.python_version())
    assert probe_python(host, "/nothing/python3") is None
    assert probe_python(host, "/bin/true") is None


def test_the_child_that_asks_nvml_always_answers() -> None:
    outcome = LocalHost(config.process_environment()).query(COMMAND)
    assert outcome.ok
    assert {"error", "gpus"} & json.loads(outcome.out).keys()
