"""Models of somebody else's: weights that run code, code that comes along, names and revisions that move."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import FakeHost

from provision.bootstrap import make_plan
from provision.config import Options, load
from provision.errors import CheckFailed, UsageError
from provision.plan import Plan
from provision.steps import hub_fetch
from provision.steps.model import HubModel, LocalModel
from provision.steps.model_demands import Demands
from provision.steps.model_files import PICKLES, HubCopy
from provision.steps.receipt import WriteReceipt

CONFIG = {"/m/config.json": '{"model_type": "gpt2"}', "/m/tokenizer.json": "{}"}
COMMIT = "c1899de289a04d12100db370d81485cdf75e47ca"


def name_of(pattern: str) -> str:
    return f"pytorch_model{pattern[1:]}"


@pytest.mark.tried("supply chain", "a directory whose weights are pickles, without `--allow-pickle`")
@pytest.mark.parametrize("pattern", PICKLES)
def test_pickles_on_the_disk(pattern: str) -> None:
    host = FakeHost({**CONFIG, f"/m/{name_of(pattern)}": "pickle"})
    step = LocalModel(path="/m")
    assert not step.satisfied(host)
    with pytest.raises(CheckFailed, match="can run any code") as caught:
        step.check(host)
    assert "--allow-pickle" in (caught.value.hint or "")
    assert LocalModel(path="/m", demands=Demands(allow_pickle=True)).satisfied(host)
    assert LocalModel(path="/m", demands=Demands(load_format="dummy")).satisfied(host)


@pytest.mark.tried("supply chain", "an engine told to load the pickles that lie beside safetensors")
@pytest.mark.parametrize("extra", [("--load-format", "pt"), ("--load-format=npcache",)])
def test_pickles_by_an_argument(extra: tuple[str, ...], tmp_path: Path) -> None:
    plan = planned(Options(target="cpu", prefix=str(tmp_path), model="/m", extra=extra))
    step = next(step for step in plan.steps if isinstance(step, LocalModel))
    header = json.dumps({"w": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}).encode()
    weights = (len(header).to_bytes(8, "little") + header).decode()
    host = FakeHost({**CONFIG, "/m/model.safetensors": weights, "/m/pytorch_model.bin": "pickle"})
    assert LocalModel(path="/m").satisfied(host), "what lies there and is not loaded does no harm"
    with pytest.raises(CheckFailed, match="pickle files"):
        step.check(host)


@dataclass
class FakeHub:
    """What the script asks of huggingface_hub."""

    names: tuple[str, ...]
    ignored: list[str] | None = None
    constants: Any = field(default_factory=lambda: SimpleNamespace(HF_HUB_CACHE="/nowhere"))

    def HfApi(self) -> Any:  # noqa: N802  # as the library has it
        siblings = [SimpleNamespace(rfilename=name, size=1) for name in self.names]
        return SimpleNamespace(model_info=lambda *_, **__: SimpleNamespace(id="o/n", sha=COMMIT, siblings=siblings))

    def try_to_load_from_cache(self, *_: object, **__: object) -> None: ...

    def snapshot_download(self, *_: object, ignore_patterns: list[str], **__: object) -> str:
        self.ignored = ignore_patterns
        return "/nowhere"


def fetched(hub: FakeHub, capsys: pytest.CaptureFixture[str], *, allow: bool) -> list[dict[str, Any]]:
    request = {
        "model": "o/n",
        "revision": "main",
        "free_bytes": 1 << 40,
        "ignore": ["*.bin"],
        "pickles": PICKLES,
        "weights": True,
        "allow_pickle": allow,
    }
    hub_fetch.fetch(hub, request)
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.tried("supply chain", "a model of the hub whose weights are pickles, without `--allow-pickle`")
@pytest.mark.parametrize("pattern", PICKLES)
def test_pickles_on_the_hub(pattern: str, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("config.json", name_of(pattern))
    hub = FakeHub(names)
    (event,) = fetched(hub, capsys, allow=False)
    assert (event["event"], event["kind"], event["names"]) == ("error", "pickle", [names[1]])
    assert hub.ignored is None, "nothing was fetched"
    assert fetched(hub, capsys, allow=True)[-1]["event"] == "done" and hub.ignored == []


@pytest.mark.tried("supply chain", "pickles beside the safetensors or GGUF files of a model of the hub")
@pytest.mark.parametrize("other", ["model.safetensors", "model-q4.gguf"])
def test_pickles_beside(other: str, capsys: pytest.CaptureFixture[str]) -> None:
    hub = FakeHub(("config.json", "pytorch_model.bin", other))
    assert fetched(hub, capsys, allow=False)[-1]["event"] == "done"
    assert "*.bin" in (hub.ignored or [])


def planned(wishes: Options) -> Plan:
    host = FakeHost({"/proc/sys/kernel/random/boot_id": "b", "/proc/sys/kernel/hostname": "m"})
    return make_plan(host, wishes, assumed="target")


def test_a_revision_is_what_is_fetched_and_written_down() -> None:
    wishes = Options(target="cpu", prefix="/p", model="org/name", cache_directory="/hf", revision=COMMIT)
    plan = planned(wishes)
    step = next(step for step in plan.steps if isinstance(step, HubModel))
    assert step.copy == HubCopy(model="org/name", models="/p/models", huggingface="/hf", revision=COMMIT)
    folder = "/hf/hub/models--org--name"
    other = {f"{folder}/refs/main": "other", f"{folder}/snapshots/other/config.json": "{}"}
    host = FakeHost({**other, "/p/models/org/name/config.json": "{}"})
    assert step.path(host) is None, "neither another commit nor a copy of an unknown one stands in for it"
    host.files[f"{folder}/snapshots/{COMMIT}/config.json"] = "{}"
    assert step.path(host) == f"{folder}/snapshots/{COMMIT}"
    receipt = next(step for step in plan.steps if isinstance(step, WriteReceipt))
    assert receipt._whole(host).model_revision == COMMIT
    moving = next(
        step for step in planned(Options(**{**vars(wishes), "revision": None})).steps if isinstance(step, WriteReceipt)
    )
    assert moving._whole(FakeHost(other)).model_revision == "other"


@pytest.mark.tried("supply chain", "a model that a container fetches by itself, with pickles in place of safetensors")
def test_a_container_loads_no_pickles() -> None:
    def argv(**more: Any) -> str:
        return " ".join(planned(Options(target="gb10", prefix="/p", model="org/name", **more)).launch.argv)

    assert "--load-format safetensors" in argv()
    assert "--load-format" not in argv(allow_pickle=True)
    assert f"--revision {COMMIT}" in argv(revision=COMMIT)


@pytest.mark.tried("supply chain", "a revision that leads out of the cache, or is an option")
@pytest.mark.parametrize(
    "revision", ["../../..", "a/../../b", "-main", "/etc", "", "a b", "a\nb", "main;sh", "a" * 300]
)
def test_a_revision_that_is_none(revision: str) -> None:
    with pytest.raises(UsageError):
        load({"revision": revision})


@pytest.mark.tried("supply chain", "a cache whose `refs` lead elsewhere")
@pytest.mark.parametrize("commit", ["../../../evil", "/evil", "..", ".", "", "a/b", "-x"])
def test_a_reference_that_leads_out(commit: str) -> None:
    folder = "/hf/hub/models--org--name"
    files = {f"{folder}/refs/main": commit, "/hf/evil/config.json": "{}", "/evil/config.json": "{}"}
    host = FakeHost({**files, f"{folder}/snapshots/a/b/config.json": "{}"})
    assert HubCopy(model="org/name", models="/m", huggingface="/hf").path(host) is None


def test_a_revision_of_what_is_not_on_the_hub() -> None:
    for model in ("/m", "builtin:tiny-gpt2", None):
        with pytest.raises(UsageError, match="revision"):
            planned(Options(target="cpu", prefix="/p", model=model, revision="main"))


@pytest.mark.tried("supply chain", "a model that brings its own code: no target has an engine run it")
@pytest.mark.parametrize("target", ["cpu", "a100", "gb10", "a40-lmdeploy"])
def test_no_launch_runs_the_code_of_a_model(target: str) -> None:
    plan = planned(Options(target=target, prefix="/p", model="org/name"))
    assert not any("trust" in word for word in plan.launch.argv)
    assert not any("TRUST" in name for name in plan.launch.variables)


@pytest.mark.tried("supply chain", "`allow_pickle` from a variable, or from a file that nobody named")
def test_allow_pickle_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sgprov.yml").write_text("allow_pickle: true\n")
    with pytest.raises(UsageError):
        load({})
    (tmp_path / "sgprov.yml").unlink()
    monkeypatch.setenv("SGPROV_ALLOW_PICKLE", "1")
    with pytest.raises(UsageError):
        load({})
