"""All checks, in the order in which they are read: what blocks everything else comes first."""

from __future__ import annotations

from provision.checks import (
    build_tools,
    containers,
    credentials,
    directories,
    disks,
    driver,
    environment,
    gpu,
    limits,
    memory,
    model,
    network,
    ports,
    python,
    server,
    slurm,
    system,
    target,
    topology,
)
from provision.checks.base import Check

CHECKS: tuple[Check, ...] = (
    *(*gpu.CHECKS, *driver.CHECKS, *target.CHECKS, *topology.CHECKS),
    *(*system.CHECKS, *memory.CHECKS, *disks.CHECKS, *directories.CHECKS, *limits.CHECKS),
    *(*python.CHECKS, *build_tools.CHECKS, *environment.CHECKS, *model.CHECKS, *credentials.CHECKS),
    *(*containers.CHECKS, *ports.CHECKS, *network.CHECKS, *server.CHECKS, *slurm.CHECKS),
)
