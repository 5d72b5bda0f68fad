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


class Library(ModuleType):
    """An A100 in four parts, a GB10 without memory of its own, and a GPU that is lost."""

    NVMLError = NvmlError
    NVML_ERROR_GPU_IS_LOST = 15

    def __init__(self, *, loaded: bool = True) -> None:
        super().__init__("pynvml")
        self.loaded = loaded

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.loaded:
            raise NvmlError(9)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvml"):
            raise AttributeError(name)
        answers: dict[str, list[Any]] = {
            "nvmlDeviceGetName": [b"NVIDIA A100-SXM4-80GB", "NVIDIA GB10"],
            "nvmlDeviceGetUUID": ["GPU-1", "GPU-2"],
            "nvmlDeviceGetPciInfo": [
                SimpleNamespace(busId=b"00000000:61:00.0", pciDeviceId=0x20B210DE),
                SimpleNamespace(busId="0000000F:01:00.0", pciDeviceId=0x2E1210DE),
            ],
            "nvmlDeviceGetMemoryInfo": [SimpleNamespace(total=81920 * 2**20, used=2**20), None],
            "nvmlDeviceGetCudaComputeCapability": [(8, 0), (12, 1)],
            "nvmlDeviceGetMigMode": [(1, 1), None],
            "nvmlDeviceGetEccMode": [(1, 1), None],
            "nvmlDeviceGetMaxMigDeviceCount": [7, None],
        }

        def ask(*given: Any) -> Any:
            if name in {"nvmlDeviceGetCount", "nvmlSystemGetDriverVersion", "nvmlSystemGetCudaDriverVersion_v2"}:
                return {"t": 3, "n": b"580.95.05", "2": 13000}[name[-1]]
            if name == "nvmlDeviceGetHandleByIndex":
                if given[0] == 2:
                    raise NvmlError(15)
                return given[0]
            if name == "nvmlDeviceGetMigDeviceHandleByIndex":
                if given[1] > 1:
                    raise NvmlError(3)
                return f"NVIDIA A100-SXM4-80GB MIG {('3g.40gb', '1g.10gb')[given[1]]}"
            if isinstance(given[0], str):
                return given[0]
            answer = answers[name][given[0]]
            if answer is None:
                raise NvmlError(3)
            return answer

        return ask


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


def test_a_driver_that_is_not_loaded(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Library(loaded=False))
    ask_nvml.main()
    assert json.loads(capsys.readouterr().out) == {"error": {"code": 9, "text": "Driver Not Loaded"}}


def test_a_binding_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    ask_nvml.main()
    assert json.loads(capsys.readouterr().out)["error"]["code"] is None
