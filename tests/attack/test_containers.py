"""What a container gets of this machine, and what its engine is told: no more than a server needs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import requests
from fakes import FakeHost, answer
from live import parts, sglang_stand_in
from msgspec import structs

from provision import bootstrap, environments, launches
from provision.catalog.load import Catalog
from provision.cli import main
from provision.config import Options
from provision.containers import building, images
from provision.containers.names import unique_name
from provision.containers.run import Container, Mount, Publish, argv
from provision.decision import Decision, Hosting, Places
from provision.environments import Receipt
from provision.environments.layout import BYTECODE
from provision.errors import StepFailed, UsageError
from provision.host import Outcome
from provision.host.local import LocalHost
from provision.http_client import NoAnswer
from provision.plan import Plan
from provision.serving import keys, listening, record, server, status
from provision.serving.record import Server
from provision.steps.image import PullImage

KEY = "k3y-" + "0123456789abcdef" * 2
DOCKER = "arch=x86_64,glibc=2.36,python=3.12,docker=yes"
BASE = Container(program="docker", name="sgprov-a", image="i:1", publish=Publish(address="::1", port=1, inside=1))
OPTIONS = ["-v/:/host", "--privileged", "-", "", " debian", "debian\n--privileged", "debian --privileged", "é:1"]


def planned(**wishes: str) -> Plan:
    host = FakeHost()
    host.variables["HOME"] = "/home/ada"
    assumed = DOCKER if wishes["target"] == "cpu" else "target"
    return bootstrap.make_plan(host, Options(**wishes), assumed=assumed)  # type: ignore[arg-type]


@pytest.mark.tried("option injection", "an image reference that the engine would read as an option")
@pytest.mark.parametrize("reference", OPTIONS)
def test_a_reference_is_no_option(reference: str) -> None:
    host = FakeHost()
    with pytest.raises(UsageError, match="is not the name of an image"):
        argv(replace(BASE, image=reference))
    for ask in (
        lambda: images.find(host, "docker", reference),
        lambda: images.ask(host, reference, "amd64"),
        lambda: images.pull(host, "docker", reference, arch="amd64"),
        lambda: building.save(host, reference, "/x.tar.gz"),
    ):
        with pytest.raises(UsageError):
            ask()
    assert host.commands == []
    if reference:
        with pytest.raises(UsageError):
            planned(target="cpu", image=reference)


@pytest.mark.parametrize(
    "reference",
    [
        "debian",
        "debian:12",
        "docker.io/library/debian:12",
        "127.0.0.1:5000/a/b:1",
        "[::1]:5000/a",
        "a@sha256:" + "0" * 64,
    ],
)
def test_references_that_are_some(reference: str) -> None:
    assert argv(replace(BASE, image=reference))[-1] == reference


@pytest.mark.tried("option injection", "a path whose name adds fields to a mount, such as `/a,readonly=false`")
@pytest.mark.parametrize(
    "path", ["/a,target=/etc", '/a"', "/a\nb", "relative", "", "/a,readonly=false,bind-propagation=rshared"]
)
def test_a_path_is_one_field(path: str) -> None:
    for mount in (Mount(source=path, target="/t"), Mount(source="/s", target=path)):
        with pytest.raises(UsageError, match="cannot be mounted"):
            argv(replace(BASE, mounts=(mount,)))


@pytest.mark.tried("option injection", "a prefix, a model or a cache with such a name")
@pytest.mark.parametrize("wish", ["prefix", "model", "cache_directory"])
def test_a_directory_with_a_comma_is_refused_before_anything_is_done(wish: str) -> None:
    with pytest.raises(UsageError, match="cannot be mounted"):
        planned(target="cpu", image="debian:12", **{"model": "a/b", wish: "/srv/a,target=/etc"})


@pytest.mark.tried("option injection", "names of containers, variables and addresses that hold more than that")
@pytest.mark.parametrize(
    "changes",
    [
        {"name": "-rf"},
        {"name": "a b"},
        {"variables": {"A=B": "1"}},
        {"secrets": ("A=stolen",)},
        {"publish": Publish(address="0.0.0.0:1:1 --privileged", port=1, inside=1)},
        {"publish": Publish(address="a-host", port=1, inside=1)},
    ],
)
def test_each_name_is_one(changes: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        argv(replace(BASE, **changes))  # type: ignore[arg-type]


@pytest.mark.tried("container rights", "every target that is an image, and a stack in one: capabilities, memory, home")
@pytest.mark.parametrize(
    "wishes",
    [{"target": name} for name in ("gb10", "gb10-nim", "nim", "sglang-image")] + [{"target": "cpu", "image": "d:1"}],
)
def test_no_container_has_more_than_it_needs(wishes: dict[str, str]) -> None:
    words = planned(**wishes).launch.argv
    told = " ".join(words)
    for flag in ("--cap-drop ALL", "--security-opt no-new-privileges", "--ipc private", "--pull never"):
        assert f" {flag} " in told
    assert not {"--privileged", "--cap-add", "--pid", "--network", "--ipc=host", "--volume", "-v"} & set(words)
    sources = [word.split("source=")[1].split(",")[0] for word in words if word.startswith("type=bind")]
    assert "/home/ada/.cache/huggingface" not in sources and "/home/ada" not in sources
    assert "--user" in words or "nim" in wishes["target"]


@pytest.mark.tried("option injection", "a version of Python that is a line of a Dockerfile")
@pytest.mark.usefixtures("real_machine")
@pytest.mark.parametrize("python", ["3.12\nRUN evil", "3.12 && evil", "-", "../x", "3.12\n"])
def test_a_version_is_no_line_of_a_dockerfile(tmp_path: Path, python: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lock.txt").write_text("a==1 --hash=sha256:" + "0" * 64 + "\n")
    words = ["image", "build", "--stack", "x", "--base", "ubuntu:22.04", "--lockfile", str(tmp_path / "lock.txt")]
    assert main([*words, "--show", "--python", python]) == UsageError.exit_status
    assert "FROM" not in capsys.readouterr().out
    assert main([*words, "--show", "--python", "3.12"]) == 0


@pytest.mark.tried(
    "container rights", "write code that runs outside of it: bytecode, the environment, Python, programs"
)
def test_a_container_writes_nothing_that_runs_elsewhere() -> None:
    words = planned(target="cpu", image="d:1", prefix="/p").launch.argv
    mounts = [word for word in words if word.startswith("type=bind")]
    writable = [word.split("source=")[1].split(",")[0] for word in mounts if not word.endswith(",readonly")]
    assert writable, "its caches"
    for runs in (BYTECODE, "environments/a/bin", "python", "servers/cpu", "current"):
        assert not [one for one in writable if Path("/p", runs).is_relative_to(one)]
        assert not [one for one in writable if Path(one).is_relative_to(Path("/p", runs))]


@pytest.mark.tried(
    "moved image", "a tag leads to another image than the one that was verified: pulled since, or pulled now"
)
def test_another_image_under_the_same_tag_is_told() -> None:
    host = FakeHost()
    host.variables["HOME"] = "/home/ada"
    inspected = {"Id": "sha256:1", "RepoDigests": ["d@sha256:new"], "Architecture": "amd64", "Size": 7}
    host.answers["docker image inspect"] = answer(json.dumps(inspected))
    host.answers["docker info"] = answer(json.dumps({"ServerVersion": "28.3.3", "OSType": "linux"}))
    host.answers["uname -m"] = answer("x86_64")
    wishes = Options(target="cpu", image="d:1", prefix="/p", python="3.12")
    before = bootstrap.make_plan(host, wishes, assumed=DOCKER)
    receipt = Receipt(target="cpu", image="d:1", image_digest="sha256:old")
    environments.write_receipt(host, "/p", receipt)
    pull = next(step for step in before.steps if isinstance(step, PullImage))
    assert pull.known is None and pull.moved(host) is None
    after = bootstrap.make_plan(host, wishes, assumed=DOCKER)
    pull = next(step for step in after.steps if isinstance(step, PullImage))
    found = pull.moved(host)
    assert pull.known == "sha256:old" and found and found.check == "image-moved"


DOWN = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"


@pytest.mark.tried(
    "silent engine", "Docker is stopped, may not be asked, or hangs: that is not an image that is not there"
)
@pytest.mark.parametrize(
    ("outcome", "hint"),
    [
        (answer(rc=1, err=DOWN), "systemctl start docker"),
        (answer(rc=1, err="permission denied while trying to connect to the docker.sock"), "usermod"),
        (Outcome((), None, seconds=8), ""),
    ],
)
def test_an_engine_that_does_not_answer_is_no_missing_image(outcome: Outcome, hint: str, tmp_path: Path) -> None:
    host = FakeHost(answers={"docker image inspect": outcome})
    for ask in (
        lambda: images.find(host, "docker", "a:1"),
        lambda: building.save(host, "a:1", "/x.tar.gz"),
        lambda: PullImage(program="docker", reference="a:1", arch="amd64").satisfied(host),
    ):
        with pytest.raises(StepFailed, match="does not say whether it has `a:1`") as caught:
            ask()
        assert hint in (caught.value.hint or "")
    host.answers["docker image inspect"] = answer(rc=1, err="Error response from daemon: No such image: a:1")
    assert images.find(host, "docker", "a:1") is None
    host.answers["docker load"] = answer(DOWN, rc=1)
    (tmp_path / "x.tar.gz").touch()
    with pytest.raises(StepFailed, match="the Docker daemon is not running"):
        building.load(host, str(tmp_path / "x.tar.gz"))


@pytest.fixture
def host() -> LocalHost:
    kept = ("PATH", "HOME", "LANG")
    planted = {"AWS_SECRET_ACCESS_KEY": "planted-cloud", "UV_INDEX_URL": "https://u:planted-index@x.example/"}
    wanted = {"NCCL_DEBUG": "WARN", "CUDA_VISIBLE_DEVICES": "7", "SGLANG_API_KEY": "planted-engine"}
    return LocalHost({**{name: os.environ[name] for name in kept if name in os.environ}, **planted, **wanted})


@pytest.fixture
def prefix(tmp_path: Path, host: LocalHost) -> Iterator[str]:
    tmp_path.chmod(0o700)
    (tmp_path / "hf" / "hub").mkdir(parents=True)
    (tmp_path / "hf" / "token").write_text("hf_planted")
    yield str(tmp_path)
    for name in record.names(host, f"{tmp_path}/servers"):
        server.stop(host, f"{tmp_path}/servers", name=name, grace_s=1)


def keyed(host: LocalHost, prefix: str, image: str, *, restarts: int = 0) -> Server:
    """A server of the stand-in for SGLang's image, with a key, as `bootstrap` starts one."""
    catalog = Catalog()
    target, row = catalog.target("sglang-image"), catalog.image("sglang-0.5.14-cu130")
    decision = Decision(
        target=target,
        places=Places(prefix=prefix, models=f"{prefix}/models", huggingface=f"{prefix}/hf"),
        serve=structs.replace(target.serve, port=parts.free_port(), device="cpu"),
        image=structs.replace(row, reference=image, digests={}),
        hosting=Hosting(program="docker", reference=image, arch="amd64"),
    )
    key_file = f"{prefix}/servers/test-keyed/{keys.FILE}"
    launch = launches.of(host, decision, "a/b", Options(), name="test-keyed", restarts=restarts, key_file=key_file)
    started = server.start(host, f"{prefix}/servers", launch, name="test-keyed", key=KEY)
    return server.wait_until_ready(host, started, timeout_s=60)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    return sglang_stand_in.build(tmp_path_factory.mktemp("image"))


