"""A model is whole, or what it lacks is named."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from fakes import FakeHost, info
from hypothesis import given
from hypothesis import strategies as st

from provision.errors import StepFailed, UsageError
from provision.host import PathInfo
from provision.host.folder import FolderHost
from provision.host.local import LocalHost
from provision.steps import model_files
from provision.steps.model import HubModel, LocalModel, step_for
from provision.steps.model_demands import Demands
from provision.steps.model_files import HubCopy

HOST = LocalHost({})
_KEYS = st.sampled_from(["data_offsets", "dtype", "shape", "__metadata__", "t"])


class Bytes(FakeHost):
    """A machine whose every file holds `content`; with None every file is there and may not be read."""

    def __init__(self, content: bytes | None) -> None:
        super().__init__()
        self.content = content

    def stat(self, path: str) -> PathInfo:
        return info(size=len(self.content or b"?"))

    def read_bytes(self, path: str, limit: int) -> bytes | None:
        return self.content if self.content is None else self.content[:limit]


def safetensors(size: int = 64) -> bytes:
    header = json.dumps({"__metadata__": {"a": "b"}, "w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}})
    return headed(header.encode()) + bytes(size)


def headed(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(safetensors())
    return tmp_path


def problems(model: Path, *, weights: bool = True) -> list[str]:
    found = model_files.problems(HOST, str(model), weights=weights)
    return [line.replace(f"{model}/", "").replace(str(model), "MODEL") for line in found]


def test_whole(model: Path) -> None:
    assert problems(model) == []
    assert LocalModel(path=str(model)).satisfied(HOST)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (safetensors()[:-1], "is cut short: {0} of {1} bytes"),
        (safetensors()[:40], "is cut short: its header is not whole"),
        (safetensors() + b"x", "is longer than it says"),
        (b"<html>not found</html>", "is not a safetensors file"),
        (b"", "is not a safetensors file"),
        (b"\x04\0\0\0\0\0\0\0[1]\n", "is not a safetensors file"),
        (headed(b'{"t":{"data_offsets":[1]}}'), "is not a safetensors file"),
        (headed(b'{"t":{"data_offsets":["0","4"]}}'), "is not a safetensors file"),
        (headed(b'{"t":{"data_offsets":[4,0]}}'), "is not a safetensors file"),
        (headed(b'{"t":7}'), "is not a safetensors file"),
        (headed(b"[" * 100_000), "is not a safetensors file"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "is a Git LFS pointer, not the file: `git lfs pull`",
        ),
    ],
)
def test_weights_that_are_not_whole(model: Path, content: bytes, problem: str) -> None:
    (model / "model.safetensors").write_bytes(content)
    assert problems(model) == [f"`model.safetensors` {problem.format(len(content), len(safetensors()))}"]
    assert problems(model, weights=False) == []


@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=200).map(headed),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
            max_leaves=10,
        ).map(lambda value: headed(json.dumps(value).encode())),
    )
)
def test_any_bytes_have_a_verdict(content: bytes) -> None:
    host = Bytes(content)
    start = time.monotonic()
    problem = model_files.weight_problem(host, "/m/model.safetensors")
    assert problem is None or (isinstance(problem, str) and problem.startswith("is "))
    assert time.monotonic() - start < 1


def test_weights_that_may_not_be_read_say_so() -> None:
    host = Bytes(None)
    assert model_files.weight_problem(host, "/m/model.safetensors") == "cannot be read"
    assert model_files.weight_problem(host, "/m/pytorch_model.bin") == "cannot be read"


def test_weights_of_a_recorded_machine_are_not_looked_for_on_this_one(tmp_path: Path) -> None:
    (tmp_path / "commands.yml").write_text("[]")
    (tmp_path / "view.yml").write_text(
        "paths:\n  /models/llama/tokenizer.json: {size: 2}\n  /models/llama/model.safetensors: {size: 5000000000}\n"
    )
    (tmp_path / "root/models/llama").mkdir(parents=True)
    (tmp_path / "root/models/llama/config.json").write_text('{"model_type": "llama"}')
    assert model_files.problems(FolderHost(tmp_path), "/models/llama") == ()


def test_a_shard_that_the_index_names_is_missing_or_cut(model: Path) -> None:
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors", "c": "two.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    (model / "one.safetensors").write_bytes(safetensors()[:-8])
    found = problems(model)
    assert [line.split(":")[0] for line in found] == ["`one.safetensors` is cut short", "`two.safetensors` is missing"]


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("config.json", None, "`MODEL` has no `config.json`"),
        ("config.json", "{", "`config.json` is not a JSON object"),
        ("config.json", "{}", "`config.json` names neither `architectures` nor a `model_type`"),
        ("tokenizer.json", None, "`MODEL` has no tokenizer (tokenizer.json, tokenizer.model, vocab.json)"),
        ("model.safetensors", None, "`MODEL` has no weights (*.safetensors)"),
        ("model.safetensors.index.json", "[]", "`model.safetensors.index.json` is not an index of weights"),
    ],
)
def test_what_is_missing(model: Path, name: str, text: str | None, problem: str) -> None:
    (model / name).unlink(missing_ok=True)
    if text is not None:
        (model / name).write_text(text)
    assert problems(model) == [problem]


def test_older_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(b"PK")
    assert problems(model) == []
    (model / "pytorch_model.bin").write_bytes(b"")
    assert problems(model) == ["`pytorch_model.bin` is empty"]


def test_the_step_says_all_of_it(model: Path) -> None:
    (model / "config.json").unlink()
    (model / "tokenizer.json").unlink()
    step = LocalModel(path=str(model))
    assert not step.satisfied(HOST)
    with pytest.raises(StepFailed, match=r"has no `config\.json`\n.*has no tokenizer"):
        step.apply(HOST, lambda _: None)
    with pytest.raises(StepFailed, match="there is no model at `/nowhere`"):
        LocalModel(path="/nowhere").apply(HOST, lambda _: None)


def test_located_by_path_by_copy_and_in_the_cache(model: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("home")
    places = {"models": str(home / "models"), "huggingface": str(home / "hf")}
    assert model_files.locate(HOST, str(model), **places) == str(model)
    assert model_files.locate(HOST, "/nowhere", **places) is None
    assert model_files.locate(HOST, "org/name", **places) is None
    folder = home / "hf/hub/models--org--name"
    (folder / "snapshots/abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text("abc")
    assert model_files.locate(HOST, "org/name", **places) == str(folder / "snapshots/abc")
    assert model_files.locate(HOST, "org/name", revision="abc", **places) == str(folder / "snapshots/abc")
    (home / "models/org/name").mkdir(parents=True)
    (home / "models/org/name/config.json").write_text("{}")
    assert model_files.locate(HOST, "org/name", **places) == str(home / "models/org/name")
    elsewhere = LocalHost({"HF_HUB_CACHE": str(home / "other")})
    assert model_files.hub_cache(elsewhere, "/hf") == str(home / "other")


def test_the_step_for_a_name() -> None:

    def step(name: str) -> LocalModel | HubModel:
        copy = HubCopy(model=name, models="/m", huggingface="/hf")
        return step_for(copy, python="/e/bin/python", demands=Demands())

    assert step("/srv/llama") == LocalModel(path="/srv/llama")
    assert isinstance(step("Qwen/Qwen3-8B"), HubModel)
    for name in ("", "qwen", "a/b/c", "org/name with space", "https://huggingface.co/Qwen/Qwen3-8B", "-o/x"):
        with pytest.raises(UsageError, match="is not a model"):
            step(name)
