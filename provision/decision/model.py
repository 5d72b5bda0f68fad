"""What a decision is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from provision.catalog.rows import Image, Serve, Stack, Target
from provision.locks.lockfile import Lock
from provision.report import Finding


@dataclass(frozen=True, kw_only=True)
class Places:
    """Absolute paths on the host: `prefix` holds environments, servers and receipts."""

    prefix: str
    models: str
    huggingface: str
    nim: str = "/root/.cache/nim"


@dataclass(frozen=True, kw_only=True)
class Previous:
    """What was decided for the server that is here already: it goes first wherever it still fits.

    `stack` is the name of a stack or image, `python` a minor version; all None where there is no such server.
    """

    target: str | None = None
    stack: str | None = None
    python: str | None = None
    container_engine: str | None = None


@dataclass(frozen=True, kw_only=True)
class Hosting:
    """The container that a server is to run in: the engine, the image, and how it gets which GPUs (none: all).

    `arch` is Docker's name of this machine's. In a `rootless` engine root is whoever called it.
    """

    program: Literal["docker", "podman"]
    reference: str
    arch: str
    gpus: Literal["runtime", "cdi"] | None = None
    devices: tuple[str, ...] = ()
    rootless: bool = False


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A stack or image that was weighed: it fits where `objections` is empty.

    `reasons` say why it fits, `warnings` what speaks against it without forbidding it. Sizes are in bytes, None
    where they are not known; `lacking` says what disk is short of how many. `pythons` are those it has a lock for here.
    """

    name: str
    kind: Literal["stack", "image"]
    objections: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    warnings: tuple[Finding, ...] = ()
    stack: Stack | None = None
    lock: Lock | None = None
    interpreter: str | None = None
    image: Image | None = None
    pythons: tuple[str, ...] = ()
    download_bytes: int | None = None
    disk_bytes: int | None = None
    lacking: tuple[str, int] | None = None

    @property
    def fits(self) -> bool:
        return not self.objections


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Whether a target fits a host: the candidate that would be taken, or why there is none."""

    target: Target
    chosen: Candidate | None
    candidates: tuple[Candidate, ...]
    objections: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        return self.chosen is not None

    @property
    def why_not(self) -> tuple[str, ...]:
        """Every reason: the target's own, or one line a stack, and first of that which lacks the least."""
        nearest = sorted(self.candidates, key=lambda one: len(one.objections))
        return self.objections or tuple(f"{one.name}: {'; '.join(one.objections)}" for one in nearest)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What this host is to become. Either `stack` with its `lock` and `python` ("3.10"), or `image`, is set.

    `interpreter` is the path of an interpreter that fits, None where one has to be provided. `hosting` is the container
    that it runs in: always for an image, for a stack only where the user named one.
    """

    target: Target
    places: Places
    serve: Serve
    stack: Stack | None = None
    lock: Lock | None = None
    python: str | None = None
    interpreter: str | None = None
    image: Image | None = None
    hosting: Hosting | None = None
    candidates: tuple[Candidate, ...] = ()
    why: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    download_bytes: int | None = None
    disk_bytes: int | None = None

    @property
    def engine(self) -> tuple[str, str]:
        """The engine and its version."""
        source = self.image or self.stack
        assert source is not None  # noqa: S101  # a decision has one of them
        return source.engine, source.version
