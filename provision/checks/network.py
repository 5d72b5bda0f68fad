"""Checks of the network: names, and the hosts that a target needs. A host out of reach is a finding, never a crash."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from urllib.parse import urlsplit

from provision.checks.base import Context, bootstrap, check, error, has_several_gpus, warning
from provision.environments import is_stamped, path_for
from provision.report import Finding
from provision.steps.model_files import locate

_check = partial(check, "network")
_HTTPS = 443
_HUB = "https://huggingface.co"
_INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL")
_PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
_INTERFACE_VARIABLES = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME")
_INTERFACES = "/sys/class/net"
_MANY = 2


@_check(
    "network-resolver",
    "A name server is configured",
    looks_at="/etc/resolv.conf",
    why="without one nothing can be downloaded by name",
    remedy="`nameserver ADDRESS` in /etc/resolv.conf; offline, a mirror (`UV_DEFAULT_INDEX`) by its address",
)
def network_resolver(context: Context) -> Iterator[Finding]:
    text = context.view.read("/etc/resolv.conf")
    if text is not None and not any(line.split()[:1] == ["nameserver"] for line in text.splitlines()):
        yield warning("/etc/resolv.conf names no name server", "add `nameserver ADDRESS` to /etc/resolv.conf")


@_check(
    "network-index",
    "The package index that was set can be reached",
    looks_at="the hosts of UV_DEFAULT_INDEX and UV_INDEX_URL, and of wheels that the lock takes from elsewhere",
    why="the wheels come from there; uv's own default is reached by uv alone, and not tried here",
    remedy="`export UV_DEFAULT_INDEX=…` with a mirror, or `export HTTPS_PROXY=…`",
    applies=lambda context: _to_install(context),  # noqa: PLW0108  # defined below
)
def network_index(context: Context) -> Iterator[Finding]:
    named = [url for name in _INDEX_VARIABLES if (url := context.view.variable(name))]
    lock = context.decision.lock if context.decision else None
    wheels = [one.url for one in lock.requirements if one.url] if lock else []
    yield from _unreachable(context, (*named, *wheels), "set a mirror (`UV_DEFAULT_INDEX`) or a proxy (`HTTPS_PROXY`)")


@_check(
    "network-hub",
    "The model hub can be reached",
    looks_at="HF_ENDPOINT or huggingface.co, where the model is not on this host",
    why="the model comes from there; without it a copy has to be brought another way",
    remedy="`export HF_ENDPOINT=…` with a mirror, `export HTTPS_PROXY=…`, or `sgprov bootstrap --model DIR`",
    applies=lambda context: _from_hub(context),  # noqa: PLW0108
)
def network_hub(context: Context) -> Iterator[Finding]:
    hub = context.view.variable("HF_ENDPOINT") or _HUB
    yield from _unreachable(
        context, (hub,), "`export HTTPS_PROXY=…`, or bring the model: " + bootstrap(context, "--model DIR")
    )


@_check(
    "network-registry",
    "The image registry can be reached",
    looks_at="the registry of the chosen image",
    why="the image comes from there",
    remedy="`docker load` from another host, or a proxy for the daemon: `sudo systemctl edit docker`",
    applies=lambda context: bool(context.decision and context.decision.image),
)
def network_registry(context: Context) -> Iterator[Finding]:
    image = context.decision.image if context.decision else None
    registry = {"docker.io": "registry-1.docker.io"}.get(image.registry, image.registry) if image else ""
    yield from _unreachable(context, (f"https://{registry}",), "a proxy for the daemon: `sudo systemctl edit docker`")


@_check(
    "network-proxy",
    "The proxy is not asked for this host itself",
    looks_at="HTTPS_PROXY, HTTP_PROXY and NO_PROXY",
    why="health checks of the server on 127.0.0.1 would go through the proxy, and fail there",
    remedy="`export NO_PROXY=localhost,127.0.0.1`",
)
def network_proxy(context: Context) -> Iterator[Finding]:
    names = (*_PROXIES, "HTTP_PROXY", "http_proxy")
    if not any(context.view.variable(name) for name in names):
        return
    spared = context.view.variable("NO_PROXY") or context.view.variable("no_proxy") or ""
    if not {"127.0.0.1", "localhost", "*"} & {part.strip() for part in spared.split(",")}:
        yield warning("a proxy is set and NO_PROXY does not spare this host", "`export NO_PROXY=localhost,127.0.0.1`")


@_check(
    "network-interface",
    "The interfaces that NCCL is told to use are there",
    looks_at="NCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME and TP_SOCKET_IFNAME against /sys/class/net",
    why="with a name that is not there every rank fails: `Bootstrap : no socket interface found`",
    remedy="`ip -br link` lists them; then `export NCCL_SOCKET_IFNAME=…`",
)
def network_interface(context: Context) -> Iterator[Finding]:
    names = {path.rsplit("/", 1)[-1] for path in context.view.glob(f"{_INTERFACES}/*")}
    for variable in _INTERFACE_VARIABLES:
        value = context.view.variable(variable) or ""
        # `^docker` excludes, `=eth0` is exact, `eth` is a beginning.
        wanted = [] if value.startswith("^") else [part for part in value.lstrip("=").split(",") if part]
        if names and wanted and not any(name.startswith(tuple(wanted)) for name in names):
            yield error(
                f"{variable}={value} names no interface of this host ({', '.join(sorted(names))})",
                f"`unset {variable}`, or `export {variable}={min(names - {'lo'} or names)}`",
            )


@_check(
    "network-interface-choice",
    "NCCL cannot choose the wrong interface",
    looks_at="on Slurm nodes: interfaces that are up, besides those of containers, where NCCL_SOCKET_IFNAME is not set",
    why="between nodes NCCL takes the first one, which may be the slow or the unconnected one: a hang without a word",
    remedy="`export NCCL_SOCKET_IFNAME=…` with the fast one's name",
    applies=lambda context: context.facts.slurm is not None and has_several_gpus(context),
)
def network_interface_choice(context: Context) -> Iterator[Finding]:
    up = []
    for path in context.view.glob(f"{_INTERFACES}/*"):
        name = path.rsplit("/", 1)[-1]
        state = (context.view.read(f"{path}/operstate") or "").strip()
        if state == "up" and not name.startswith(("lo", "docker", "veth", "br-", "virbr", "cni")):
            up.append(name)
    if len(up) >= _MANY and not context.view.variable("NCCL_SOCKET_IFNAME"):
        yield warning(
            f"{len(up)} interfaces are up ({', '.join(up)}) and NCCL may take any",
            f"`export NCCL_SOCKET_IFNAME={up[0]}`",
        )


@_check(
    "network-infiniband",
    "Every InfiniBand port is up",
    looks_at="/sys/class/infiniband/*/ports/*/state",
    why="NCCL falls back to TCP without a word where a port is down: a tenth of the speed between nodes",
    remedy="`ibstat`; then cable, switch port, subnet manager",
    applies=lambda context: bool(context.view.glob("/sys/class/infiniband/*")),
)
def network_infiniband(context: Context) -> Iterator[Finding]:
    for path in context.view.glob("/sys/class/infiniband/*/ports/*/state"):
        state = (context.view.read(path) or "").strip()
        if state and "ACTIVE" not in state:
            yield warning(f"{path.split('/')[4]} port {path.split('/')[6]} is {state.split(': ')[-1]}", "`ibstat`")


def _unreachable(context: Context, urls: tuple[str, ...], fix: str) -> Iterator[Finding]:
    proxy = next((url for name in _PROXIES if (url := context.view.variable(name))), None)
    # Behind a proxy this host need not resolve anything else.
    places = {_place(url) for url in ((proxy,) if proxy and urls else urls)}
    for host, port in sorted(place for place in places if place[0]):
        reach = context.view.reach(host, port, timeout_s=context.network_wait_s)
        if reach is None or reach.state == "reached":
            continue
        told = {
            "unknown": f"the name {host} does not resolve",
            "refused": f"{host}:{port} refuses connections",
            "silent": f"{host}:{port} gave no answer within {context.network_wait_s:g} s",
        }[reach.state]
        more = ("`sgprov doctor network --wait 10` waits longer",) if reach.state == "silent" else ()
        yield warning(told, fix, *more, host=host, port=port)


def _place(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url if "//" in url else f"//{url}")
        port = parts.port or (80 if parts.scheme == "http" else _HTTPS)
    except ValueError:
        return "", 0
    return parts.hostname or "", port


def _to_install(context: Context) -> bool:
    lock = context.decision.lock if context.decision else None
    return lock is not None and not is_stamped(context.view, path_for(context.places.prefix, lock), lock)


def _from_hub(context: Context) -> bool:
    model, places = context.serve.model or "", context.places
    if not context.decision or "/" not in model or model.startswith(("/", ".", "~", "builtin:")):
        return False
    return locate(context.view, model, models=places.models, huggingface=places.huggingface) is None


CHECKS = (
    *(network_resolver, network_index, network_hub, network_registry, network_proxy),
    *(network_interface, network_interface_choice, network_infiniband),
)
