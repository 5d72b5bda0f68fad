"""Machines made on the spot for checks: a catalog row's machine, with what a test changes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from fakes import GIB, FakeHost, answer, info

from provision import assume
from provision.catalog.load import Catalog
from provision.catalog.shipped import folder
from provision.checks.base import Context
from provision.checks.sight import look
from provision.config import Options
from provision.decision import Question
from provision.facts.model import Facts, Memory, Python
from provision.host import DiskSpace, Listener, Outcome, PathInfo, Process, Reach
from provision.report import Finding, Severity

HOME = "/home/me"
TEMPORARY = "/tmp"  # noqa: S108  # a name, nothing is written there
PREFIX = f"{HOME}/.local/share/sgprov"
A40 = "gpu=A40,driver=550.90.07,cuda=12.4,python=3.10"
A100 = "gpu=A100 80GB PCIe,count=4,driver=535.216.01,cuda=12.2,python=3.10"
GB10 = "gpu=GB10,driver=580.126.09,cuda=13.0,arch=aarch64,os=ubuntu-24.04,glibc=2.39,python=3.12,docker=yes"
SPARK_NATIVE = GB10.replace("docker=yes", "docker=no")
H100 = "gpu=H100 SXM5 80GB,count=8,driver=580.95.05,cuda=13.0,python=3.10,slurm=yes"
NO_GPU = "gpu=none,python=3.12"


class View(FakeHost):
    """A `FakeHost` whose file systems can be of any kind."""

    given_disks: Mapping[str, DiskSpace]

    def disk(self, path: str) -> DiskSpace | None:
        mounts = [mount for mount in self.given_disks if path == mount or path.startswith(mount.rstrip("/") + "/")]
        return self.given_disks[max(mounts, key=len)] if mounts else None


@dataclass(frozen=True)
class Case:
    """A machine on which a check has something to say, `text` a part of it, and one on which it has not."""

    check: str
    text: str
    fires: Callable[[], Context]
    quiet: Callable[[], Context]


def machine(
    assumed: str = NO_GPU,
    *,
    files: Mapping[str, str] | None = None,
    answers: Mapping[str, Outcome] | None = None,
    variables: Mapping[str, str] | None = None,
    paths: Mapping[str, PathInfo] | None = None,
    disks: Mapping[str, DiskSpace] | None = None,
    running: tuple[Process, ...] = (),
    reached: Mapping[str, Reach] | None = None,
    secrets: Mapping[str, str] | None = None,
    links: Mapping[str, str] | None = None,
    untrusted: str | None = None,
    wishes: Options | None = None,
    gpus: Mapping[str, Any] | None = None,
    **facts: Any,
) -> Context:
    """What checks look at on an assumed machine; `gpus` changes every GPU, further names change the facts."""
    view = View(files, answers)
    view.variables = {"HOME": HOME, **(variables or {})}
    view.paths = dict(paths or {})
    view.running = list(running)
    view.links = dict(links or {})
    view.untrusted = {untrusted} if untrusted else set()
    view.reached = dict(reached or {})
    view.given_disks = {"/": space(), TEMPORARY: space(TEMPORARY), **(disks or {})}
    known = assume.facts(assume.parse(assumed))
    known = replace(known, memory=Memory(total_mib=256 * 1024, available_mib=200 * 1024), pythons=_complete(known))
    if gpus:
        known = replace(known, gpus=tuple(replace(gpu, **gpus) for gpu in known.gpus))
    known = replace(known, **facts)
    question = Question(
        wishes=wishes or Options(), facts=known, catalog=_catalog(), locks=folder("lockfiles"), home=HOME
    )
    given = secrets or {}
    return look(question, view, credential=given.get, local=False, network_wait_s=0.1)


def space(mount: str = "/", *, free_gib: float = 500, filesystem: str = "ext4", inodes: int | None = None) -> DiskSpace:
    return DiskSpace(
        path=mount,
        mount=mount,
        filesystem=filesystem,
        total=1000 * GIB,
        free=int(free_gib * GIB),
        inodes_free=inodes,
    )


def problem(check: str, text: str = "something is wrong", severity: Severity = Severity.ERROR) -> Finding:
    return Finding(check=check, severity=severity, text=text, fix=("`mend`",))


def ear(port: int, *, pid: int | None = 4711) -> Listener:
    return Listener(
        port=port, address="0.0.0.0", pid=pid, process="python3", command="python3 -m http.server", user="me"
    )


def process(pid: int, command: str, *, parent: int = 1, name: str = "python3") -> Process:
    return Process(pid=pid, parent=parent, name=name, command=command, user="me", started=1.0)


@cache
def _catalog() -> Catalog:
    return Catalog()


def _complete(known: Facts) -> tuple[Python, ...]:
    return tuple(replace(python, headers=True) for python in known.pythons)


__all__ = ["Case", "answer", "ear", "info", "machine", "problem", "process", "space"]
