"""What a host is: frozen data; None is "not there", what is there but unreadable is in `problems`."""

from __future__ import annotations

from dataclasses import dataclass, field

from provision.host import DiskSpace, Listener
from provision.report import Finding


@dataclass(frozen=True, kw_only=True)
class Mig:
    """Multi-instance mode of one GPU: whether it is on, and the instances there are (`1g.10gb`)."""

    enabled: bool
    instances: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU. `memory_mib` None is unknown; with `unified_memory` it is the host's. `sources` names who said what."""

    index: int
    name: str
    uuid: str | None = None
    pci_id: str | None = None
    pci_address: str | None = None
    compute_capability: str | None = None
    memory_mib: int | None = None
    memory_used_mib: int | None = None
    unified_memory: bool = False
    mig: Mig | None = None
    ecc: bool | None = None
    sources: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Driver:
    """The NVIDIA driver. `version` is its own text (550.144.03), `cuda` the CUDA version it reports."""

    version: str
    cuda: str | None = None
    open_kernel_module: bool | None = None
    source: str = ""
    raw: str = ""


@dataclass(frozen=True, kw_only=True)
class OperatingSystem:
    id: str
    version: str
    pretty: str = ""
    codename: str = ""
    like: tuple[str, ...] = ()
    kernel: str = ""


@dataclass(frozen=True, kw_only=True)
class Python:
    """An interpreter. `version` is full (3.10.13); `venv` whether it can make environments with pip in them."""

    path: str
    version: str
    venv: bool = False
    headers: bool = False
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Cpu:
    model: str = ""
    cores: int = 0
    flags: tuple[str, ...] = ()
    numa_nodes: int = 1


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Sizes in MiB. `shm_mib` is /dev/shm; `limit_mib` the cgroup's, where there is one."""

    total_mib: int
    available_mib: int
    swap_mib: int = 0
    shm_mib: int | None = None
    limit_mib: int | None = None


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What this host runs inside of. `container` is `docker`, `podman`, `kubernetes`, … or None on bare metal."""

    container: str | None = None
    runpod: bool = False
    runpod_pod: str | None = None
    wsl: bool = False


@dataclass(frozen=True, kw_only=True)
class ContainerEngine:
    """Docker or Podman. `nvidia_runtime` and `cdi` say how it can hand out GPUs; `problem` why it cannot be asked."""

    name: str
    version: str | None = None
    running: bool = False
    nvidia_runtime: bool = False
    cdi: bool = False
    rootless: bool = False
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Link:
    """How two GPUs reach each other: `NV12`, `SYS`, `PXB`, … as `nvidia-smi topo -m` names it."""

    a: int
    b: int
    kind: str


@dataclass(frozen=True, kw_only=True)
class Slurm:
    version: str | None = None
    controller: bool = False
    inside_job: bool = False


@dataclass(frozen=True, kw_only=True)
class Facts:
    """One host. `problems` holds what could not be told; a host with a GPU problem is refused, not guessed."""

    host: str
    arch: str
    glibc: str | None = None
    os: OperatingSystem | None = None
    cpu: Cpu = field(default_factory=Cpu)
    memory: Memory | None = None
    gpus: tuple[Gpu, ...] = ()
    driver: Driver | None = None
    links: tuple[Link, ...] = ()
    pythons: tuple[Python, ...] = ()
    surroundings: Surroundings = field(default_factory=Surroundings)
    engines: tuple[ContainerEngine, ...] = ()
    disks: tuple[DiskSpace, ...] = ()
    listeners: tuple[Listener, ...] = ()
    slurm: Slurm | None = None
    problems: tuple[Finding, ...] = ()
