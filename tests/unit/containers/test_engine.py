"""What engines say, read; and what their errors mean, with what helps."""

from __future__ import annotations

import json

import pytest
from fakes import FakeHost, answer

from provision.containers import engine, images
from provision.containers.engine import Seen, Silent
from provision.errors import CommandFailed, ServingFailed, StepFailed

DEAD = {
    "Name": "/sgprov-a",
    "RestartCount": 2,
    "State": {"Status": "exited", "ExitCode": 137, "Pid": 0, "OOMKilled": False},
    "Config": {"Labels": {"sgprov.server": "sgprov-a"}},
}


def test_a_container() -> None:
    seen = engine.parse_container(json.dumps(DEAD))
    assert seen == Seen(
        name="sgprov-a", state="exited", pid=0, exit_status=137, out_of_memory=False, restarts=2, label="sgprov-a"
    )
    assert (seen.runs, seen.ending) == (False, "was killed by signal 9")
    assert engine.parse_container('{"State": {"OOMKilled": true}}').ending == "was killed: out of memory"
    assert engine.parse_container('{"State": {"ExitCode": 1}}').ending == "exited 1"


@pytest.mark.parametrize(
    ("outcome", "found"),
    [
        (answer(rc=1, err="Error: No such container: a"), None),
        (answer(rc=1, err='Error: no container with name or ID "a" found'), None),
        (answer(rc=1, err="Cannot connect to the Docker daemon"), Silent(reason="Cannot connect to the Docker daemon")),
    ],
)
def test_not_there_is_not_cannot_tell(outcome: object, found: object) -> None:
    assert engine.look(FakeHost(answers={"docker container inspect": outcome}), "docker", "a") == found  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("said", "told", "hint"),
    [
        ('could not select device driver "" with capabilities: [[gpu]]', "no NVIDIA runtime", "nvidia-ctk runtime"),
        ("Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?", "not running", "systemctl"),
        (
            "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock",
            "may not use docker",
            "usermod",
        ),
        ("exec /usr/bin/python3: exec format error", "another CPU architecture", "sgprov targets"),
        ("unresolvable CDI devices nvidia.com/gpu=all", "no CDI file", "nvidia-ctk cdi generate"),
        ("invalid mount config for type bind: bind source path does not exist: /x", "not there", "sgprov bootstrap"),
        ("No such image: a:1", "not on this machine", "pulls it"),
    ],
)
def test_what_errors_mean(said: str, told: str, hint: str) -> None:
    found = engine.explain(CommandFailed(said), program="docker", port=1, view=FakeHost())
    assert isinstance(found, StepFailed) and told in str(found) and hint in (found.hint or "")


def test_a_port_names_the_container_that_has_it() -> None:
    host = FakeHost(answers={"docker ps --filter publish=8000": answer("other\tnim:1\n")})
    found = engine.explain(
        CommandFailed("Bind failed: port is already allocated"), program="docker", port=8000, view=host
    )
    assert isinstance(found, ServingFailed) and "the container `other` (nim:1)" in str(found)


def test_manifests() -> None:
    def one(arch: str, *sizes: int) -> dict[str, object]:
        layers = [{"digest": f"sha256:{arch:0<12}{size}", "size": size} for size in sizes]
        return {"Descriptor": {"platform": {"architecture": arch}}, "OCIManifest": {"layers": layers}}

    found = images.parse_manifests(json.dumps([one("amd64", 1, 2), one("arm64", 5), one("unknown", 9)]), "arm64")
    assert found and (found.archs, found.download_bytes) == (("amd64", "arm64"), 5)
    assert images.parse_manifests("no such manifest", "arm64") is None


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("no matching manifest for linux/arm64/v8 in the manifest list entries", "has no image for arm64"),
        ("unauthorized: authentication required", "does not let this machine fetch"),
        ("manifest unknown: manifest unknown", "has no image `nvcr.io/nim/a:1`"),
        ("write /x: no space left on device", "the disk is full"),
    ],
)
def test_what_a_failed_pull_means(said: str, told: str) -> None:
    assert told in str(images.explain(CommandFailed(said), "nvcr.io/nim/a:1", "arm64"))


@pytest.mark.parametrize(
    "said",
    [
        "read tcp: connection reset by peer",
        'Error response from daemon: Head "http://127.0.0.1:5000/v2/a/manifests/1": EOF',
        "unexpected EOF",
    ],
)
def test_a_pull_goes_on_after_a_broken_connection(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setattr(images, "_PAUSE_S", 0)
    host, calls = FakeHost(answers={"docker pull": answer("aaaaaaaaaaaa: Pull complete")}), list[int]()

    def break_once(_: tuple[str, ...]) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise CommandFailed(f"`docker pull a:1` exited 1:\n{said}\n")

    host.on_run = break_once
    told: list[tuple[str, int | None, int | None]] = []
    remote = images.Remote(archs=("amd64",), layers={"aaaaaaaaaaaa": 7})
    images.pull(host, "docker", "a:1", arch="amd64", remote=remote, tell=lambda *words: told.append(words))
    assert len(calls) == 2 and told[-1] == ("1 of 1 layers", 7, 7)
