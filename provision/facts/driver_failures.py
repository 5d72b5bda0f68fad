"""The ways in which the driver refuses to answer, with their remedies: rows, matched by text first, then by status.

Statuses: `nvidia-smi -h`, "RETURN VALUE", and NVML's error codes, which are the same numbers. 18, a driver and a
library of two versions, is in NVML's header only: https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceEnumvs.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from provision.facts.sources import problem
from provision.report import Finding, Severity


@dataclass(frozen=True, kw_only=True)
class DriverFailure:
    """One way to fail. `usable` is whether what else was printed can still be trusted."""

    name: str
    status: int | None
    pattern: str
    text: str
    fix: tuple[str, ...]
    usable: bool = False

    def finding(self, *, said: str = "", severity: Severity | None = None) -> Finding:
        level = severity or (Severity.WARNING if self.usable else Severity.ERROR)
        text = f"{self.text} (`{said}`)" if said else self.text
        return problem("driver" if self.name in _ABOUT_THE_DRIVER else "gpus", text, severity=level, fix=self.fix)


_ABOUT_THE_DRIVER = frozenset({"mismatch", "not-loaded", "library-missing", "hangs"})

FAILURES = (
    DriverFailure(
        name="mismatch",
        status=18,
        pattern=r"version mismatch",
        text="driver/library version mismatch: the loaded NVIDIA kernel module and the driver's libraries differ",
        fix=(
            "reboot: an update replaced the libraries while the old module stays loaded",
            "or end what uses them, `sudo rmmod nvidia_uvm nvidia_drm nvidia_modeset nvidia; sudo modprobe nvidia`",
        ),
    ),
    DriverFailure(
        name="not-loaded",
        status=9,
        pattern=r"couldn't communicate with the NVIDIA driver|driver not loaded",
        text="driver-not-loaded: the NVIDIA driver is installed but not loaded",
        fix=(
            "`sudo modprobe nvidia`, then look at `sudo dmesg | grep -i nvrm`",
            "after a kernel update: install the running kernel's headers, `sudo dkms autoinstall`, reboot",
            "with Secure Boot: enrol the key the module is signed with",
        ),
    ),
    DriverFailure(
        name="library-missing",
        status=12,
        pattern=r"couldn't find libnvidia-ml|libnvidia-ml\.so.*(?:not found|cannot open)|NVML Shared Library Not Found",
        text="the driver's library libnvidia-ml.so.1 is missing or cannot be loaded",
        fix=(
            "in a container: start it with `--gpus all` under the NVIDIA runtime",
            "on the machine: reinstall the driver's user-space packages of the loaded version",
        ),
    ),
    DriverFailure(
        name="lost",
        status=15,
        pattern=r"GPU is lost|fallen off the bus|unable to determine the device handle",
        text="gpu-lost: a GPU does not answer the driver any more",
        fix=(
            "look for `Xid 79` in `sudo dmesg`, power the machine off and on; a reset is rarely enough",
            "if it comes back: seat, power cable, cooling; otherwise replace the GPU",
        ),
    ),
    DriverFailure(
        name="reset",
        status=16,
        pattern=r"requires reset",
        text="gpu-reset-required: a GPU wants to be reset before it is used again",
        fix=("stop what uses it, then `sudo nvidia-smi --gpu-reset -i INDEX`", "reboot"),
    ),
    DriverFailure(
        name="inforom",
        status=14,
        pattern=r"infoROM is corrupted",
        text="a GPU's infoROM is corrupted; its other answers are good",
        fix=("the GPU works; have it replaced when the machine is next serviced",),
        usable=True,
    ),
    DriverFailure(
        name="no-devices",
        status=6,
        pattern=r"No devices were found|No devices found",
        text="no-devices: the NVIDIA driver is loaded but finds no GPU",
        fix=(
            "look at `sudo dmesg | grep -i nvrm`: a GPU that failed to start says so there",
            "a GPU newer than the driver needs a newer driver, and since Blackwell the open kernel module",
            "in a container: hand the GPUs in (`--gpus all`)",
        ),
    ),
    DriverFailure(
        name="permission",
        status=4,
        pattern=r"insufficient permissions",
        text="this user may not ask the driver",
        fix=("give the user access to /dev/nvidia* (group `video` or `render`)",),
    ),
)

HANGS = DriverFailure(
    name="hangs",
    status=None,
    pattern=r"(?!)",
    text="the NVIDIA driver hangs",
    fix=(
        "look for `Xid` and `hung_task` in `sudo dmesg`, then reboot: a process stuck in the driver cannot be ended",
        "enable persistence (`sudo nvidia-smi -pm 1`) if it is only the first call after a pause that is slow",
    ),
)


def explain(text: str, status: int | None) -> DriverFailure | None:
    """The row for what was printed, or else for the exit status; the text decides where both are known."""
    for failure in FAILURES:
        if re.search(failure.pattern, text, re.IGNORECASE):
            return failure
    return next((failure for failure in FAILURES if status is not None and failure.status == status), None)
