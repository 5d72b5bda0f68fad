"""The child that asks NVML, with a library that answers as real ones do."""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from provision.facts import ask_nvml
from provision.facts.nvml import parse_nvml


class NvmlError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.value = value

    def __str__(self) -> str:
        return {3: "Not Supported", 9: "Driver Not Loaded", 15: "GPU is lost"}[self.value]


WHOLE = {
    "nvmlDeviceGetCount": 3,
    "nvmlSystemGetDriverVersion": b"580.95.05",
    "nvmlSystemGetCudaDriverVersion_v2": 13000,
}
INSTANCES = ("NVIDIA A100-SXM4-80GB MIG 3g.40gb", "NVIDIA A100-SXM4-80GB MIG 1g.10gb")
EACH: dict[str, tuple[Any, ...]] = {
    "nvmlDeviceGetHandleByIndex": (0, 1, -15),
    "nvmlDeviceGetName": (b"NVIDIA A100-SXM4-80GB", "NVIDIA GB10"),
    "nvmlDeviceGetUUID": ("GPU-1", "GPU-2"),
    "nvmlDeviceGetPciInfo": (
        SimpleNamespace(busId=b"00000000:61:00.0", pciDeviceId=0x20B210DE),
        SimpleNamespace(busId="0000000F:01:00.0", pciDeviceId=0x2E1210DE),
    ),
    "nvmlDeviceGetMemoryInfo": (SimpleNamespace(total=81920 * 2**20, used=2**20), -3),
    "nvmlDeviceGetCudaComputeCapability": ((8, 0), (12, 1)),
    "nvmlDeviceGetMigMode": ((1, 1), -3),
    "nvmlDeviceGetEccMode": ((1, 1), -3),
    "nvmlDeviceGetMaxMigDeviceCount": (7, -3),
}


class Library(ModuleType):
    """An A100 in four parts, a GB10 without memory of its own, and a GPU that is lost."""

    NVMLError = NvmlError
    NVML_ERROR_GPU_IS_LOST = 15
    nvmlMemory_v2 = 2  # noqa: N815
    second_memory = True

    def __init__(self, *, loaded: bool = True) -> None:
        super().__init__("pynvml")
        self.loaded = loaded

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.loaded:
            raise NvmlError(9)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvml"):
            raise AttributeError(name)

        def ask(*given: Any, version: int = 1) -> Any:
            if version == self.nvmlMemory_v2 and not self.second_memory:
                raise NvmlError(3)
            answer = self.answer(name, *given)
            if isinstance(answer, int) and answer < 0:
                raise NvmlError(-answer)
            return answer

        return ask

    @staticmethod
    def answer(name: str, *given: Any) -> Any:
        """What is asked of a GPU by its number, or of an instance by its name; below zero is an error."""
        if not given:
            return WHOLE[name]
        if isinstance(given[0], str):
            return given[0]
        if name == "nvmlDeviceGetMigDeviceHandleByIndex":
            return INSTANCES[given[1]] if given[1] < len(INSTANCES) else -3
        return EACH[name][given[0]]


def test_what_it_prints_is_what_is_parsed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Library())
    assert ask_nvml.main() == 0
    answer = parse_nvml(capsys.readouterr().out)
    assert answer is not None
    assert (answer.driver, answer.cuda) == ("580.95.05", "13.0")
    a100, gb10 = answer.gpus
    assert (a100.name, a100.memory_mib, a100.pci_id, a100.ecc) == ("NVIDIA A100-SXM4-80GB", 81920, "20b2", True)
    assert a100.mig is not None and a100.mig.instances == ("3g.40gb", "1g.10gb")
    assert (gb10.memory_mib, gb10.mig, gb10.ecc, gb10.compute_capability) == (None, None, None, "12.1")
    assert ["GPU 2" in problem.text for problem in answer.problems] == [True]


def test_a_driver_without_the_second_memory_call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    library = Library()
    library.second_memory = False
    monkeypatch.setitem(sys.modules, "pynvml", library)
    ask_nvml.main()
    assert json.loads(capsys.readouterr().out)["gpus"][0]["memory_mib"] == 81920


def test_a_driver_that_is_not_loaded(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Library(loaded=False))
    ask_nvml.main()
    assert json.loads(capsys.readouterr().out) == {"error": {"code": 9, "text": "Driver Not Loaded"}}


def test_a_binding_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    ask_nvml.main()
    assert json.loads(capsys.readouterr().out)["error"]["code"] is None
