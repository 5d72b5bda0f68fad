"""What this host runs inside of, and which container engines it has."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from provision.errors import ProbeError
from provision.facts.model import ContainerEngine, Surroundings
from provision.host import HostView, Outcome

_CDI = ("/etc/cdi/*", "/var/run/cdi/*")
# What a control group's name says of who made it.
_GROUPS = (("kubepods", "kubernetes"), ("libpod", "podman"), ("docker", "docker"), ("containerd", "containerd"))


def probe_surroundings(view: HostView) -> Surroundings:
    """Whether we are in a container, in a RunPod pod, under WSL."""
    pod = view.variable("RUNPOD_POD_ID")
    wsl = "microsoft" in (view.read("/proc/version") or "").lower() or view.stat("/dev/dxg") is not None
    return Surroundings(container=_container(view), runpod=pod is not None, runpod_pod=pod, wsl=wsl)


def _container(view: HostView) -> str | None:
    if view.variable("KUBERNETES_SERVICE_HOST"):
        return "kubernetes"
    if view.stat("/.singularity.d") or view.variable("APPTAINER_CONTAINER"):
        return "apptainer"
    if view.stat("/run/.containerenv"):
        return "podman"
    if view.stat("/.dockerenv"):
        return "docker"
    return parse_init_groups(view.read("/proc/1/cgroup") or "") or view.variable("container") or None


def parse_init_groups(text: str) -> str | None:
    """Parse /proc/1/cgroup, e.g. `12:memory:/docker/1f9a…`; None for `0::/init.scope`, which is a whole machine."""
    return next((name for mark, name in _GROUPS if mark in text), None)


def probe_docker(view: HostView) -> ContainerEngine | None:
    """Docker: not installed (None), not running, not ours to ask, and running are four answers."""
    outcome = view.query(["docker", "info", "--format", "{{json .}}"])
    if not outcome.installed:
        return None
    if outcome.rc is None:
        raise ProbeError(f"`docker info` {outcome.ending}", hint="`sudo systemctl restart docker`")
    engine = parse_docker(outcome.out, outcome.err)
    runtime = engine.nvidia_runtime or parse_daemon(view.read("/etc/docker/daemon.json") or "")
    return replace(engine, nvidia_runtime=runtime, cdi=engine.cdi or _cdi(view))


def parse_docker(out: str, err: str = "") -> ContainerEngine:
    """Parse, e.g., `{"ServerVersion": "28.0.1", "Runtimes": {"nvidia": {…}, "runc": {…}}, "SecurityOptions": […]}`.

    Without a daemon the object is there all the same, empty but for `ServerErrors`, or there is only a message.
    """
    given = _object(out)
    if "host" in given and "version" in given:
        # podman-docker answers to the name of docker.
        return parse_podman(out)
    errors = " ".join(str(error) for error in _list(given.get("ServerErrors"))) or err
    version = given.get("ServerVersion")
    if not isinstance(version, str) or not version:
        return ContainerEngine(name="docker", problem=_docker_problem(errors))
    runtimes = given.get("Runtimes")
    devices = [str(device) for device in _list(given.get("DiscoveredDevices"))]
    options = [str(option) for option in _list(given.get("SecurityOptions"))]
    return ContainerEngine(
        name="docker",
        version=version,
        running=True,
        nvidia_runtime=isinstance(runtimes, dict) and "nvidia" in runtimes,
        cdi=any("nvidia.com/gpu" in device for device in devices),
        rootless=any("rootless" in option for option in options),
    )


def _docker_problem(said: str) -> str:
    if "permission denied" in said.lower():
        return "permission denied: this user may not use Docker (`sudo usermod -aG docker USER`, then log in again)"
    if re.search(r"cannot connect|is the docker daemon running|connection refused", said, re.IGNORECASE):
        return "the daemon is not running (`sudo systemctl start docker`)"
    return f"Docker gives no server version: {said.strip()[:200] or 'it says nothing'}"


def parse_daemon(text: str) -> bool:
    """Whether /etc/docker/daemon.json names the NVIDIA runtime: `{"runtimes": {"nvidia": {"path": …}}}`."""
    runtimes = _object(text).get("runtimes")
    return isinstance(runtimes, dict) and "nvidia" in runtimes


def probe_podman(view: HostView) -> ContainerEngine | None:
    """Podman, which has no daemon: it runs where it is installed. It hands out GPUs by CDI only."""
    # Not `podman info`, which asks the package manager about four files: six times as long, for nothing that we use.
    outcome = view.query(["podman", "version", "--format", "json"])
    if not outcome.installed:
        return None
    if outcome.rc is None:
        raise ProbeError(f"`podman version` {outcome.ending}", hint="`podman system migrate` ends what it waits for")
    return replace(_podman(outcome), nvidia_runtime=False, cdi=_cdi(view))


def _podman(outcome: Outcome) -> ContainerEngine:
    if not outcome.ok:
        return ContainerEngine(name="podman", problem=f"`podman version` {outcome.ending}: {outcome.err.strip()[:200]}")
    return parse_podman(outcome.out)


def parse_podman(text: str) -> ContainerEngine:
    """Parse, e.g., `{"Client": {"Version": "4.9.3"}}`, which is `podman version`.

    `docker info` of podman-docker is `{"host": {"security": {"rootless": true}}, "version": {"Version": "4.9.3"}}`.
    """
    given = _object(text)
    version, host = given.get("Client") or given.get("version"), given.get("host")
    security = host.get("security") if isinstance(host, dict) else None
    number = version.get("Version") if isinstance(version, dict) else None
    if not isinstance(number, str):
        return ContainerEngine(name="podman", problem="podman names no version")
    rootless = bool(security.get("rootless")) if isinstance(security, dict) else False
    return ContainerEngine(name="podman", version=number, running=True, rootless=rootless)


def _cdi(view: HostView) -> bool:
    """Whether a device specification for NVIDIA GPUs is where engines look for one."""
    files = [path for pattern in _CDI for path in view.glob(pattern) if path.endswith((".yaml", ".yml", ".json"))]
    return any("nvidia.com/gpu" in (view.read(path) or "") for path in files)


def _object(text: str) -> dict[str, Any]:
    try:
        given = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError):
        return {}
    return given if isinstance(given, dict) else {}


def _list(given: object) -> list[Any]:
    return given if isinstance(given, list) else []
