"""Which model is served, and what is told of it before anything is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeHost, answer

from provision.bootstrap import make_plan
from provision.config import Options, load
from provision.errors import CheckFailed, UsageError
from provision.host import HostView
from provision.plan import Plan, preflight_failures
from provision.report import Finding
from provision.steps.model_demands import Demands, demands_of
from provision.steps.model_files import context_length, has_chat_template

GPT2 = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_positions": 1024}
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "max_position_embeddings": 8192}
HEADER = json.dumps({"w": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}).encode()
WEIGHTS = (len(HEADER).to_bytes(8, "little") + HEADER).decode()


def machine(config: dict[str, Any] | None, **files: str) -> FakeHost:
    there = {f"/m/{name.replace('__', '.')}": text for name, text in files.items()}
    if config is not None:
        there |= {"/m/config.json": json.dumps(config), "/m/tokenizer.json": "{}", "/m/model.safetensors": WEIGHTS}
    system = {
        "/proc/sys/kernel/random/boot_id": "b",
        "/proc/sys/kernel/hostname": "m",
        "/proc/meminfo": "MemTotal: 99999999 kB\n",
    }
    return FakeHost({**system, **there}, answers={"uname -m": answer("x86_64\n"), "getconf": answer("glibc 2.36\n")})


def planned(view: HostView, **wishes: Any) -> Plan:
    return make_plan(view, Options(target="cpu", prefix="/p", **wishes), assumed="target")


def failure(view: HostView, **wishes: Any) -> CheckFailed | None:
    found = preflight_failures(planned(view, **wishes), view).get("model")
    assert found is None or isinstance(found, CheckFailed)
    return found


def test_an_architecture_that_the_cpu_path_does_not_serve_is_refused_before_anything_is_installed() -> None:
    refused = failure(machine(LLAMA), model="/m")
    assert refused and "LlamaForCausalLM" in str(refused) and "GPT2LMHeadModel" in str(refused)
    assert refused.exit_status == 4 and "rotary" in (refused.hint or "")
    assert failure(machine(GPT2), model="/m") is None
    unsaid = {key: value for key, value in LLAMA.items() if key != "architectures"}
    assert failure(machine(unsaid), model="/m") is None, "what cannot be told is left to the engine"


def test_a_gpu_serves_every_architecture() -> None:
    view = machine(LLAMA)
    plan = make_plan(view, Options(target="a100", prefix="/p", model="/m"), assumed="target")
    assert "model" not in preflight_failures(plan, view)


@pytest.mark.parametrize("asked", [{"context_length": 1025}, {"extra": ("--context-length", "4096")}])
def test_a_context_that_is_longer_than_the_models_is_refused(asked: dict[str, Any]) -> None:
    refused = failure(machine(GPT2), model="/m", **asked)
    assert refused and "1024" in str(refused) and "--context-length 1024" in (refused.hint or "")
    allowed = machine(GPT2)
    allowed.variables["SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN"] = "1"
    assert failure(allowed, model="/m", **asked) is None
    assert failure(machine(GPT2), model="/m", context_length=1024) is None
    overridden = ("--json-model-override-args", '{"n_positions": 9999}', "--context-length", "4096")
    assert failure(machine(GPT2), model="/m", extra=overridden) is None


def test_the_built_in_model_has_an_end_too() -> None:
    refused = failure(machine(None), context_length=4096)
    assert refused and "the built-in model" in str(refused) and "2048" in str(refused)
    assert failure(machine(None), context_length=2048) is None


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        (GPT2, 1024),
        (LLAMA, 8192),
        ({"text_config": LLAMA}, 8192),
        ({**LLAMA, "rope_scaling": {"factor": 4.0, "rope_type": "yarn"}}, 32768),
        ({**LLAMA, "rope_scaling": {"factor": 8.0, "rope_type": "llama3"}}, 8192),
        ({**LLAMA, "rope_scaling": {"factor": 4, "original_max_position_embeddings": 2048}}, 8192),
        ({**LLAMA, "max_sequence_length": 100}, 100),
        ({"max_position_embeddings": "many"}, None),
        ({**LLAMA, "rope_scaling": {"factor": "x"}}, None),
        ({"text_config": [], "rope_scaling": 7}, None),
        ({}, None),
    ],
)
def test_the_context_of_a_model(config: dict[str, Any], tokens: int | None) -> None:
    """As SGLang's `get_context_length` has it."""
    assert context_length(config) == tokens


CHAT = json.dumps({"chat_template": "{{ messages }}"})


@pytest.mark.parametrize(
    ("files", "has"),
    [
        ({}, False),
        ({"tokenizer_config__json": "{}"}, False),
        ({"tokenizer_config__json": CHAT}, True),
        ({"chat_template__jinja": "x"}, True),
        ({"chat_template__json": "x"}, True),
        ({"tekken__json": "x"}, None),
        ({"m__gguf": "x"}, None),
    ],
)
def test_whether_a_model_knows_what_a_chat_is(files: dict[str, str], has: bool | None) -> None:
    view = machine(GPT2, **files)
    assert has_chat_template(view, "/m") is has
    told = [finding.check for finding in Demands().findings(view, "/m")]
    assert told == (["model-chat"] if has is False else [])
    assert Demands(chat_template=True).findings(view, "/m") == ()


def test_a_chat_template_reaches_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan = planned(machine(GPT2), model="/m", chat_template="chat.jinja")
    argv = plan.launch.argv
    assert argv[argv.index("--chat-template") + 1] == str(tmp_path / "chat.jinja")
    serve = plan.decision.serve
    assert demands_of(serve, *plan.decision.engine).chat_template
    wishes = Options(target="gb10", prefix="/p", model="/m", chat_template="chat.jinja")
    contained = make_plan(machine(GPT2), wishes, assumed="target")
    assert f"source={tmp_path}/chat.jinja" in " ".join(contained.launch.argv)
    with pytest.raises(UsageError, match="not a chat template"):
        load({"chat_template": "chat.exe"})


def stand_in(view: FakeHost, **wishes: Any) -> tuple[str | None, tuple[Finding, ...]]:
    from provision import models  # noqa: PLC0415  # next to what it is about

    plan = make_plan(view, Options(target="runpod-a40", **wishes), assumed="target")
    decision = models.at_hand(view, plan.decision)
    return decision.serve.model, tuple(one for one in decision.findings if one.check == "model-there")


def test_the_models_directory_comes_first_and_the_hub_where_nobody_put_one_there() -> None:
    assert stand_in(FakeHost({"/workspace/models/llama-8b-hf/config.json": "{}"})) == ("llama-8b-hf", ())
    model, (said,) = stand_in(FakeHost())
    assert model == "Qwen/Qwen3-8B" and "/workspace/models/llama-8b-hf" in said.text and "--model" in said.fix[0]
    assert stand_in(FakeHost(), model="llama-8b-hf")[0] == "Qwen/Qwen3-8B"
    assert stand_in(FakeHost(), model="org/other") == ("org/other", ())
