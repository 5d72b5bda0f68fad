"""What each image target runs, for the machine it is for and for one with a device chosen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from fakes import FakeHost, answer

from provision import bootstrap, launches
from provision.config import Options
from provision.containers.names import unique_name
from provision.environments import path_for
from provision.environments.layout import Stamp
from provision.errors import ServingFailed, UnsupportedHost, UsageError
from provision.host import Listener
from provision.host.folder import FolderHost
from provision.plan import Plan
from provision.serving import keys, record
from provision.serving.launch import Launch
from provision.serving.listening import check_free
from provision.serving.record import Server
from provision.steps.directories import Directories
from provision.steps.image import PullImage
from provision.steps.server import StartServer

HOSTS = Path(__file__).parents[1] / "hosts"


def planned(target: str, **wishes: str | tuple[str, ...]) -> Plan:
    host = FakeHost()
    host.variables["HOME"] = "/home/ada"
    assumed = str(wishes.pop("assumed", "target"))
    return bootstrap.make_plan(host, Options(target=target, **wishes), assumed=assumed)  # type: ignore[arg-type]


DOCKER = "arch=x86_64,glibc=2.36,python=3.12,docker=yes"


def words(plan: Plan) -> str:
    return " ".join(plan.launch.argv)


def test_gb10() -> None:
    plan = planned("gb10")
    assert [step.id for step in plan.steps] == ["directories", "image", "model", "port", "server", "smoke", "receipt"]
    told = words(plan)
    assert "--gpus all --ipc private --shm-size 32g --publish 127.0.0.1:30000:30000" in told
    assert (
        "source=/home/ada/.cache/huggingface/hub,target=/home/ada/.cache/huggingface/hub" in told
        and "source=/home/ada/gb10/models/Qwen3-8B-NVFP4" in told
    )
    assert "lmsysorg/sglang:latest-cu130 python3 /run/sgprov/with_key.py /run/sgprov/- -m sglang.launch_server" in told
    assert "--quantization modelopt_fp4" in told and "--enable-torch-compile" in told
    assert plan.launch.url == "http://127.0.0.1:30000"


@pytest.mark.parametrize("target", ["gb10", "a40", "cpu"])
def test_the_served_name_and_the_words_for_the_engine_are_in_every_launch(target: str) -> None:
    told = words(planned(target, served_model_name="chat", extra=("--tp-size", "2")))
    assert "--served-model-name chat" in told and told.count("--served-model-name") == 1
    assert told.endswith(" --tp-size 2")


def test_gb10_nim() -> None:
    plan = planned("gb10-nim")
    server = next(step for step in plan.steps if step.id == "server")
    assert server.preview() == "serve the model of the image at http://127.0.0.1:8000"
    ids = ["directories", "login", "image", "cache", "port", "server", "smoke", "receipt"]
    assert [step.id for step in plan.steps] == ids
    told = words(plan)
    assert told.endswith("--env NGC_API_KEY nvcr.io/nim/meta/llama-3.1-8b-instruct-dgx-spark:latest")
    assert "source=/home/ada/.cache/nim,target=/opt/nim/.cache --env" in told
    assert "--publish 127.0.0.1:8000:8000" in told and "--name sgprov-nim-llama-3.1-8b-instruct-dgx-spark-" in told


@pytest.mark.parametrize(
    ("target", "model", "reference"),
    [
        ("gb10-nim", "qwen3-32b", "nvcr.io/nim/qwen/qwen3-32b-dgx-spark:1.1.0-variant"),
        ("nim", "mistral-7b-instruct-v0.3", "nvcr.io/nim/mistralai/mistral-7b-instruct-v0.3:1.12.0"),
        ("nim", "meta/llama-3.1-8b-instruct", "nvcr.io/nim/meta/llama-3.1-8b-instruct:latest"),
    ],
)
def test_the_model_says_which_nim(target: str, model: str, reference: str) -> None:
    plan = planned(target, model=model)
    assert plan.launch.argv[-1] == reference
    container = plan.launch.container
    assert (
        plan.decision.image
        and container
        and container.name == unique_name(plan.decision.places.prefix, plan.decision.image.name)
    )


def test_two_prefixes_have_a_container_each() -> None:
    names = {
        words(planned("gb10-nim", prefix=prefix)).split("--name ")[1].split()[0] for prefix in ("/srv/a", "/srv/b")
    }
    assert len(names) == 2 and len({name.rpartition("-")[0] for name in names}) == 1


def test_one_device_of_a_plain_image() -> None:
    plan = planned(
        "sglang-image", gpus="1", assumed="gpu=A100 80GB PCIe,count=4,driver=580.95.05,arch=x86_64,docker=yes"
    )
    assert '--gpus "device=1" --ipc private --shm-size 32g' in words(plan)
    assert "CUDA_VISIBLE_DEVICES" not in words(plan), "the engine hands out that device alone"


def test_by_digest_where_one_is_known() -> None:
    plan = planned("sglang-image", stack="sglang-0.5.14-cu130")
    pull = next(step for step in plan.steps if isinstance(step, PullImage))
    assert pull.reference.startswith("lmsysorg/sglang@sha256:344f3612")


def test_an_image_of_ones_own_in_place_of_the_rows() -> None:
    plan = planned("gb10-nim", image="mirror.example:5000/llama:1")
    assert plan.launch.argv[-1] == "mirror.example:5000/llama:1"
    assert "login" not in [step.id for step in plan.steps], "another registry, another login"


def test_an_image_for_another_architecture_names_the_right_one() -> None:
    with pytest.raises(UnsupportedHost, match="an image for amd64, this host is arm64; for arm64 there is `nim-"):
        planned(
            "nim", model="mistral-7b-instruct-v0.3", assumed="gpu=GH200 480GB,driver=580.95.05,arch=aarch64,docker=yes"
        )


def test_a_captured_spark() -> None:
    plan = bootstrap.make_plan(FolderHost(HOSTS / "gb10"), Options(target="gb10-nim"))
    assert plan.decision.hosting and plan.decision.hosting.arch == "arm64"


def test_the_two_builds_of_one_tag_hold_different_kernels() -> None:
    with pytest.raises(UnsupportedHost, match=r"holds code for 9\.0, .*12\.1a, not for 8\.0"):
        planned("sglang-image", assumed="gpu=A100 80GB PCIe,driver=580.95.05,arch=aarch64,docker=yes")


@pytest.mark.parametrize(
    ("wishes", "assumed"), [(Options(target="gb10"), "target"), (Options(target="cpu", image="debian:12"), DOCKER)]
)
def test_a_server_in_a_container_has_its_key_mounted(wishes: Options, assumed: str) -> None:
    host = FakeHost()
    host.variables["HOME"] = "/home/ada"
    key = "k3y-0123456789abcdef"
    plan = bootstrap.make_plan(host, wishes, bootstrap.Manner(api_key=key), assumed=assumed)
    server = f"{plan.decision.places.prefix}/servers/{wishes.target}"
    for name in (keys.FILE, keys.SCRIPT):
        assert f"type=bind,source={server}/{name},target=/run/sgprov/{name},readonly" in mounts(plan)
    assert "/run/sgprov/with_key.py /run/sgprov/api-key -m sglang.launch_server" in words(plan)
    assert key not in words(plan) and plan.launch.key_file == f"{server}/{keys.FILE}"
    keys.give(host, server, key)
    assert bootstrap.make_plan(host, wishes, assumed=assumed).launch == plan.launch, "it keeps the key that it has"


def test_a_nim_has_no_way_to_ask_for_a_key() -> None:
    host = FakeHost()
    host.variables["HOME"] = "/home/ada"
    with pytest.raises(UsageError, match=r"nim .* cannot ask for a key"):
        bootstrap.make_plan(host, Options(target="nim"), bootstrap.Manner(api_key="k" * 16), assumed="target")


def test_a_model_of_the_hub_is_called_the_same_by_a_process_and_in_a_container() -> None:
    made = [planned("cpu", model="Qwen/Qwen3-0.6B", **more) for more in ({}, {"image": "debian:12", "assumed": DOCKER})]
    for plan in made:
        assert "--served-model-name Qwen/Qwen3-0.6B" in words(plan)
    steps = [next(step for step in plan.steps if isinstance(step, StartServer)) for plan in made]
    assert all(step.hub and step.hub.model == "Qwen/Qwen3-0.6B" for step in steps)


def mounts(plan: Plan) -> list[str]:
    return [word for word in plan.launch.argv if word.startswith("type=bind")]


def test_what_a_stack_is_mounted_with() -> None:
    plan = planned("cpu", image="debian:12", assumed=DOCKER)
    ids = [step.id for step in plan.steps]
    assert ids[:5] == ["directories", "interpreter", "image", "inside", "environment"]
    prefix = plan.decision.places.prefix
    assert f"type=bind,source={prefix}/python,target={prefix}/python,readonly" in mounts(plan)


def test_the_systems_directories_do_not_hide_those_of_the_image() -> None:
    host = FakeHost(answers={"readlink --canonicalize /usr/bin/python3.12": answer("/usr/bin/python3.12\n")})
    host.variables["HOME"] = "/home/ada"
    wishes = Options(target="cpu", image="debian:12")
    decision = bootstrap.make_plan(host, wishes, assumed=DOCKER).decision
    launch = launches.of(host, replace(decision, interpreter="/usr/bin/python3.12"), "m", wishes, name="a")
    assert not any("source=/usr" in word for word in launch.argv)


def test_an_environment_that_is_there_takes_its_own_python_along() -> None:
    host = FakeHost()
    host.variables["HOME"] = "/home/ada"
    wishes = Options(target="cpu", image="debian:12")
    decision = bootstrap.make_plan(host, wishes, assumed=DOCKER).decision
    assert decision.lock
    path = path_for(decision.places.prefix, decision.lock)
    stamp = Stamp(name="e", lock="l", lock_digest="d", python="3", interpreter="/q/py/bin/python3", sgprov="0", time="")
    host.files[f"{path}/.sgprov/stamp.json"] = msgspec.json.encode(stamp).decode()
    host.files[f"{path}/bin/python"] = ""
    launch = launches.of(host, replace(decision, interpreter="/other/bin/python3"), "m", wishes, name="a")
    assert "type=bind,source=/q/py,target=/q/py,readonly" in launch.argv


def test_the_port_of_a_container_that_is_replaced_is_not_a_strangers() -> None:
    host = FakeHost()
    host.ears = [Listener(address="127.0.0.1", port=30000, pid=7, process="docker-proxy")]
    process, container = planned("cpu").launch, planned("gb10").launch
    with pytest.raises(ServingFailed, match="docker-proxy"):
        check_free(host, process)
    check_free(host, process, instead_of=_record(container))
    check_free(host, container)


def test_running_bootstrap_again_leaves_the_restart_policy() -> None:
    host = FakeHost()
    host.variables["HOME"] = "/home/ada"
    first = bootstrap.make_plan(host, Options(target="gb10"), bootstrap.Manner(restarts=5), assumed="target")
    assert "--restart on-failure:5" in words(first)
    prefix = first.decision.places.prefix
    record.save(host, _record(first.launch, directory=f"{prefix}/servers/gb10"))
    again = bootstrap.make_plan(host, Options(target="gb10"), assumed="target")
    assert again.launch == first.launch


def _record(launch: Launch, *, directory: str = "/p/servers/gb10") -> Server:
    return Server(
        id="1",
        name="gb10",
        directory=directory,
        engine="sglang",
        version="0.5.14",
        stack=None,
        model="m",
        url=launch.url,
        argv=launch.argv,
        variables={},
        log="l",
        started="",
        machine="",
        boot="",
        state="ready",
        container=launch.container,
    )


@pytest.mark.parametrize("target", ["gb10-nim", "gb10"])
def test_what_servers_keep_is_for_nobody_else(target: str) -> None:
    step = next(step for step in planned(target).steps if isinstance(step, Directories))
    modes = {one.path.rsplit("/", 1)[-1]: one.mode for one in step.directories}
    assert (modes["sgprov"], modes["servers"]) == (0o755, 0o700)
