"""Killed for real: by its container's engine a stand-in is started again; and a client changes models unchanged."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import nim_stand_in, parts
from live.real_command import sgprov
from live.test_containers import applied, nim

from provision.containers.names import unique_name
from provision.errors import UsageError
from provision.experiments import self_heal
from provision.host.local import LocalHost
from provision.serving import record, server

pytestmark = [pytest.mark.container, pytest.mark.usefixtures("real_machine")]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    return nim_stand_in.build(tmp_path_factory.mktemp("image"))


@pytest.fixture
def host() -> LocalHost:
    return LocalHost({name: os.environ[name] for name in ("PATH", "HOME")})


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NGC_API_KEY", "nvapi-" + "h" * 64)


@pytest.fixture
def prefix(tmp_path: Path, host: LocalHost) -> Iterator[str]:
    yield str(tmp_path)
    for name in record.names(host, f"{tmp_path}/servers"):
        server.stop(host, f"{tmp_path}/servers", name=name, grace_s=1)


def test_a_container_is_killed_and_comes_back(host: LocalHost, prefix: str, image: str) -> None:
    applied(nim(host, prefix, image, parts.free_port(), restarts=5), host)
    told: list[str] = []
    found = self_heal.run(host, server.known(host, f"{prefix}/servers", name="test-nim"), ready_s=60, tell=told.append)
    assert [one.cold for one in found] == [True, False]
    assert all(one.detect_s < 1.0 for one in found), found
    assert all(one.ready_s < 20 for one in found), found
    assert told[0] == "round 1 of 2: cold cache"


def test_who_is_not_kept_up_is_not_killed(host: LocalHost, prefix: str, image: str) -> None:
    applied(nim(host, prefix, image, parts.free_port()), host)
    known = server.known(host, f"{prefix}/servers", name="test-nim")
    with pytest.raises(UsageError, match="nobody starts `test-nim` again"):
        self_heal.run(host, known)


def test_several_servers_on_one_machine(host: LocalHost, prefix: str, image: str) -> None:
    """Each has a name, a port, a container, a record and a receipt of its own; they are listed, and told from each other."""
    ports = {"test-one": parts.free_port(), "test-two": parts.free_port() + 1}
    for name, port in ports.items():
        applied(nim(host, prefix, image, port, name=name), host)
    listed = sgprov("serve", "status", "--prefix", prefix, "--json").json["servers"]
    assert {one["name"]: (one["health"], one["url"], one["container"]) for one in listed} == {
        name: ("running", f"http://127.0.0.1:{port}", unique_name(prefix, name)) for name, port in ports.items()
    }
    for name, port in ports.items():
        receipt = json.loads(Path(prefix, "servers", name, "receipt.json").read_text())
        assert (receipt["port"], receipt["image"]) == (port, image)
    urls = [f"http://127.0.0.1:{port}/v1" for port in ports.values()]
    ran = sgprov("experiment", "switcheroo", *urls, "--json")
    assert ran.rc == 0 and len(ran.json["answers"]) == 2, ran.out
    stopped = sgprov("serve", "stop", "test-one", "--prefix", prefix, "--json")
    assert stopped.json["stopped"] == ["test-one"]
    listed = sgprov("serve", "status", "--prefix", prefix, "--json").json["servers"]
    assert {one["name"]: one["health"] for one in listed} == {"test-one": "stopped", "test-two": "running"}


def test_the_same_client_for_two_endpoints(tmp_path: Path, image: str) -> None:
    ports = parts.free_port(), parts.free_port() + 1
    names = [f"sgprov-test-switch-{port}" for port in ports]
    models = "meta/llama-3.1-8b-instruct", "mistralai/mistral-7b-instruct-v0.3"
    try:
        for name, port, model in zip(names, ports, models, strict=True):
            cache = tmp_path / name
            cache.mkdir(mode=0o777)
            os.chown(cache, nim_stand_in.USER, -1)
            parts.docker(
                *("run", "--detach", "--name", name, "--env", "NGC_API_KEY", "--env", f"STAND_IN_MODEL={model}"),
                *("--publish", f"127.0.0.1:{port}:8000", "--volume", f"{cache}:/opt/nim/.cache", image),
            )
        urls = [f"http://127.0.0.1:{port}/v1" for port in ports]
        for _ in range(50):
            ran = sgprov("experiment", "switcheroo", *urls, "--json")
            if ran.rc == 0:
                break
        assert ran.rc == 0, ran.out
        assert [answer["model"] for answer in ran.json["answers"]] == list(models)
        assert f"only the port was another ({ports[0]} and {ports[1]})" in ran.json["findings"][0]["text"]
        gone = sgprov("experiment", "switcheroo", urls[0], "http://127.0.0.1:9", "--json")
        assert (gone.rc, gone.json["ok"]) == (6, False)
    finally:
        parts.docker("rm", "--force", *names, check=False)
