"""Which stack a host gets, and why not each of the others: data in, `Decision` or `UnsupportedHost` out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from provision.catalog.rows import Image, Serve, Stack, Target
from provision.locks.lockfile import Lock
from provision.report import Finding


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A stack or image that was weighed: it fits where `objections` is empty."""

    name: str
    kind: Literal["stack", "image"]
    objections: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        return not self.objections


@dataclass(frozen=True, kw_only=True)
class Places:
    """Absolute paths on the host: `prefix` holds environments, servers and receipts."""

    prefix: str
    models: str
    huggingface: str


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What this host is to become. Either `stack` with its `lock` and `python` ("3.10"), or `image`, is set.

    `interpreter` is the path of an interpreter that the user named or that was found to fit, None where one has to
    be provided. `download_bytes` and `disk_bytes` are None where they are not known.
    """

    target: Target
    places: Places
    serve: Serve
    stack: Stack | None = None
    lock: Lock | None = None
    python: str | None = None
    interpreter: str | None = None
    image: Image | None = None
    candidates: tuple[Candidate, ...] = ()
    why: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    download_bytes: int | None = None
    disk_bytes: int | None = None