@pytest.mark.container
@pytest.mark.tried(
    "container rights", "a server with a key in a container: inspect, processes, log, variables, user, token"
)
def test_a_key_reaches_the_engine_in_a_container_and_nobody_else(host: LocalHost, prefix: str, image: str) -> None:
    one = keyed(host, prefix, image)
    assert status.status(host, one).health == "running"
    assert requests.get(f"{one.url}/v1/models", timeout=5).status_code == 401
    given = {"Authorization": f"Bearer {KEY}"}
    assert requests.get(f"{one.url}/v1/models", headers=given, timeout=5).status_code == 200
    log = Path(one.log).read_text()
    shown = parts.docker("inspect", unique_name(prefix, "test-keyed")) + parts.docker(
        "top", unique_name(prefix, "test-keyed")
    )
    assert KEY not in shown + log + json.dumps(one.public()) + " ".join(one.argv)
    assert "'CapEff:\\t0000000000000000'" in log and "'NoNewPrivs:\\t1'" in log and "'Umask:\\t0077'" in log
    assert "token: False" in log and "planted" not in log + shown
    told = log.split("variables: ")[1].splitlines()[0]
    assert "'NCCL_DEBUG'" in told and "CUDA_VISIBLE" not in told and "SGLANG_API_KEY" not in told


