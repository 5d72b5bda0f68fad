"""An image is pulled only where there is room for it, and used only where it is for this machine."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from fakes import GIB, FakeHost, answer

from provision.errors import CheckFailed, StepFailed
from provision.report import Severity
from provision.steps.image import PullImage

HERE = {"Id": "sha256:1", "RepoDigests": ["a@sha256:2"], "Architecture": "arm64", "Size": 7, "Config": {"User": ""}}
STEP = PullImage(program="docker", reference="a:1", arch="arm64", size_gib=10, instead="b")


def machine(**answers: object) -> FakeHost:
    host = FakeHost(answers={"docker info": answer("/var/lib/docker\n"), "docker pull": answer()})
    host.answers |= {name.replace("_", " "): outcome for name, outcome in answers.items()}  # type: ignore[misc]
    return host


def test_there() -> None:
    assert STEP.satisfied(machine(docker_image_inspect=answer(json.dumps(HERE))))
    assert not STEP.satisfied(machine())


def test_no_room() -> None:
    host = machine()
    host.disks = {"/": 20 * GIB}
    with pytest.raises(CheckFailed, match=r"needs 33\.2 GB under `/var/lib/docker`, 21\.5 GB are free"):
        STEP.apply(host, lambda _: None)
    assert not host.commands, "asked before the first byte"


def test_pulled() -> None:
    host = machine()
    host.on_run = lambda _: host.answers.update({"docker image inspect": answer(json.dumps(HERE))})
    assert STEP.apply(host, lambda _: None).data == {"image_digest": "sha256:2", "image_id": "sha256:1"}
    assert host.commands == [("docker", "pull", "--platform", "linux/arm64", "a:1")]


def test_what_arrives_for_another_architecture_is_refused() -> None:
    host = machine()
    amd64 = json.dumps({**HERE, "Architecture": "amd64"})
    host.on_run = lambda _: host.answers.update({"docker image inspect": answer(amd64)})
    with pytest.raises(StepFailed, match="`a:1` is for amd64, this machine is arm64") as caught:
        STEP.apply(host, lambda _: None)
    assert caught.value.hint == "take `b`, which is for arm64"


def test_the_registry_says_so_before_anything_is_pulled() -> None:
    manifest = {"Descriptor": {"platform": {"architecture": "amd64"}}, "SchemaV2Manifest": {"layers": []}}
    host = machine(docker_manifest_inspect=answer(json.dumps(manifest)))
    with pytest.raises(StepFailed, match="is for amd64"):
        STEP.apply(host, lambda _: None)
    assert not host.commands


@pytest.mark.parametrize("known", [None, "sha256:2"])
def test_a_tag_that_has_not_moved_is_nothing_to_say(known: str | None) -> None:
    host = machine(docker_image_inspect=answer(json.dumps(HERE)))
    assert replace(STEP, known=known).moved(host) is None
    assert replace(STEP, known=known).moved(machine()) is None


def test_a_tag_that_moved_is_told_by_what_was_pulled() -> None:
    host = machine()
    host.on_run = lambda _: host.answers.update({"docker image inspect": answer(json.dumps(HERE))})
    step = replace(STEP, reference="host:5000/a:1", known="sha256:old")
    (found,) = step.apply(host, lambda _: None).findings
    assert (found.check, found.severity, found.data) == (
        "image-moved",
        Severity.WARNING,
        {"known": "sha256:old", "now": "sha256:2"},
    )
    assert found.fix == ("`--image host:5000/a@sha256:old` stays with that one",)
