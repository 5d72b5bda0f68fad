"""The `docker run` of each kind of server, word for word."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.containers.run import Container, Gpus, Mount, Publish, argv

BASE = Container(
    program="docker", name="sgprov-a", image="i:1", publish=Publish(address="0.0.0.0", port=30000, inside=30000)
)


def words(container: Container) -> str:
    return " ".join(argv(container))


def test_the_least() -> None:
    assert words(BASE) == (
        "docker run --detach --name sgprov-a --label sgprov.server=sgprov-a --pull never --init "
        "--cap-drop ALL --security-opt no-new-privileges --ipc private --publish 0.0.0.0:30000:30000 i:1"
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"gpus": Gpus(by="runtime")}, " --gpus all "),
        ({"gpus": Gpus(by="runtime", devices=("1",))}, ' --gpus "device=1" '),
        ({"gpus": Gpus(by="runtime", devices=("0", "3"))}, ' --gpus "device=0,3" '),
        ({"gpus": Gpus(by="cdi")}, " --device nvidia.com/gpu=all "),
        ({"gpus": Gpus(by="cdi", devices=("0", "3"))}, " --device nvidia.com/gpu=0 --device nvidia.com/gpu=3 "),
        ({"shm_gib": 32}, " --ipc private --shm-size 32g "),
        ({"user": "1000:1000"}, " --user 1000:1000 "),
        ({"restarts": 5}, " --restart on-failure:5 "),
        ({"publish": Publish(address="::1", port=8001, inside=8000)}, " --publish [::1]:8001:8000 "),
        ({"mounts": (Mount(source="/a", target="/b"),)}, " --mount type=bind,source=/a,target=/b,readonly "),
        ({"mounts": (Mount(source="/a", target="/b", writable=True),)}, "source=/a,target=/b i:1"),
        ({"variables": {"A": "1"}, "secrets": ("NGC_API_KEY",)}, " --env A=1 --env NGC_API_KEY i:1"),
        ({"command": ("python3", "-m", "x")}, " i:1 python3 -m x"),
    ],
)
def test_each_word(changes: dict[str, object], told: str) -> None:
    assert told in words(replace(BASE, **changes))  # type: ignore[arg-type]


def test_podman_needs_no_init() -> None:
    assert "--init" not in argv(replace(BASE, program="podman"))


@given(st.text(min_size=8))
def test_the_name_of_a_secret_is_all_there_is_of_it(value: str) -> None:
    container = replace(BASE, secrets=("NGC_API_KEY",))
    assert argv(container).count("NGC_API_KEY") == 1
    assert not any(word == f"NGC_API_KEY={value}" for word in argv(container))
