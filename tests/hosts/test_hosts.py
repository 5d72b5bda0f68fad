"""Every folder here is a machine, and its `expect.yml` says what it is. A new machine is a folder, not a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from provision import bootstrap
from provision.config import Options
from provision.errors import ProvisionError
from provision.facts import describe, gather, to_json
from provision.host.folder import FolderHost
from provision.host.recording import RecordingHost

MACHINES = sorted(path.parent for path in Path(__file__).parent.glob("*/commands.yml"))
# What users keep things in, so that every machine is asked about disks.
DIRECTORIES = ("/workspace", "/root/.cache/huggingface")


@pytest.fixture(params=MACHINES, ids=lambda folder: folder.name)
def machine(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


def test_facts(machine: Path) -> None:
    expected = yaml.safe_load((machine / "expect.yml").read_text())["facts"]
    facts = to_json(gather(FolderHost(machine), directories=DIRECTORIES))
    assert list(differences(expected, facts)) == []


def test_facts_can_be_described(machine: Path) -> None:
    rows = describe(gather(FolderHost(machine), directories=DIRECTORIES))
    assert ("host", machine.name) in rows
    assert all(name and value for name, value in rows)


def test_a_capture_replays_the_same(machine: Path, tmp_path: Path) -> None:
    recording = RecordingHost(FolderHost(machine))
    seen = to_json(gather(recording, directories=DIRECTORIES))
    recording.save(tmp_path / machine.name)
    replayed = to_json(gather(FolderHost(tmp_path / machine.name), directories=DIRECTORIES))
    for gpu in (*seen["gpus"], *replayed["gpus"]):
        del gpu["uuid"]
    assert replayed == seen


def test_every_gpu_problem_has_a_remedy(machine: Path) -> None:
    problems = gather(FolderHost(machine)).problems
    assert all(problem.fix for problem in problems if problem.check in {"facts.gpus", "facts.driver"})


def differences(expected: Any, found: Any, path: str = "facts") -> Iterator[str]:
    """Where `found` does not hold what is `expected` of it: keys may be left out, list entries may not."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key, value in expected.items():
            if key not in found:
                yield f"{path} has no {key}"
            # A problem's text is said in part: the rest is for people.
            elif key == "text" and ".problems[" in path:
                if value not in found[key]:
                    yield f"{path}.{key} is {found[key]!r}, without {value!r}"
            else:
                yield from differences(value, found[key], f"{path}.{key}")
    elif isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            yield f"{path} has {len(found)} entries, not {len(expected)}: {found!r}"
        for index, (one, other) in enumerate(zip(expected, found, strict=False)):
            yield from differences(one, other, f"{path}[{index}]")
    elif expected != found:
        yield f"{path} is {found!r}, not {expected!r}"


def test_decision(machine: Path) -> None:
    """What bootstrap would make of it, without a target being named."""
    expected = yaml.safe_load((machine / "expect.yml").read_text())["decision"]
    try:
        decision = bootstrap.make_plan(FolderHost(machine), Options(model="/models/x", bind="127.0.0.1")).decision
        found: dict[str, Any] = {"target": decision.target.name}
        if decision.stack:
            found |= {"stack": decision.stack.name, "python": decision.python}
        elif decision.image:
            found |= {"image": decision.image.name}
        if decision.findings:
            found["findings"] = [finding.check for finding in decision.findings]
    except ProvisionError as error:
        found = {"error": error.code}
    assert found == expected
