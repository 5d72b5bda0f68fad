"""Which container engine runs a server, and how it hands out GPUs."""

from __future__ import annotations

import pytest

from provision.config import Options
from provision.decision.hosting import choose, hosting
from provision.errors import UsageError
from provision.facts.model import ContainerEngine, Facts, Surroundings

DOCKER = ContainerEngine(name="docker", version="28.0.1", running=True, nvidia_runtime=True)
BARE = ContainerEngine(name="docker", version="28.0.1", running=True)
DOWN = ContainerEngine(name="docker", problem="the daemon is not running (`sudo systemctl start docker`)")
PODMAN = ContainerEngine(name="podman", version="4.9.3", running=True, cdi=True)


def facts(*engines: ContainerEngine) -> Facts:
    return Facts(host="a", arch="x86_64", engines=engines, surroundings=Surroundings())


@pytest.mark.parametrize(
    ("engines", "gpus", "named", "chosen", "told"),
    [
        ((DOCKER, PODMAN), True, None, "docker", "docker hands out GPUs"),
        ((DOCKER, PODMAN), True, "podman", "podman", "podman hands out GPUs"),
        ((BARE, PODMAN), True, None, "podman", "podman hands out GPUs"),
        ((BARE,), False, None, "docker", "docker runs"),
        ((BARE,), True, None, None, "no NVIDIA runtime and no CDI"),
        ((DOWN,), False, None, None, "the daemon is not running"),
        ((), False, None, None, "needs Docker or Podman, which is not here"),
        ((DOCKER,), False, "podman", None, "needs podman, which is not here"),
    ],
)
def test_chosen(
    engines: tuple[ContainerEngine, ...], gpus: bool, named: str | None, chosen: str | None, told: str
) -> None:
    engine, why = choose(facts(*engines), Options(container_engine=named), gpus=gpus)
    assert (engine.name if engine else None) == chosen and told in why


def test_an_engine_that_there_is_not() -> None:
    with pytest.raises(UsageError, match="there is no container engine `nerdctl`"):
        choose(facts(DOCKER), Options(container_engine="nerdctl"), gpus=False)


def test_how_gpus_are_handed_out() -> None:
    assert hosting(DOCKER, "i", "x86_64", []).gpus == "runtime"
    assert hosting(PODMAN, "i", "aarch64", [1]).devices == ("1",)
    assert (hosting(PODMAN, "i", "aarch64", None).gpus, hosting(PODMAN, "i", "aarch64", None).arch) == (None, "arm64")
