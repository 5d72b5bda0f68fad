"""The GPUs on the PCI bus: there with or without a driver."""

from __future__ import annotations

from dataclasses import dataclass

from provision.facts.model import Gpu
from provision.host import HostView

DEVICES = "/sys/bus/pci/devices"
_NVIDIA = "0x10de"
# VGA and 3D controllers. Audio (0403), USB (0c03), bridges (0604) and NVSwitches (0680) share the vendor.
_GPU_CLASSES = ("0x0300", "0x0302")


@dataclass(frozen=True, kw_only=True)
class PciFunction:
    """One GPU as sysfs shows it: address `0000:61:00.0`, device id `2235`, board `10de:145a`."""

    address: str
    device: str
    subsystem: str | None


def probe_pci(view: HostView) -> tuple[PciFunction, ...]:
    """The NVIDIA GPUs in `/sys/bus/pci/devices`, in the order of their addresses.

    In a container these are the machine's, whether or not they were handed in.
    """
    found = []
    for path in view.glob(f"{DEVICES}/*/vendor"):
        if (view.read(path) or "").strip() != _NVIDIA:
            continue
        folder = path.removesuffix("/vendor")
        if not (view.read(f"{folder}/class") or "").strip().startswith(_GPU_CLASSES):
            continue
        board = [_hexadecimal(view.read(f"{folder}/subsystem_{part}")) for part in ("vendor", "device")]
        found.append(
            PciFunction(
                address=folder.rpartition("/")[2],
                device=_hexadecimal(view.read(f"{folder}/device")),
                subsystem=":".join(board) if all(board) else None,
            )
        )
    return tuple(found)


def gpus_of(functions: tuple[PciFunction, ...]) -> tuple[Gpu, ...]:
    """GPUs for which no driver speaks: name and compute capability by the table, memory unknown."""
    from provision.catalog import gpus  # noqa: PLC0415  # 470 rows that a machine without a GPU need not read

    found = []
    for index, function in enumerate(functions):
        row = gpus.by_pci_id(function.device)
        found.append(
            Gpu(
                index=index,
                name=row.name_of(function.subsystem) if row else f"NVIDIA GPU {function.device}",
                pci_id=function.device,
                pci_address=function.address,
                compute_capability=row.compute_capability if row else None,
                unified_memory=row.unified_memory if row else False,
                sources={"name": "pci", "compute_capability": "pci"} if row else {"name": "pci"},
            )
        )
    return tuple(found)


def parse_address(text: str) -> str | None:
    """sysfs's form of a bus id, e.g. `0000000F:01:00.0` (nvidia-smi) -> `000f:01:00.0`."""
    domain, _, rest = text.strip().lower().partition(":")
    return f"{domain[-4:]:0>4}:{rest}" if rest else None


def _hexadecimal(text: str | None) -> str:
    return (text or "").strip().removeprefix("0x").lower()
