"""Looks at a host and says what it is: every probe once, side by side, and what could not be told beside the facts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar, cast

from provision.errors import ProbeError
from provision.facts.containers import probe_docker, probe_podman, probe_surroundings
from provision.facts.cpu import probe_arch, probe_cpu
from provision.facts.driver import probe_driver
from provision.facts.gpu import probe_gpus
from provision.facts.model import Cpu, Facts
from provision.facts.operating_system import probe_glibc, probe_operating_system
from provision.facts.ports import probe_listeners
from provision.facts.pythons import probe_pythons
from provision.facts.slurm import probe_slurm
from provision.facts.sources import PartlyTold, problem
from provision.facts.storage import probe_disks, probe_memory
from provision.facts.topology import probe_links
from provision.host import HostView
from provision.report import Finding, Severity

T = TypeVar("T")
U = TypeVar("U")

# Nearly all of a probe's time is waiting for a program, so they wait side by side.
_WORKERS = 8


def gather(view: HostView, *, directories: Sequence[str] = ()) -> Facts:
    """All facts of a host; `directories` are those whose disks are of interest.

    Raises nothing: a probe that fails is an entry of `problems`, an error where it is about GPUs or their driver.
    """
    with ThreadPoolExecutor(max_workers=_WORKERS) as pool:
        attempts = _Attempts(pool)
        pythons = attempts.start("pythons", lambda: probe_pythons(view), ())
        docker = attempts.start("engines", lambda: probe_docker(view), None)
        podman = attempts.start("engines", lambda: probe_podman(view), None)
        listeners = attempts.start("listeners", lambda: probe_listeners(view), ())
        slurm = attempts.start("slurm", lambda: probe_slurm(view), None)
        arch = attempts.start("arch", lambda: probe_arch(view), "unknown")
        glibc = attempts.start("glibc", lambda: probe_glibc(view), None)
        system = attempts.start("os", lambda: probe_operating_system(view), None)
        cpu = attempts.start("cpu", lambda: probe_cpu(view), Cpu())
        memory = attempts.start("memory", lambda: probe_memory(view), None)
        disks = attempts.start("disks", lambda: probe_disks(view, directories), ())
        surroundings = probe_surroundings(view)
        answer = probe_gpus(view, in_container=surroundings.container is not None)
        driver = attempts.now("driver", lambda: probe_driver(view, answer), None)
        links = attempts.now("links", lambda: probe_links(view, gpus=len(answer.gpus) if answer.driver else 0), ())
        return Facts(
            host=view.name,
            arch=arch(),
            glibc=glibc(),
            os=system(),
            cpu=cpu(),
            memory=memory(),
            gpus=answer.gpus,
            driver=driver,
            links=links,
            pythons=pythons(),
            surroundings=surroundings,
            engines=tuple(engine for engine in (docker(), podman()) if engine),
            disks=disks(),
            listeners=listeners(),
            slurm=slurm(),
            problems=(*answer.problems, *attempts.problems),
        )


def with_disks(view: HostView, facts: Facts, directories: Sequence[str]) -> Facts:
    """Facts that were gathered without knowing which directories matter, with their disks."""
    attempts = _Attempts(None)
    disks = attempts.now("disks", lambda: probe_disks(view, directories), ())
    return replace(facts, disks=disks, problems=(*facts.problems, *attempts.problems))


class _Attempts:
    """Probes that may fail: each gives its facts or leaves a problem behind."""

    def __init__(self, pool: ThreadPoolExecutor | None) -> None:
        self._pool = pool
        self.problems: list[Finding] = []

    def start(self, topic: str, probe: Callable[[], T], otherwise: U) -> Callable[[], T | U]:
        """Start a probe; the answer is for asking for its result."""
        assert self._pool  # noqa: S101  # only those who start something need one
        running: Future[T] = self._pool.submit(probe)
        return lambda: self.now(topic, running.result, otherwise)

    def now(self, topic: str, probe: Callable[[], T], otherwise: U) -> T | U:
        try:
            return probe()
        except ProbeError as error:
            severity = Severity.ERROR if topic == "driver" else Severity.WARNING
            fix = (error.hint,) if error.hint else ()
            self.problems.append(problem(topic, str(error), severity=severity, fix=fix))
            # The type of what is left is that of the probe itself.
            return cast("T", error.found) if isinstance(error, PartlyTold) else otherwise
