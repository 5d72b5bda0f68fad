"""Asks NVML and prints one JSON object; run as a child, because a wedged driver hangs inside the library.

It imports nothing of this package: the child starts in the time of a bare interpreter.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any


def main() -> int:
    try:
        import pynvml  # noqa: PLC0415
    except ImportError as error:
        return _tell({"error": {"code": None, "text": str(error)}})
    try:
        pynvml.nvmlInit()
        return _tell(_answer(pynvml))
    except pynvml.NVMLError as error:
        return _tell({"error": {"code": getattr(error, "value", None), "text": str(error)}})


def _answer(nvml: Any) -> dict[str, Any]:
    cuda = _optional(nvml, nvml.nvmlSystemGetCudaDriverVersion_v2)
    gpus, errors = [], []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            gpus.append(_gpu(nvml, index))
        except nvml.NVMLError as error:
            errors.append({"index": index, "code": getattr(error, "value", None), "text": str(error)})
    return {
        "driver": _text(nvml.nvmlSystemGetDriverVersion()),
        # 12040 is CUDA 12.4.
        "cuda": f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
        "gpus": gpus,
        "errors": errors,
    }


def _gpu(nvml: Any, index: int) -> dict[str, Any]:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    pci = _optional(nvml, nvml.nvmlDeviceGetPciInfo, handle)
    # The second version leaves out what the driver reserves (615 MiB of an idle H200), as nvidia-smi does since 510.
    memory = _optional(nvml, _memory_without_reserve, nvml, handle) or _optional(
        nvml, nvml.nvmlDeviceGetMemoryInfo, handle
    )
    capability = _optional(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle)
    mig = _optional(nvml, nvml.nvmlDeviceGetMigMode, handle)
    ecc = _optional(nvml, nvml.nvmlDeviceGetEccMode, handle)
    return {
        "index": index,
        "name": _text(nvml.nvmlDeviceGetName(handle)),
        "uuid": _text(_optional(nvml, nvml.nvmlDeviceGetUUID, handle)),
        "pci_address": _text(pci.busId) if pci else None,
        # The low half is the vendor: 0x2e1210de.
        "pci_id": f"{pci.pciDeviceId >> 16:04x}" if pci else None,
        "compute_capability": f"{capability[0]}.{capability[1]}" if capability else None,
        "memory_mib": memory.total // 2**20 if memory else None,
        "memory_used_mib": memory.used // 2**20 if memory else None,
        "mig": bool(mig[0]) if mig else None,
        "mig_instances": _instances(nvml, handle) if mig and mig[0] else [],
        "ecc": bool(ecc[0]) if ecc else None,
    }


def _memory_without_reserve(nvml: Any, handle: Any) -> Any:
    return nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)


def _instances(nvml: Any, handle: Any) -> list[str]:
    """The profiles of the instances there are, from names such as `NVIDIA A100-SXM4-80GB MIG 1g.10gb`."""
    found = []
    for index in range(_optional(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        with contextlib.suppress(nvml.NVMLError):
            instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
            found.append(_text(nvml.nvmlDeviceGetName(instance)).rpartition("MIG ")[2])
    return found


def _optional(nvml: Any, ask: Any, *given: Any) -> Any:
    """An answer, or None where this GPU or this driver has none (a GB10 has no memory of its own)."""
    try:
        return ask(*given)
    except nvml.NVMLError as error:
        # What a lost GPU answers is no "not supported": the caller reports it.
        if getattr(error, "value", None) == nvml.NVML_ERROR_GPU_IS_LOST:
            raise
        return None


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _tell(answer: dict[str, Any]) -> int:
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
