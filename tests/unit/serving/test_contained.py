"""A server in a container is asked to answer what it has before its engine stops it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fakes import FakeHost, answer

from provision.containers.run import LABEL
from provision.serving import contained
from provision.serving.launch import Inside
from provision.serving.record import Server

CONTAINER = Inside(program="docker", name="sgprov-a", port=30000)


def server(engine: str = "sglang", *, state: Any = "ready", restarts: int = 0) -> Server:
    inside = Inside(program="docker", name="sgprov-a", port=30000, restarts=restarts)
    version = {"sglang": "0.5.23", "nim": "1.0"}[engine]
    return Server(
        id="1", name="a", directory="/p/servers/a", engine=engine, version=version, stack=None, model="m",
        url="http://127.0.0.1:30000", argv=("docker", "run"), variables={}, log="/p/servers/a/server.log", started="",
        machine="m", boot="b", state=state, container=inside,
    )  # fmt: skip


def machine() -> FakeHost:
    """A container that runs until it is told to end."""
    host = FakeHost(answers={"docker kill": answer(), "docker stop": answer(), "docker rm": answer()})

    def seen(state: str, pid: int) -> None:
        told = {"Name": "/sgprov-a", "State": {"Status": state, "Pid": pid}, "Config": {"Labels": {LABEL: "sgprov-a"}}}
        host.answers["docker container inspect"] = answer(json.dumps(told))

    seen("running", 77)
    host.on_run = lambda argv: seen("exited", 0) if argv[1] in {"kill", "stop"} else None
    return host


def asked(host: FakeHost) -> list[str]:
    return [" ".join(argv[1:3]) for argv in host.commands]


def test_sglang_is_asked_to_answer_what_it_has_first() -> None:
    host = machine()
    assert contained.end(host, server(), grace_s=5)
    assert asked(host) == ["kill --signal", "rm --force"]
    assert "SIGINT" in host.commands[0]


@pytest.mark.parametrize(
    "one",
    [server(state="starting"), server(restarts=5), server("nim")],
    ids=["not ready", "its engine starts it again", "the usual signal does"],
)
def test_others_are_stopped_as_usual(one: Server) -> None:
    host = machine()
    assert contained.end(host, one, grace_s=5)
    assert asked(host) == ["stop --time", "rm --force"]
