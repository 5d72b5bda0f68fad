"""Cases of the checks of credentials, containers and servers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
from unit.checks.machines import A40, GB10, HOME, PREFIX, Case, info, machine, process

from provision.catalog.rows import Serve
from provision.checks.base import Context
from provision.config import Options
from provision.facts.model import ContainerEngine
from provision.host import Reach
from provision.serving.launch import Inside
from provision.serving.record import Server

_DOCKER = ContainerEngine(name="docker", version="28.3.3", running=True, nvidia_runtime=True)
_NIM = Options(target="gb10-nim")
_LLAMA = Options(target="a40", model="meta-llama/Llama-3.1-8B-Instruct")
_KEY = "nvapi-" + "k" * 60


def _server(
    state: str = "ready", *, leader: bool = True, child: bool = False, reach: str = "reached", **changes: Any
) -> Context:
    """A machine with the record of a server, whose processes are there or not."""
    given = Server(
        id="s1",
        name="mine",
        directory=f"{PREFIX}/servers/mine",
        engine="sglang",
        version="0.5.23",
        stack="sglang-0.5.23",
        model="m",
        url="http://127.0.0.1:30000",
        argv=("python",),
        variables={},
        log=f"{PREFIX}/servers/mine/log",
        started="2026-01-31T10:20:30+00:00",
        machine="box",
        boot="b1",
        state=state,  # type: ignore[arg-type]
        pid=900,
        started_ticks=5000,
        **changes,
    )
    files = {
        f"{PREFIX}/servers/mine/server.json": msgspec.json.encode(given).decode(),
        "/proc/sys/kernel/random/boot_id": "b1\n",
        "/proc/sys/kernel/hostname": "box\n",
    }
    if leader:
        files["/proc/900/stat"] = _stat(900, parent=1)
    if child:
        files["/proc/901/stat"] = _stat(901, parent=1)
        files["/proc/901/environ"] = "SGPROV_SERVER=s1\0"
    return machine(files=files, reached={"127.0.0.1:30000": Reach(state=reach)})  # type: ignore[arg-type]


def _stat(pid: int, *, parent: int) -> str:
    fields = ["S", str(parent), str(pid), "900", *["0"] * 15, "5000", "0"]
    return f"{pid} (python) {' '.join(fields)}"


def _engines(
    *engines: ContainerEngine, wishes: Options | None = None, files: Mapping[str, str] | None = None
) -> Context:
    made = machine(GB10, wishes=wishes, files=files)
    return replace(machine(GB10, wishes=wishes, files=files, engines=engines), network_wait_s=made.network_wait_s)


def _docker_login(*, mode: int) -> Context:
    path = f"{HOME}/.docker/config.json"
    return machine(files={path: json.dumps({"auths": {"nvcr.io": {"auth": "x"}}})}, paths={path: info(mode=mode)})


CASES = (
    Case(
        "credential-ngc",
        "no key for nvcr.io",
        lambda: machine(GB10, wishes=_NIM),
        lambda: machine(GB10, wishes=_NIM, secrets={"NGC_API_KEY": _KEY}),
    ),
    Case(
        "credential-ngc-shape",
        "12 characters, with quotes around it",
        lambda: machine(secrets={"NGC_API_KEY": '"nvapi-abcd"'}),
        lambda: machine(secrets={"NGC_API_KEY": "A" * 84 + "=="}),
    ),
    Case(
        "credential-hf",
        "is gated",
        lambda: machine(A40, wishes=_LLAMA),
        lambda: machine(A40, wishes=_LLAMA, secrets={"HF_TOKEN": "hf_" + "a" * 34}),
    ),
    Case(
        "credential-hf-shape",
        "5 characters",
        lambda: machine(secrets={"HF_TOKEN": "hello"}),
        lambda: machine(secrets={"HF_TOKEN": "hf_" + "a" * 34}),
    ),
    Case(
        "credential-files",
        "(mode 644) is open",
        lambda: _docker_login(mode=0o644),
        lambda: _docker_login(mode=0o600),
    ),
    Case(
        "credential-docker-plain",
        "the logins of nvcr.io unencrypted",
        lambda: _docker_login(mode=0o600),
        machine,
    ),
    Case(
        "container-engine",
        "neither Docker nor Podman",
        lambda: _engines(wishes=_NIM),
        lambda: _engines(_DOCKER, wishes=_NIM),
    ),
    Case(
        "container-daemon",
        "permission denied",
        lambda: _engines(ContainerEngine(name="docker", problem="permission denied: this user"), wishes=_NIM),
        lambda: _engines(_DOCKER, wishes=_NIM),
    ),
    Case(
        "container-gpus",
        "cannot hand out GPUs",
        lambda: _engines(replace(_DOCKER, nvidia_runtime=False), wishes=_NIM),
        lambda: _engines(_DOCKER, wishes=_NIM),
    ),
    Case(
        "container-cdi",
        "has a CDI file and no NVIDIA runtime",
        lambda: _engines(replace(_DOCKER, version="27.1.0", nvidia_runtime=False, cdi=True)),
        lambda: _engines(_DOCKER),
    ),
    Case("container-cdi", "is rootless", lambda: _engines(replace(_DOCKER, rootless=True)), lambda: _engines(_DOCKER)),
    Case(
        "container-image-arch",
        "are for arm64, this host is amd64",
        lambda: machine(GB10.replace("aarch64", "x86_64"), wishes=_NIM),
        lambda: machine(GB10, wishes=_NIM),
    ),
    Case(
        "container-default-runtime",
        "default runtime",
        lambda: _engines(_DOCKER, files={"/etc/docker/daemon.json": '{"default-runtime": "nvidia"}'}),
        lambda: _engines(_DOCKER),
    ),
    Case("server-alive", "ended by itself", lambda: _server(leader=False), _server),
    Case(
        "endpoint-open",
        "`mine` runs: the server on `0.0.0.0` asks for no key",
        lambda: _server(serve=Serve(host="0.0.0.0")),
        lambda: _server(serve=Serve(host="0.0.0.0"), key_file=f"{PREFIX}/servers/mine/api-key"),
    ),
    Case(
        "endpoint-open",
        "`mine` runs: the server on `::`",
        lambda: _server(container=Inside(program="docker", name="sgprov-mine", port=30000, address="::")),
        lambda: _server(container=Inside(program="docker", name="sgprov-mine", port=30000)),
    ),
    Case("server-answers", "is refused", lambda: _server(reach="refused"), _server),
    Case(
        "server-orphans",
        "left 1 processes behind (901)",
        lambda: _server(leader=False, child=True),
        lambda: _server(child=True),
    ),
    Case(
        "server-foreign",
        "left behind by its parent: pid 77",
        lambda: machine(running=(process(77, "python -m sglang.launch_server --model m"),)),
        lambda: machine(running=(process(77, "python -m http.server"),)),
    ),
    Case("server-failed", "failed", lambda: _server("failed", leader=False), _server),
    Case("server-kept-up", "nobody does so any more", lambda: _server(supervised=True), _server),
    Case(
        "server-record",
        "is damaged: it is empty",
        lambda: machine(files={f"{PREFIX}/servers/mine/server.json": ""}),
        _server,
    ),
)