@pytest.mark.container
@pytest.mark.tried(
    "container rights", "its engine starts it again: the key is in force again, and still shown to nobody"
)
def test_a_key_survives_the_restart_policy(host: LocalHost, prefix: str, image: str) -> None:
    one = keyed(host, prefix, image, restarts=2)
    os.kill(one.pid or 0, 9)
    deadline = time.monotonic() + 30
    while (now := status.status(host, one)).health != "running" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert now.health == "running" and now.server.pid != one.pid
    assert requests.get(f"{one.url}/v1/models", timeout=5).status_code == 401
    assert KEY not in parts.docker("inspect", unique_name(prefix, "test-keyed"))


@pytest.mark.container
@pytest.mark.tried("key to a stranger", "a container has ended or is another's: its key is not sent to its port")
def test_the_key_of_a_container_is_for_that_container(host: LocalHost, prefix: str, image: str) -> None:
    one = keyed(host, prefix, image)
    given = listening.key_of(host, one)
    assert callable(given) and given() == KEY
    parts.docker("stop", "--time", "1", unique_name(prefix, "test-keyed"))
    with pytest.raises(NoAnswer, match="the key was not sent"):
        given()
    parts.docker("rm", unique_name(prefix, "test-keyed"))
    parts.docker("run", "--detach", "--name", unique_name(prefix, "test-keyed"), image, "sleep", "60")
    try:
        with pytest.raises(NoAnswer, match="the key was not sent"):
            given()
    finally:
        parts.docker("rm", "--force", unique_name(prefix, "test-keyed"))
