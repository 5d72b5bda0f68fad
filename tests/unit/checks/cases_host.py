"""Cases of the checks of system, memory, disks, directories, limits, ports, network and Slurm."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
from unit.checks.machines import (
    A40,
    A100,
    GB10,
    H100,
    PREFIX,
    TEMPORARY,
    Case,
    answer,
    ear,
    info,
    machine,
    problem,
    space,
)

from provision.checks.base import Context
from provision.config import Options
from provision.facts.model import Memory, Slurm, Surroundings
from provision.host import Listener, Reach
from provision.report import Severity

_ME = {"id -u": answer("1000\n")}
_LIMITS = "Max processes             {0}                {0}                processes\nMax open files            1024   {1}   files\nMax locked memory         {2}   {2}   bytes\n"
_ROOMY = {"/proc/self/limits": _LIMITS.format("96365", "1048576", "unlimited")}
_IB = "/sys/class/infiniband/mlx5_0/ports/1/state"


def _open(target: str = "a100", *, allow: bool | None = None, **more: Any) -> Context:
    """A machine whose server is to listen on every address."""
    wishes = Options(target=target, bind="0.0.0.0", allow_unauthenticated=allow, prefix=PREFIX)
    return machine(A100 if target == "a100" else A40, wishes=wishes, **more)


def _memory(**changes: int) -> Memory:
    return replace(Memory(total_mib=256 * 1024, available_mib=200 * 1024, shm_mib=64 * 1024), **changes)


def _limited(processes: str = "96365", files: str = "1048576", locked: str = "unlimited", **more: str) -> Context:
    return machine(
        H100, files={"/proc/self/limits": _LIMITS.format(processes, files, locked), _IB: "4: ACTIVE\n", **more}
    )


def _serving(port: int, **given: object) -> Context:
    return machine(A40, wishes=Options(target="a40", port=str(port), model="Qwen/Qwen3-0.6B"), **given)  # type: ignore[arg-type]


def _wheels_by_url(state: str) -> Context:
    wishes = Options(target="runpod-a40-cu121")
    made = machine("gpu=A40,driver=535.104.05,cuda=12.2,python=3.10", wishes=wishes)
    lock = made.decision.lock if made.decision else None
    hosts = {url.split("/")[2] for one in (lock.requirements if lock else ()) if (url := one.url)}
    assert hosts, "this stack has wheels by URL"
    reached = {f"{host}:443": Reach(state=state) for host in hosts}  # type: ignore[arg-type]
    return machine("gpu=A40,driver=535.104.05,cuda=12.2,python=3.10", wishes=wishes, reached=reached)


def _mesh(**files: str) -> Context:
    return machine(H100, files={f"/sys/class/net/{name}/operstate": text for name, text in files.items()})


def _slurm(*, controller: bool = True, inside: bool = False, answers: dict[str, object] | None = None) -> Context:
    slurm = Slurm(version="23.11.4", controller=controller, inside_job=inside)
    return machine(H100, slurm=slurm, answers=answers)  # type: ignore[arg-type]


def _record(mode: int) -> Context:
    path = f"{PREFIX}/servers/mine/server.json"
    return machine(files={path: "{}"}, paths={path: info(mode=mode)})


def _slurm_here() -> Context:
    return _slurm()


def _with_attention(*listeners: Listener) -> Context:
    """A server whose data-parallel attention takes ports beside its own."""
    made = machine(A40, listeners=listeners)
    assert made.decision
    serve = msgspec.structs.replace(made.decision.serve, extra=("--enable-dp-attention",))
    return replace(made, decision=replace(made.decision, serve=serve))


CASES = (
    Case("system-arch", "ppc64le", lambda: machine("arch=ppc64le"), machine),
    Case("system-glibc", "no glibc", lambda: machine(glibc=None), machine),
    Case(
        "system-glibc",
        "glibc 2.17 is older than",
        lambda: machine("glibc=2.17,python=3.12", wishes=Options(target="cpu")),
        machine,
    ),
    Case("system-release", "os-release is missing", lambda: machine(os=None), machine),
    Case(
        "system-facts",
        "something is wrong",
        lambda: machine(problems=(problem("facts.engines", severity=Severity.WARNING),)),
        machine,
    ),
    Case(
        "system-clock",
        "behind",
        lambda: machine(answers={"date +%s": answer("1262304000\n")}),
        lambda: machine(answers={"date +%s": answer("1798761600\n")}),
    ),
    Case(
        "system-clock-synchronised",
        "no time server",
        lambda: machine(answers={"timedatectl": answer("no\n")}),
        lambda: machine(answers={"timedatectl": answer("yes\n")}),
    ),
    Case(
        "system-reboot-pending",
        "(linux-image nvidia-driver)",
        lambda: machine(
            files={
                "/var/run/reboot-required": "*** System restart required ***\n",
                "/var/run/reboot-required.pkgs": "linux-image\nnvidia-driver\n",
            }
        ),
        machine,
    ),
    Case(
        "system-surroundings",
        "docker, a RunPod pod",
        lambda: machine(surroundings=Surroundings(container="docker", runpod=True)),
        machine,
    ),
    Case("memory-available", "the engine alone takes", lambda: machine(memory=_memory(available_mib=2000)), machine),
    Case(
        "memory-available",
        "slow or fail",
        lambda: machine(A40, memory=_memory(available_mib=8000)),
        lambda: machine(A40),
    ),
    Case("memory-limit", "limits this host to 8,192", lambda: machine(memory=_memory(limit_mib=8192)), machine),
    Case(
        "memory-shm",
        "64 MiB",
        lambda: machine(A100, memory=_memory(shm_mib=64)),
        lambda: machine(A100, memory=_memory()),
    ),
    Case(
        "memory-swap",
        "16,384 MiB of swap",
        lambda: machine(GB10, memory=_memory(swap_mib=16384)),
        lambda: machine(GB10, memory=_memory()),
    ),
    Case(
        "memory-unified",
        "0.75 of the host's memory",
        lambda: machine(GB10, memory=_memory(total_mib=122000, available_mib=50000)),
        lambda: machine(GB10, memory=_memory(total_mib=122000, available_mib=118000)),
    ),
    Case("disk-environment", "GB are free", lambda: machine(disks={"/": space(free_gib=2)}), machine),
    Case(
        "disk-links",
        "different file systems",
        lambda: machine(disks={"/data": space("/data")}, wishes=Options(prefix="/data/sgprov")),
        machine,
    ),
    Case(
        "disk-models",
        "5.0 GiB are free",
        lambda: machine(A100, disks={"/": space(free_gib=5)}),
        lambda: machine(A100),
    ),
    Case(
        "disk-inodes",
        "60,000 inodes",
        lambda: machine(disks={"/": space(inodes=60_000)}),
        lambda: machine(disks={"/": space(inodes=9_000_000)}),
    ),
    Case("disk-answers", "something is wrong", lambda: machine(problems=(problem("facts.disks"),)), machine),
    Case("disk-network", "(nfs4), over a network", lambda: machine(disks={"/": space(filesystem="nfs4")}), machine),
    Case(
        "disk-executable",
        "mounted with noexec",
        lambda: machine(files={"/proc/self/mounts": "/dev/vda1 / ext4 rw,noexec 0 0\n"}),
        lambda: machine(files={"/proc/self/mounts": "/dev/vda1 / ext4 rw,relatime 0 0\n"}),
    ),
    Case(
        "disk-temporary",
        "0.50 GiB are free",
        lambda: machine(disks={TEMPORARY: space(TEMPORARY, free_gib=0.5)}),
        machine,
    ),
    Case(
        "disk-survives",
        "gone with the pod",
        lambda: machine(A40, surroundings=Surroundings(runpod=True), wishes=Options(prefix="/opt/sgprov")),
        lambda: machine(A40, surroundings=Surroundings(runpod=True), disks={"/workspace": space("/workspace")}),
    ),
    Case(
        "directory-writable",
        "belongs to root (mode 755)",
        lambda: machine(paths={PREFIX: info(owner="root", is_directory=True, writable=False)}),
        lambda: machine(paths={PREFIX: info(is_directory=True)}),
    ),
    Case(
        "directory-writable",
        "is not a directory",
        lambda: machine(files={PREFIX: "a file"}),
        lambda: machine(paths={PREFIX: info(is_directory=True)}),
    ),
    Case(
        "directory-trusted",
        "belongs to mallory",
        lambda: machine(untrusted=PREFIX),
        lambda: machine(untrusted="/elsewhere"),
    ),
    Case(
        "directory-owner",
        "belongs to root, not to us",
        lambda: machine(
            answers=_ME, paths={PREFIX: replace(info(owner="root", is_directory=True, writable=False), uid=0)}
        ),
        lambda: machine(answers=_ME, paths={PREFIX: info(is_directory=True)}),
    ),
    Case(
        "directory-private",
        "(mode 644) is open",
        lambda: _record(0o644),
        lambda: _record(0o600),
    ),
    Case("limit-open-files", "4,096 files at most", lambda: _limited(files="4096"), _limited),
    Case("limit-locked-memory", "65,536 bytes", lambda: _limited(locked="65536"), _limited),
    Case("limit-processes", "at most 1,024", lambda: _limited(processes="1024"), _limited),
    Case("limit-processes", "at most 100", lambda: _limited(**{"/sys/fs/cgroup/pids.max": "100\n"}), _limited),
    Case(
        "port-free",
        "port 30000 is taken by pid 4711",
        lambda: machine(listeners=(ear(30000),)),
        lambda: machine(listeners=(ear(22),)),
    ),
    Case(
        "port-derived-free",
        "(derived from 30000)",
        lambda: _with_attention(ear(30233)),
        lambda: _with_attention(ear(30000)),
    ),
    Case(
        "port-privileged",
        "below 1024",
        lambda: _serving(80, answers=_ME, files={"/proc/sys/net/ipv4/ip_unprivileged_port_start": "1024\n"}),
        lambda: _serving(8080, answers=_ME, files={"/proc/sys/net/ipv4/ip_unprivileged_port_start": "1024\n"}),
    ),
    Case(
        "port-ephemeral",
        "32768 to 60999",
        lambda: _serving(40000, files={"/proc/sys/net/ipv4/ip_local_port_range": "32768\t60999\n"}),
        lambda: _serving(30000, files={"/proc/sys/net/ipv4/ip_local_port_range": "32768\t60999\n"}),
    ),
    Case("endpoint-open", "/update_weights_from_disk", lambda: _open(allow=True), machine),
    Case("endpoint-open", "asks for no key", lambda: _open(allow=True), _open),
    Case(
        "endpoint-open",
        "asks for no key",
        lambda: _open(allow=True),
        lambda: replace(_open(allow=True), credential=lambda name: "k" * 8 if name == "SGPROV_API_KEY" else None),
    ),
    Case(
        "endpoint-open",
        "asks for no key",
        lambda: _open(allow=True),
        lambda: _open(allow=True, paths={f"{PREFIX}/servers/a100/api-key": info(mode=0o600)}),
    ),
    Case("endpoint-open", "cannot ask for a key", lambda: _open("a40-lmdeploy"), lambda: _open("a40")),
    Case(
        "network-resolver",
        "no name server",
        lambda: machine(files={"/etc/resolv.conf": "search example.org\n"}),
        lambda: machine(files={"/etc/resolv.conf": "nameserver 10.0.0.2\n"}),
    ),
    Case("network-index", "does not resolve", lambda: _wheels_by_url("unknown"), lambda: _wheels_by_url("reached")),
    Case(
        "network-index",
        "mirror.test:443 refuses",
        lambda: machine(
            variables={"UV_DEFAULT_INDEX": "https://mirror.test/simple"},
            reached={"mirror.test:443": Reach(state="refused")},
        ),
        machine,
    ),
    Case(
        "network-hub",
        "gave no answer within 0.1 s",
        lambda: machine(A100, reached={"huggingface.co:443": Reach(state="silent")}),
        lambda: machine(A100, reached={"huggingface.co:443": Reach(state="reached")}),
    ),
    Case(
        "network-registry",
        "registry-1.docker.io does not resolve",
        lambda: machine(GB10, reached={"registry-1.docker.io:443": Reach(state="unknown")}),
        lambda: machine(GB10, reached={"registry-1.docker.io:443": Reach(state="reached")}),
    ),
    Case(
        "network-proxy",
        "does not spare this host",
        lambda: machine(variables={"HTTPS_PROXY": "http://proxy:3128"}),
        lambda: machine(variables={"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "localhost,127.0.0.1"}),
    ),
    Case(
        "network-interface",
        "NCCL_SOCKET_IFNAME=ib0 names no interface",
        lambda: machine(files={"/sys/class/net/eth0/operstate": "up"}, variables={"NCCL_SOCKET_IFNAME": "ib0"}),
        lambda: machine(files={"/sys/class/net/ib0/operstate": "up"}, variables={"NCCL_SOCKET_IFNAME": "ib0"}),
    ),
    Case(
        "network-interface-choice",
        "2 interfaces are up",
        lambda: _mesh(eth0="up", ib0="up"),
        lambda: _mesh(eth0="up", docker0="up"),
    ),
    Case(
        "network-infiniband",
        "mlx5_0 port 1 is DOWN",
        lambda: machine(H100, files={_IB: "1: DOWN\n"}),
        lambda: machine(H100, files={_IB: "4: ACTIVE\n"}),
    ),
    Case("slurm-controller", "no Slurm controller", lambda: _slurm(controller=False), lambda: _slurm(controller=True)),
    Case(
        "slurm-munge",
        "munge does not sign: munge: Error",
        lambda: _slurm(answers={"munge": answer(rc=6, err="munge: Error: Failed to access")}),
        lambda: _slurm(answers={"munge": answer()}),
    ),
    Case(
        "slurm-nodes",
        "2 drained, 1 down*",
        lambda: _slurm(answers={"sinfo": answer("drained 2\nidle 6\ndown* 1\n")}),
        lambda: _slurm(answers={"sinfo": answer("idle 8\n")}),
    ),
    Case("slurm-job", "not inside of a job", _slurm_here, lambda: _slurm(inside=True)),
)
