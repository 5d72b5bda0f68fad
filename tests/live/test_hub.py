"""Models fetched by the real huggingface_hub from a hub of our own on this machine."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from live.hub import COMMIT, TOKEN, Hub, serving

from provision.catalog.engines import engine
from provision.environments import uv
from provision.errors import CheckFailed, StepFailed
from provision.host.local import LocalHost
from provision.steps.base import Progress
from provision.steps.model import HubModel
from provision.steps.model_demands import Demands
from provision.steps.model_files import HubCopy

pytestmark = pytest.mark.network


def weights(size: int) -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}})
    return len(header).to_bytes(8, "little") + header.encode() + bytes(size)


FILES = {
    "config.json": b'{"architectures": ["LlamaForCausalLM"]}',
    "tokenizer.json": b"{}",
    "model.safetensors": weights(3_000_000),
    "pytorch_model.bin": b"the same again",
}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(FILES) as state:
        yield state


# The oldest and the newest that our locks hold: 1.x speaks httpx where 0.x speaks requests.
@pytest.fixture(scope="module", params=["huggingface-hub==0.25.2", "huggingface-hub==0.36.0", "huggingface-hub>=1.33"])
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("hub"))
    host = LocalHost(os.environ)
    host.run([uv.program(), "venv", "-q", "--python", sys.executable, folder])
    host.run([uv.program(), "pip", "install", "-q", "--python", f"{folder}/bin/python", request.param])
    return f"{folder}/bin/python"


class Box:
    def __init__(self, folder: Path, python: str, hub: Hub) -> None:
        self.variables = {"PATH": os.environ["PATH"], "HOME": str(folder), "HF_ENDPOINT": hub.url}
        self.host = LocalHost(self.variables)
        self.folder, self.python = folder, python

    def step(self, model: str, revision: str = "main") -> HubModel:
        models, huggingface = str(self.folder / "models"), str(self.folder / "hf")
        copy = HubCopy(model=model, models=models, huggingface=huggingface, revision=revision)
        return HubModel(copy=copy, python=self.python)

    def failure(self, step: HubModel, host: LocalHost | None = None) -> StepFailed:
        assert not step.satisfied(self.host)
        with pytest.raises(StepFailed) as caught:
            step.apply(host or self.host, lambda _: None)
        return caught.value


@pytest.fixture
def box(tmp_path: Path, python: str, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Box:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return Box(tmp_path, python, hub)


def test_what_cannot_be_served_is_told_by_its_configuration_alone(box: Box, hub: Hub) -> None:
    step = box.step("org/open")
    sglang = engine("sglang")
    (served,) = sglang.rows(sglang.architectures, "0.5.23")
    step = replace(step, demands=Demands(served=served))
    with pytest.raises(CheckFailed, match="LlamaForCausalLM"):
        step.apply(box.host, lambda _: None)
    assert not any("safetensors" in line for line in hub.seen), "no weights were fetched for that"
    with pytest.raises(CheckFailed):
        step.check(box.host)


def test_fetched_once_and_then_found_without_the_hub(box: Box, hub: Hub) -> None:
    step, told = box.step("org/open"), list[Progress]()
    assert not step.satisfied(box.host)
    note = step.apply(box.host, told.append).note
    assert note.startswith("`org/open` in `") and "fetching `org/open`: 3 files" in told[0].text
    assert not any("pytorch_model.bin" in line for line in hub.seen), "the same weights in another format"
    hub.seen.clear()
    assert step.satisfied(LocalHost({})) and hub.seen == []
    path = step.path(box.host)
    assert path and path.endswith(COMMIT)


def test_one_that_was_cut_short_is_fetched_again(box: Box) -> None:
    step = box.step("org/open")
    step.apply(box.host, lambda _: None)
    blob = Path(step.path(box.host) or "", "model.safetensors").resolve()
    blob.unlink()
    assert not step.satisfied(box.host)
    step.apply(box.host, lambda _: None)
    assert step.satisfied(box.host)


def test_gated_without_and_with_a_token(box: Box, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    error = box.failure(box.step("org/gated"))
    assert str(error).startswith("`org/gated` is gated") and "https://huggingface.co/org/gated" in (error.hint or "")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "is gated" in str(box.failure(box.step("org/gated")))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    box.step("org/gated").apply(box.host, lambda _: None)
    assert TOKEN in hub.tokens


def test_what_is_not_there(box: Box) -> None:
    assert "the hub has no model `org/nothing`" in str(box.failure(box.step("org/nothing")))
    assert "no revision `nowhere`" in str(box.failure(box.step("org/open", revision="nowhere")))


def test_a_hub_out_of_reach(box: Box) -> None:
    host = LocalHost({**box.variables, "HF_ENDPOINT": "http://127.0.0.1:9"})
    error = box.failure(box.step("org/open"), host)
    assert "the hub is out of reach" in str(error) and "HF_ENDPOINT" in (error.hint or "")
    offline = LocalHost({**box.variables, "HF_HUB_OFFLINE": "1"})
    assert "HF_HUB_OFFLINE" in str(box.failure(box.step("org/open"), offline))


def test_too_large_is_refused_before_anything_is_fetched(box: Box, hub: Hub) -> None:
    with pytest.raises(CheckFailed, match=r"needs 3000\d+\.\d GB more"):
        box.step("org/large").apply(box.host, lambda _: None)
    assert not any("resolve" in line for line in hub.seen)
