"""Render the `docker run` of a server; pure. What is secret is named and never said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from provision.containers.names import (
    checked_address,
    checked_name,
    checked_path,
    checked_reference,
    checked_variable,
)

Program = Literal["docker", "podman"]
# Every container of ours has it; its value is the server's name.
LABEL = "sgprov.server"


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A directory of the host inside the container, for reading only unless `writable`."""

    source: str
    target: str
    writable: bool = False


@dataclass(frozen=True, kw_only=True)
class Gpus:
    """How an engine hands out GPUs: NVIDIA's runtime (`--gpus`) or CDI device names. No `devices` means all."""

    by: Literal["runtime", "cdi"]
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Publish:
    """The host's `address` and `port` lead to the container's port `inside`."""

    address: str
    port: int
    inside: int


@dataclass(frozen=True, kw_only=True)
class Container:
    """A server's container. `secrets` are names of variables, whose values the engine takes from its own environment.

    `user` is `uid:gid`, None for the image's own. `restarts` is how often the engine starts it again by itself. It
    has no capability, may gain none, and shares no memory with the host.
    """

    program: Program
    name: str
    image: str
    publish: Publish
    command: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    gpus: Gpus | None = None
    shm_gib: int | None = None
    user: str | None = None
    restarts: int = 0


def confined() -> tuple[str, ...]:
    """What every container of ours is run with: root in it is root of nothing, and no program in it makes one of it."""
    return ("--cap-drop", "ALL", "--security-opt", "no-new-privileges")


def argv(container: Container) -> tuple[str, ...]:
    """The whole command, which prints the container's id. Raises `UsageError` for what would be an option in it."""
    return (
        *(container.program, "run", "--detach", "--name", checked_name(container.name)),
        *("--label", f"{LABEL}={container.name}"),
        *_life(container),
        *confined(),
        *_devices(container.gpus),
        *_memory(container),
        *_network(container.publish),
        *_mounts(container.mounts),
        *_variables(container),
        checked_reference(container.image),
        *container.command,
    )


def _life(container: Container) -> Iterator[str]:
    # What the engine pulls here would come without progress, without its checks, and for another architecture.
    yield from ("--pull", "never")
    if container.program == "podman":
        # Docker has no such setting; there the launcher of a server with a key sets it.
        yield from ("--umask", "0077")
    else:
        # A first process that reaps children and passes signals on: engines start many, and Python ignores SIGTERM
        # as process 1. Podman needs a program for it that not every machine has.
        yield "--init"
    if container.restarts:
        yield from ("--restart", f"on-failure:{container.restarts}")
    if container.user:
        yield from ("--user", container.user)


def _devices(gpus: Gpus | None) -> Iterator[str]:
    if gpus is None:
        return
    if gpus.by == "cdi":
        for device in gpus.devices or ("all",):
            yield from ("--device", f"nvidia.com/gpu={device}")
    elif gpus.devices:
        # One field of comma-separated values, which is why the quotes belong to the value.
        yield from ("--gpus", f'"device={",".join(gpus.devices)}"')
    else:
        yield from ("--gpus", "all")


def _memory(container: Container) -> Iterator[str]:
    yield from ("--ipc", "private")
    if container.shm_gib:
        yield from ("--shm-size", f"{container.shm_gib}g")


def _network(publish: Publish) -> Iterator[str]:
    address = checked_address(publish.address)
    address = f"[{address}]" if ":" in address else address
    yield from ("--publish", f"{address}:{publish.port}:{publish.inside}")


def _mounts(mounts: tuple[Mount, ...]) -> Iterator[str]:
    for mount in mounts:
        # Not `--volume`: it makes a missing directory, which then belongs to root.
        words = f"type=bind,source={checked_path(mount.source)},target={checked_path(mount.target)}"
        yield from ("--mount", words if mount.writable else f"{words},readonly")


def _variables(container: Container) -> Iterator[str]:
    for name, value in container.variables.items():
        yield from ("--env", f"{checked_variable(name)}={value}")
    for name in container.secrets:
        yield from ("--env", checked_variable(name))
