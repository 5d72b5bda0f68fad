"""Containers for real: what is started, found, stopped, refused and named, with a stand-in of our own for NIM."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from live import nim_stand_in, parts
from live.real_command import sgprov
from live.test_login import Watcher
from msgspec import structs

from provision import launches, plan, runner
from provision.catalog.load import Catalog
from provision.config import Options
from provision.containers import engine, images
from provision.containers.names import unique_name
from provision.decision import Decision, Hosting, Places
from provision.errors import ProvisionError, ServingFailed, StepFailed
from provision.host import Outcome
from provision.host.local import LocalHost
from provision.plan import Plan
from provision.report import Report, Status
from provision.serving import contained, record, server, status
from provision.steps.base import Progress
from provision.steps.cache_directory import CacheDirectory
from provision.steps.image import PullImage
from provision.steps.port import Port

pytestmark = [pytest.mark.container, pytest.mark.usefixtures("real_machine")]
KEY = "nvapi-planted" + "C" * 51
NAME = "sgprov-test-nim"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    return nim_stand_in.build(tmp_path_factory.mktemp("image"))


@pytest.fixture
def host() -> LocalHost:
    kept = ("PATH", "HOME", "LANG", "DOCKER_CONFIG")
    return LocalHost({name: os.environ[name] for name in kept if name in os.environ})


@pytest.fixture
def prefix(tmp_path: Path, host: LocalHost) -> Iterator[str]:
    yield str(tmp_path)
    for name in record.names(host, f"{tmp_path}/servers"):
        server.stop(host, f"{tmp_path}/servers", name=name, grace_s=1)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("NGC_API_KEY", KEY)
    return KEY


def nim(
    host: LocalHost,
    prefix: str,
    image: str,
    port: int,
    *,
    restarts: int = 0,
    program: Literal["docker", "podman"] = "docker",
    name: str = "test-nim",
) -> Plan:
    """The plan of a NIM target, but for the login and for GPUs, with the stand-in for its image."""
    catalog = Catalog()
    row = catalog.image("nim-llama-3.1-8b-instruct")
    target = catalog.target("nim")
    decision = Decision(
        target=target,
        places=Places(prefix=prefix, models=f"{prefix}/models", huggingface=f"{prefix}/hf", nim=f"{prefix}/nim"),
        serve=structs.replace(target.serve, model=row.model, port=port, host="127.0.0.1"),
        image=structs.replace(row, reference=image, login=False),
        hosting=Hosting(program=program, reference=image, arch="amd64"),
    )
    launch = launches.of(host, decision, None, Options(), name=name, restarts=restarts)
    return plan.build(decision, launch, name=name, model=None)


def applied(made: Plan, host: LocalHost) -> Report:
    report = runner.apply(made, host)
    assert report.ok, report
    return report


def test_the_life_of_a_nim(host: LocalHost, prefix: str, image: str) -> None:
    port = parts.free_port()
    report = applied(nim(host, prefix, image, port), host)
    statuses = {step.step: step.status for step in report.steps}
    assert statuses == {
        "directories": Status.DONE,
        "image": Status.ALREADY,
        "cache": Status.DONE,
        "port": Status.ALREADY,
        "server": Status.DONE,
        "smoke": Status.CHECKED,
        "receipt": Status.DONE,
    }
    assert (Path(prefix, "nim").stat().st_uid, Path(prefix, "nim").stat().st_mode & 0o777) == (nim_stand_in.USER, 0o755)
    assert (Path(prefix) / "nim" / "model.bin").read_bytes() == b"weights"
    again = applied(nim(host, prefix, image, port), host)
    assert not again.changed, "a second run changes nothing"
    known = server.known(host, f"{prefix}/servers", name="test-nim")
    now = status.status(host, known)
    assert (now.health, known.container and known.container.name) == ("running", unique_name(prefix, "test-nim"))
    assert "Application startup complete" in Path(known.log).read_text()
    receipt = json.loads(Path(prefix, "receipt.json").read_text())
    assert receipt["image"] == image and receipt["image_digest"].startswith("sha256:")
    assert server.stop(host, f"{prefix}/servers", name="test-nim")
    assert status.status(host, server.known(host, f"{prefix}/servers", name="test-nim")).health == "stopped"
    assert parts.docker("ps", "--all", "--quiet", "--filter", f"name={NAME}") == "", "its name and port are free"
    assert not server.stop(host, f"{prefix}/servers", name="test-nim")


def test_a_planted_key_is_in_the_container_and_nowhere_else(host: LocalHost, prefix: str, image: str, key: str) -> None:
    watcher = Watcher(key)
    with watcher:
        made = nim(host, prefix, image, parts.free_port())
        report = applied(made, host)
    assert watcher.arguments == []
    # The engine's client is given it, and the container's own processes.
    assert {name.partition("3.")[0] for name in watcher.environments} <= {
        "docker",
        "python",
        "docker-init",
        "runc",
        "runc:[2:INIT]",
        "exe",
    }
    assert key not in repr(report) + repr(made)
    left = [path for path in Path(prefix).rglob("*") if path.is_file() and key in path.read_text(errors="replace")]
    assert left == []
    assert key not in parts.docker("logs", unique_name(prefix, "test-nim"))
    follower = record.members(host, server.known(host, f"{prefix}/servers", name="test-nim"))
    commands = {one.pid: (host.read(f"/proc/{one.pid}/cmdline") or "").split("\0") for one in follower}
    logs = next(pid for pid, words in commands.items() if words[:2] == ["docker", "logs"])
    assert key not in (host.read(f"/proc/{logs}/environ") or "")


def test_without_its_key_it_is_not_started(
    host: LocalHost, prefix: str, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NGC_API_KEY", raising=False)
    report = runner.apply(nim(host, prefix, image, parts.free_port()), host)
    failed = next(step for step in report.steps if step.status is Status.FAILED)
    assert failed.step == "server" and "NGC_API_KEY is not set" in (failed.error or "")
    assert parts.docker("ps", "--all", "--quiet", "--filter", f"name={NAME}") == ""


def test_a_server_that_dies_at_once_says_why(
    host: LocalHost, prefix: str, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NGC_API_KEY", "not-a-key")
    report = runner.apply(nim(host, prefix, image, parts.free_port()), host)
    failed = next(step for step in report.steps if step.status is Status.FAILED)
    assert failed.step == "server"
    assert "its container exited 1" in (failed.error or "")
    assert "NGC_API_KEY is not set: the model cannot be downloaded" in (failed.error or "")


def test_a_killed_container_is_noticed_within_a_second(host: LocalHost, prefix: str, image: str) -> None:
    applied(nim(host, prefix, image, parts.free_port()), host)
    known = server.known(host, f"{prefix}/servers", name="test-nim")
    # From outside: root in the container has no right to.
    inside = Path(f"/proc/{known.pid}/task/{known.pid}/children").read_text().split()[0]
    start = time.monotonic()
    os.kill(int(inside), signal.SIGKILL)
    # For a moment it only refuses connections: its container ends when its first process does.
    while (now := status.status(host, known)).health != "dead" and time.monotonic() - start < 5:
        time.sleep(0.01)
    took = time.monotonic() - start
    assert now.health == "dead" and "killed by signal 9" in now.text, now
    assert took < 1.0, took
    server.stop(host, f"{prefix}/servers", name="test-nim")


def test_its_engine_starts_it_again(host: LocalHost, prefix: str, image: str) -> None:
    applied(nim(host, prefix, image, parts.free_port(), restarts=3), host)
    known = server.known(host, f"{prefix}/servers", name="test-nim")
    assert known.pid
    os.kill(known.pid, 9)
    deadline = time.monotonic() + 30
    while (now := status.status(host, known)).health != "running" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert now.health == "running" and now.server.pid != known.pid
    seen = engine.look(host, "docker", unique_name(prefix, "test-nim"))
    assert isinstance(seen, engine.Seen) and seen.restarts == 1
    adopted = contained.adopt(host, known)
    assert adopted.pid == now.server.pid and Path(f"{known.log}.1").exists()
    contained.settle(host, known)
    assert Path(known.log).read_text().count("starting on port 8000") == 1, "the log is of its new life"
    assert status.status(host, adopted).health == "running"
    assert server.stop(host, f"{prefix}/servers", name="test-nim")
    assert parts.docker("ps", "--all", "--quiet", "--filter", f"name={NAME}") == ""


def test_a_port_that_another_container_has_names_it(host: LocalHost, prefix: str, image: str) -> None:
    port = parts.free_port()
    parts.docker(
        "run",
        "--detach",
        "--name",
        "sgprov-test-squatter",
        "--env",
        "NGC_API_KEY=nvapi-x",
        "--publish",
        f"127.0.0.1:{port}:8000",
        image,
    )
    try:
        made = nim(host, prefix, image, port)
        failed = next(s for s in runner.apply(made, host).steps if s.status is Status.FAILED)
        assert failed.step == "port"
        assert failed.error == f"port {port} is taken by the container `sgprov-test-squatter` ({image})"
        assert "docker stop sgprov-test-squatter" in (failed.hint or "")
        Path(prefix, "nim").mkdir(exist_ok=True)
        with pytest.raises(ServingFailed, match="taken by the container `sgprov-test-squatter`"):
            server.start(host, f"{prefix}/servers", made.launch, name="test-nim")
        assert parts.docker("ps", "--all", "--quiet", "--filter", f"name={NAME}") == ""
    finally:
        parts.docker("rm", "--force", "sgprov-test-squatter")


def test_a_container_of_somebody_else_is_not_touched(host: LocalHost, prefix: str, image: str) -> None:
    name = unique_name(prefix, "test-nim")
    parts.docker("create", "--name", name, image)
    try:
        with pytest.raises(ServingFailed, match=f"a container called `{name}` is here, and sgprov did not start it"):
            server.start(host, f"{prefix}/servers", nim(host, prefix, image, parts.free_port()).launch, name="test-nim")
    finally:
        parts.docker("rm", "--force", name)


def test_a_daemon_that_is_down(prefix: str, image: str) -> None:
    host = LocalHost({"PATH": os.environ["PATH"], "DOCKER_HOST": f"unix://{prefix}/none.sock"})
    with pytest.raises(ProvisionError) as caught:
        server.start(host, f"{prefix}/servers", nim(host, prefix, image, parts.free_port()).launch, name="test-nim")
    assert "systemctl start docker" in (caught.value.hint or ""), caught.value


def test_a_daemon_that_is_down_is_said_before_anything_is_changed(tmp_path: Path) -> None:
    where = ("--prefix", str(tmp_path / "prefix"), "--container-engine", "docker")
    down = f"unix://{tmp_path}/none.sock"
    ran = sgprov("bootstrap", "--target", "cpu", "--image", "debian:12", *where, "--json", DOCKER_HOST=down)
    assert ran.rc == 3, ran.out + ran.err
    assert "docker: the daemon is not running (`sudo systemctl start docker`)" in ran.json["error"]["text"]
    assert not (tmp_path / "prefix").exists()


def test_a_daemon_without_the_nvidia_runtime(host: LocalHost, prefix: str, image: str) -> None:
    launch = nim(host, prefix, image, parts.free_port()).launch
    words = list(launch.argv)
    launch = replace(launch, argv=(*words[:3], "--gpus", "all", *words[3:]))
    Path(prefix, "nim").mkdir()
    with pytest.raises(StepFailed, match="cannot hand out GPUs: it has no NVIDIA runtime"):
        server.start(host, f"{prefix}/servers", launch, name="test-nim")


def test_an_image_of_the_wrong_architecture_is_refused_with_the_right_one_named(host: LocalHost, image: str) -> None:
    step = PullImage(program="docker", reference=image, arch="arm64", instead="sglang-latest-cu130")
    assert not step.satisfied(host)
    with pytest.raises(StepFailed, match=re.escape(f"`{image}` is for amd64, this machine is arm64")) as caught:
        step.apply(host, lambda _: None)
    assert caught.value.hint == "take `sglang-latest-cu130`, which is for arm64"


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT RUN: only root can give directories away")
def test_a_cache_of_somebody_else_is_given_to_the_images_user(host: LocalHost, prefix: str, image: str) -> None:
    cache = Path(prefix, "cache")
    (cache / "old").mkdir(parents=True)
    cache.chmod(0o777)
    os.chown(cache, 4711, 4711)
    step = CacheDirectory(path=str(cache), program="docker", image=image, user=None)
    assert not step.satisfied(host)
    step.apply(host, lambda _: None)
    assert (cache.stat().st_uid, cache.stat().st_mode & 0o777, (cache / "old").stat().st_uid) == (1000, 0o755, 1000)
    ran = subprocess.run(["setpriv", "--reuid", "4712", "--clear-groups", "touch", str(cache / "x")], check=False)
    assert ran.returncode != 0, "nobody else can write it"


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT RUN: only root can make a directory of somebody else")
def test_a_cache_of_somebody_else_is_not_taken_by_who_may_not(tmp_path: Path, image: str) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    os.chown(cache, 4711, 4711)

    class Unprivileged(LocalHost):
        """Runs what changes something as a user who may not give directories away."""

        def run(self, argv: Sequence[str], **more: Any) -> Outcome:
            return super().run(["setpriv", "--reuid", "4712", "--clear-groups", *argv], **more)

    step = CacheDirectory(path=str(cache), program="docker", image=image, user="4712:4712")
    with pytest.raises(
        StepFailed, match=f"`{cache}` belongs to .*4711.*, and the container runs as user 4712"
    ) as caught:
        step.apply(Unprivileged({"PATH": os.environ["PATH"]}), lambda _: None)
    assert f"`sudo chown -R 4712 {cache}`" in (caught.value.hint or "")
    assert (cache.stat().st_uid, cache.stat().st_mode & 0o777) == (4711, 0o755), "it stays as it was"


def test_pull_by_digest_from_a_registry_with_a_login(tmp_path: Path) -> None:
    told: list[Progress] = []
    with parts.registry(tmp_path, KEY) as registry:
        reference = f"{registry.host}/nim/stand-in:1"
        (tmp_path / "layer").write_bytes(os.urandom(3_000_000))
        subprocess.run(["tar", "-C", str(tmp_path), "-cf", str(tmp_path / "image.tar"), "layer"], check=True)
        parts.docker("import", str(tmp_path / "image.tar"), reference)
        logged_in = LocalHost({"PATH": os.environ["PATH"], "HOME": str(tmp_path)})
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        for words, given in (
            (["docker", "login", "-u", parts.USER, "--password-stdin", registry.host], KEY),
            (["docker", "push", "--quiet", reference], ""),
        ):
            subprocess.run(words, input=given, env=environment, text=True, check=True, capture_output=True)
        digest = parts.docker("image", "inspect", "--format", "{{index .RepoDigests 0}}", reference).partition("@")[2]
        parts.docker("rmi", reference)
        by_digest = f"{registry.host}/nim/stand-in@{digest}"
        step = PullImage(program="docker", reference=by_digest, arch="amd64")
        try:
            with pytest.raises(StepFailed, match="does not let this machine fetch") as caught:
                step.apply(LocalHost({"PATH": os.environ["PATH"], "HOME": str(tmp_path / "nobody")}), lambda _: None)
            assert f"sgprov login {registry.host}" in (caught.value.hint or "")
            found = step.apply(logged_in, told.append)
            assert found.data["image_digest"] == digest
            assert step.satisfied(logged_in)
            totals = [one for one in told if one.total]
            assert totals and totals[-1].done == totals[-1].total, "every byte was told"
            wrong = PullImage(program="docker", reference=by_digest, arch="arm64", instead="other")
            with pytest.raises(StepFailed, match="is for amd64, this machine is arm64"):
                wrong.apply(logged_in, lambda _: None)
        finally:
            parts.docker("rmi", by_digest, check=False)


def test_a_pull_that_is_broken_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_PAUSE_S", 0.1)
    machine = LocalHost({"PATH": os.environ["PATH"], "HOME": str(tmp_path)})
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    told: list[str] = []
    with parts.registry(tmp_path, KEY) as registry, parts.breaking_line(registry.host) as line:
        here, there = f"{registry.host}/nim/broken:1", f"{line.host}/nim/broken:1"
        (tmp_path / "layer").write_bytes(os.urandom(3_000_000))
        subprocess.run(["tar", "-C", str(tmp_path), "-cf", str(tmp_path / "image.tar"), "layer"], check=True)
        parts.docker("import", str(tmp_path / "image.tar"), here)
        for words, given in (
            (["docker", "login", "-u", parts.USER, "--password-stdin", registry.host], KEY),
            (["docker", "login", "-u", parts.USER, "--password-stdin", line.host], KEY),
            (["docker", "push", "--quiet", here], ""),
        ):
            subprocess.run(words, input=given, env=environment, text=True, check=True, capture_output=True)
        parts.docker("rmi", here)
        remote = images.ask(machine, there, "amd64")
        assert remote and len(remote.layers) == 1
        layer = next(iter(remote.layers))
        line.cuts |= {("HEAD", "/manifests/"), ("GET", f"/blobs/sha256:{layer}")}
        try:
            step = PullImage(program="docker", reference=there, arch="amd64")
            found = step.apply(machine, lambda progress: told.append(progress.text))
            assert found.data["image_digest"] and step.satisfied(machine)
        finally:
            parts.docker("rmi", there, check=False)
        assert not line.cuts and "the connection broke off; going on" in told, "the pull was begun again"
        ranges = [where for _, path, where in line.asked if layer in path]
        assert ranges[0] is None and (ranges[1] or "").startswith("bytes=1"), "the layer was not begun again"


def test_our_own_container_does_not_stand_in_our_way(host: LocalHost, prefix: str, image: str) -> None:
    port = parts.free_port()
    applied(nim(host, prefix, image, port), host)
    assert Port(ports=(port,), server=f"{prefix}/servers/test-nim").satisfied(host)
    assert not Port(ports=(port,), server=f"{prefix}/servers/other").satisfied(host)
    before = server.known(host, f"{prefix}/servers", name="test-nim")
    server.restart(host, f"{prefix}/servers", name="test-nim")
    after = server.known(host, f"{prefix}/servers", name="test-nim")
    assert after.id != before.id and contained.current(host, after) == after
    server.wait_until_ready(host, after, timeout_s=60)


def test_podman_runs_the_same(prefix: str, image: str, tmp_path: Path) -> None:
    if shutil.which("podman") is None:
        pytest.skip("NOT RUN: podman is not installed")
    # Podman's default limits are more than a container without privileges may give.
    (tmp_path / "containers.conf").write_text(
        '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
    )
    variables = {
        "CONTAINERS_CONF": str(tmp_path / "containers.conf"),
        "PATH": os.environ["PATH"],
        "HOME": os.environ["HOME"],
    }
    machine = LocalHost(variables)
    name = f"localhost/{image}"
    if subprocess.run(["podman", "image", "exists", name], check=False).returncode:
        parts.docker("save", "--output", str(tmp_path / "image.tar"), image)
        subprocess.run(["podman", "load", "--input", str(tmp_path / "image.tar")], check=True, capture_output=True)
        (tmp_path / "image.tar").unlink()
    made = nim(machine, prefix, image, parts.free_port(), program="podman")
    report = applied(made, machine)
    assert report.ok and report.data["endpoint"]
    known = server.known(machine, f"{prefix}/servers", name="test-nim")
    assert known.pid and status.status(machine, known).health == "running"
    os.kill(known.pid, 9)
    start = time.monotonic()
    while (now := status.status(machine, known)).health != "dead" and time.monotonic() - start < 15:
        time.sleep(0.05)
    assert now.health == "dead" and "killed by signal 9" in now.text, now
    assert server.stop(machine, f"{prefix}/servers", name="test-nim")


def test_a_wait_that_is_interrupted_leaves_no_container(host: LocalHost, prefix: str, image: str) -> None:
    made = nim(host, prefix, image, parts.free_port())
    for step in made.steps[:4]:
        if not step.satisfied(host):
            step.apply(host, lambda _: None)
    started = server.start(host, f"{prefix}/servers", made.launch, name="test-nim")
    threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        server.wait_until_ready(host, started, timeout_s=60)
    assert parts.docker("ps", "--all", "--quiet", "--filter", f"name={NAME}") == ""
    assert status.status(host, server.known(host, f"{prefix}/servers", name="test-nim")).health == "stopped"
