"""What a target's settings become, version by version."""

from __future__ import annotations

import pytest

from provision.catalog.rows import Serve
from provision.errors import UsageError
from provision.serving.launch import Launch, render, url_of

CPU = Serve(
    served_name="tiny",
    device="cpu",
    mem_fraction=0.2,
    max_total_tokens=8192,
    attention_backend="torch_native",
    sampling_backend="pytorch",
    load_format="dummy",
    cuda_graph=False,
)
SGLANG = ("0.4.0", "0.4.9", "0.5.6.post2", "0.5.15.post1", "0.5.23")


def rendered(version: str, serve: Serve, *, engine: str = "sglang", model: str = "/models/m") -> Launch:
    return render(engine, version, serve, python="/env/bin/python", model_path=model)


def test_the_cpu_target_is_the_command_that_was_tried_by_hand() -> None:
    launch = rendered("0.5.23", CPU)
    assert launch.argv[:5] == ("/env/bin/python", "-m", "sglang.launch_server", "--model-path", "/models/m")
    assert " ".join(launch.argv[5:]) == (
        "--served-model-name tiny --host 127.0.0.1 --port 30000 --device cpu --mem-fraction-static 0.2"
        " --max-total-tokens 8192 --attention-backend torch_native --sampling-backend pytorch --load-format dummy"
        " --cuda-graph-backend-decode disabled --cuda-graph-backend-prefill disabled --enable-cache-report"
    )
    assert launch.variables == {"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}


def test_a_model_of_the_hub_may_be_asked_for() -> None:
    assert "HF_HUB_OFFLINE" not in rendered("0.5.23", Serve(), model="org/model").variables


@pytest.mark.parametrize("version", SGLANG)
def test_every_version_gets_full_spellings(version: str) -> None:
    launch = rendered(version, Serve(tensor_parallel=4, data_parallel=2, context_length=4096))
    assert " ".join(launch.argv).endswith("--context-length 4096 --tp-size 4 --dp-size 2 --enable-cache-report")


@pytest.mark.parametrize(
    ("version", "flags"),
    [
        ("0.4.9", ["--disable-cuda-graph"]),
        ("0.5.15.post1", ["--disable-cuda-graph"]),
        ("0.5.23", ["--cuda-graph-backend-decode", "--cuda-graph-backend-prefill"]),
    ],
)
def test_cuda_graphs_are_switched_off_by_the_flag_of_the_version(version: str, flags: list[str]) -> None:
    assert [word for word in rendered(version, Serve(cuda_graph=False)).argv if "cuda-graph" in word] == flags


@pytest.mark.parametrize(
    ("version", "variables"),
    [
        ("0.4.0", set()),
        ("0.4.9", {"SGL_ENABLE_JIT_DEEPGEMM", "SGLANG_ENABLE_JIT_DEEPGEMM"}),
        ("0.5.6.post2", {"SGLANG_ENABLE_JIT_DEEPGEMM"}),
        ("0.5.23", {"SGLANG_ENABLE_JIT_DEEPGEMM"}),
    ],
)
def test_deepgemm_is_switched_off_by_the_variable_that_the_version_reads(version: str, variables: set[str]) -> None:
    launch = rendered(version, Serve(deepgemm=False))
    assert {name for name in launch.variables if "DEEPGEMM" in name} == variables
    assert not any("deepgemm" in word for word in launch.argv)


def test_a_setting_that_came_later_is_refused_with_both_versions() -> None:
    with pytest.raises(UsageError, match=r"sglang 0\.4\.0 has no flag for the setting `pipeline_parallel`") as caught:
        rendered("0.4.0", Serve(pipeline_parallel=2))
    assert caught.value.hint == "it is known from 0.4.9 on"


def test_a_value_that_came_later_is_refused() -> None:
    with pytest.raises(UsageError, match=r"sglang 0\.4\.0 knows no `device: cpu`"):
        rendered("0.4.0", CPU)


def test_extra_is_passed_on_as_it_is_and_comes_last() -> None:
    assert rendered("0.5.23", Serve(extra=("--enable-metrics", "{x}"))).argv[-2:] == ("--enable-metrics", "{x}")


@pytest.mark.parametrize("version", ["0.6.0", "0.12.3"])
def test_lmdeploy_takes_the_model_by_position(version: str) -> None:
    serve = Serve(port=23333, tensor_parallel=2, context_length=8192, mem_fraction=0.8, served_name="m")
    assert " ".join(rendered(version, serve, engine="lmdeploy").argv) == (
        "/env/bin/lmdeploy serve api_server /models/m --model-name m --server-name 127.0.0.1 --server-port 23333"
        " --session-len 8192 --cache-max-entry-count 0.8 --tp 2"
    )


def test_lmdeploy_has_no_cpu_and_no_backends_of_attention() -> None:
    with pytest.raises(UsageError, match="knows no `device: cpu`"):
        rendered("0.12.3", Serve(device="cpu"), engine="lmdeploy")
    with pytest.raises(UsageError, match="no flag for the setting `attention_backend`"):
        rendered("0.12.3", Serve(attention_backend="triton"), engine="lmdeploy")


def test_data_parallel_of_lmdeploy_has_a_first_version() -> None:
    with pytest.raises(UsageError, match="data_parallel"):
        rendered("0.6.0", Serve(data_parallel=2), engine="lmdeploy")
    assert "--dp" in rendered("0.12.3", Serve(data_parallel=2), engine="lmdeploy").argv


@pytest.mark.parametrize(("engine", "version"), [("sglang", "0.2.0"), ("sglang", "latest"), ("vllm", "0.9")])
def test_what_cannot_be_launched_is_a_usage_error(engine: str, version: str) -> None:
    with pytest.raises(UsageError):
        rendered(version, Serve(), engine=engine)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:1"),
        ("::", "http://[::1]:1"),
        ("10.0.0.7", "http://10.0.0.7:1"),
    ],  # nothing is bound
)
def test_a_server_on_every_address_is_asked_on_loopback(host: str, url: str) -> None:
    assert url_of(host, 1) == url
