"""Checks of the NVIDIA driver: that it is loaded, whole, new enough, and that CUDA starts on it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from provision.checks.base import Context, check, error, has_driver, has_gpus, on_the_machine, warning
from provision.decision import Candidate
from provision.decision.weigh import at_least
from provision.locks.coverage import of_lock
from provision.report import Finding

_check = partial(check, "driver")
# -E: no PYTHONPATH of the caller's reaches it.
CUDA_COMMAND = (sys.executable, "-E", str(Path(__file__).with_name("ask_cuda.py")))
_INSTALL = "`sudo apt-get install -y nvidia-driver-580-open && sudo reboot`"
_LIBRARIES = ("/usr/lib/*/libcuda.so.[0-9]*.*", "/usr/lib64/libcuda.so.[0-9]*.*")
# From Blackwell on only the open kernel module drives a GPU:
# https://docs.nvidia.com/datacenter/tesla/driver-installation-guide/kernel-modules.html
_OPEN_ONLY_SINCE = 10.0
# What cuInit answers (https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__TYPES.html), and what mends it.
_CODES = {
    2: ("out of memory", "another process holds all of it: `nvidia-smi` names it"),
    3: ("not initialised: the driver is up, CUDA is not", "`sudo systemctl restart nvidia-fabricmanager`, else reboot"),
    46: ("the devices are busy or unavailable", "`nvidia-smi -q -d COMPUTE`; then `sudo nvidia-smi -c DEFAULT`"),
    100: ("no device", "`unset CUDA_VISIBLE_DEVICES`; in a container start it with `--gpus all`"),
    101: ("invalid device", "`nvidia-smi -L`, and CUDA_VISIBLE_DEVICES with what it names"),
    802: ("the NVLink fabric is not up", "`sudo systemctl restart nvidia-fabricmanager`"),
    803: ("libcuda and the driver are of two versions", "`sudo reboot`; in a container: remove its own libcuda"),
    804: (
        "forward compatibility is not for this GPU",
        "remove the cuda-compat package: `sudo apt-get remove 'cuda-compat-*'`",
    ),
    999: ("unknown error", "`sudo modprobe -r nvidia_uvm && sudo modprobe nvidia_uvm`, else reboot"),
}


@_check(
    "driver-loaded",
    "An NVIDIA driver is loaded",
    looks_at="the kernel's module and the GPUs on the PCI bus",
    why="without a driver the GPU cannot be used at all, and a driver is not sgprov's to install",
    remedy=f"{_INSTALL}, or the playbook that does it",
    applies=has_gpus,
)
def driver_loaded(context: Context) -> Iterator[Finding]:
    if context.facts.driver is None:
        yield error(
            f"{len(context.facts.gpus)} NVIDIA GPU(s) are on the bus and no driver is loaded",
            f"{_INSTALL}, or the playbook that does it",
        )


@_check(
    "driver-floor",
    "The driver is new enough for the stack",
    looks_at="the driver's version against the floor of the stack's CUDA family",
    why="a CUDA 13 build on a CUDA 12 driver is the commonest failure on rented GPUs, and shows at the first launch",
    remedy="update the driver, or take a stack of an older CUDA: `sgprov bootstrap --stack NAME`",
    applies=has_driver,
)
def driver_floor(context: Context) -> Iterator[Finding]:
    if context.decision:
        yield from (finding for finding in context.decision.findings if finding.check == "driver-floor")
        return
    driver = context.facts.driver
    # Of a stack without code for the GPU no driver makes one that fits.
    floors = {one.name: one.stack.min_driver for one in context.candidates if one.stack and _has_code(context, one)}
    floors |= {one.name: one.image.min_driver for one in context.candidates if one.image}
    if driver and floors and all(at_least(driver.version, floor) is False for floor in floors.values()):
        lowest = min(floors.values(), key=lambda floor: [int(part) for part in floor.split(".")])
        listed = ", ".join(f"{name} needs {floor}" for name, floor in floors.items())
        yield error(
            f"driver {driver.version} is below every stack's floor: {listed}", f"update the driver to {lowest} or newer"
        )


@_check(
    "driver-libraries",
    "The driver's libraries are those of the loaded module",
    looks_at="the version in /sys/module/nvidia/version and in the names of libcuda.so.*",
    why="an update replaces the libraries while the old module stays loaded; from then on nothing can open the GPU",
    remedy="`sudo reboot`",
    applies=lambda context: has_driver(context) and on_the_machine(context),
)
def driver_libraries(context: Context) -> Iterator[Finding]:
    loaded = (context.view.read("/sys/module/nvidia/version") or "").strip()
    paths = [path for pattern in _LIBRARIES for path in context.view.glob(pattern)]
    versions = {found[1] for path in paths if (found := re.search(r"\.so\.(\d{3}\.[\d.]+)$", path))}
    if loaded and versions and loaded not in versions:
        yield error(
            f"the loaded module is {loaded}, libcuda is {', '.join(sorted(versions))}",
            "`sudo reboot`: an update replaced the libraries while the old module stays loaded",
        )


@_check(
    "driver-cuda-starts",
    "CUDA starts",
    looks_at="cuInit of libcuda.so.1, called by a child process without torch",
    why="nvidia-smi can look fine where CUDA does not start: no fabric manager, a wrong libcuda, a busy GPU",
    remedy="the finding says it for each code that cuInit gives",
    applies=has_driver,
)
def driver_cuda_starts(context: Context) -> Iterator[Finding]:
    outcome = context.view.query(CUDA_COMMAND)
    if not outcome.installed:
        return
    if outcome.rc is None:
        yield error(f"cuInit {outcome.ending}", "look for `Xid` in `sudo dmesg`, then `sudo reboot`")
        return
    words = outcome.out.split()
    if words == ["-"]:
        yield error(
            "libcuda.so.1 cannot be loaded: the driver's user-space libraries are missing",
            "in a container start it with `--gpus all`; on the machine: install the libraries of the loaded driver",
        )
    elif not outcome.ok or not words or not words[0].isdecimal():
        yield error(f"cuInit crashed ({outcome.ending}): {outcome.err.strip()[-200:]}", "`sudo reboot`")
    elif code := int(words[0]):
        meaning, fix = _CODES.get(code, ("an error", "`sudo dmesg | grep -i -e nvrm -e xid`"))
        yield error(f"cuInit answers {code}: {meaning}", fix, code=code)


@_check(
    "driver-open-module",
    "A Blackwell GPU has the open kernel module",
    looks_at="the kind of module in /proc/driver/nvidia/version and the compute capability",
    why="from Blackwell on only the open kernel module drives a GPU",
    remedy=_INSTALL,
    applies=has_gpus,
)
def driver_open_module(context: Context) -> Iterator[Finding]:
    driver = context.facts.driver
    if not driver or driver.open_kernel_module is not False or "NVRM" not in driver.raw:
        return
    for gpu in context.facts.gpus:
        if gpu.compute_capability and float(gpu.compute_capability) >= _OPEN_ONLY_SINCE:
            yield error(
                f"GPU {gpu.index} ({gpu.name}) needs the open kernel module, the proprietary one is loaded",
                _INSTALL,
            )
            return


@_check(
    "driver-fabric-manager",
    "The fabric manager runs where there are NVSwitches",
    looks_at="NVSwitches on the PCI bus, and the unit nvidia-fabricmanager",
    why="without it the NVLink fabric is not set up and cuInit fails with 802 or 3",
    remedy="`sudo systemctl enable --now nvidia-fabricmanager`, of exactly the driver's version",
    applies=lambda context: has_driver(context) and on_the_machine(context) and _switches(context) > 0,
)
def driver_fabric_manager(context: Context) -> Iterator[Finding]:
    outcome = context.view.query(["systemctl", "is-active", "nvidia-fabricmanager"])
    if outcome.installed and outcome.out.strip() in {"inactive", "failed"}:
        yield error(
            f"{_switches(context)} NVSwitches are here and nvidia-fabricmanager is {outcome.out.strip()}",
            "`sudo systemctl enable --now nvidia-fabricmanager`; its version must be the driver's",
        )


@_check(
    "driver-nouveau",
    "Nouveau does not hold the GPU",
    looks_at="whether the module nouveau is loaded where the NVIDIA driver is not",
    why="the free driver keeps NVIDIA's from loading, and cannot compute",
    remedy="`echo 'blacklist nouveau' | sudo tee /etc/modprobe.d/nouveau.conf; sudo update-initramfs -u; sudo reboot`",
    applies=has_gpus,
)
def driver_nouveau(context: Context) -> Iterator[Finding]:
    if context.facts.driver is None and context.view.stat("/sys/module/nouveau"):
        yield error(
            "the module nouveau holds the GPU",
            "`echo 'blacklist nouveau' | sudo tee /etc/modprobe.d/nouveau.conf`",
            "`sudo update-initramfs -u && sudo reboot`",
        )


@_check(
    "driver-device-nodes",
    "The driver's device files are there and open to us",
    looks_at="/dev/nvidiactl, /dev/nvidia-uvm and their modes",
    why="CUDA needs nvidia-uvm besides what nvidia-smi needs; after a boot nobody may have made it yet",
    remedy="`sudo nvidia-modprobe -u -c=0`",
    applies=lambda context: has_driver(context) and context.view.stat("/dev/nvidiactl") is not None,
)
def driver_device_nodes(context: Context) -> Iterator[Finding]:
    if context.view.stat("/dev/nvidia-uvm") is None:
        yield error("/dev/nvidia-uvm is missing: CUDA will not start", "`sudo nvidia-modprobe -u -c=0`")
    for path in ("/dev/nvidiactl", "/dev/nvidia-uvm"):
        if (node := context.view.stat(path)) and not node.writable:
            yield error(
                f"{path} is not open to this user (mode {node.mode:o})",
                "`sudo usermod -aG video,render $USER`, log in again",
            )


@_check(
    "driver-compat-libraries",
    "No forward-compatibility library where it does not belong",
    looks_at="/usr/local/cuda/compat and /usr/local/cuda-*/compat in LD_LIBRARY_PATH",
    why="on GeForce and RTX cards the compat libcuda fails with 804, and beside a newer driver with 803",
    remedy="`export LD_LIBRARY_PATH=` without the compat directory",
    applies=has_driver,
)
def driver_compat_libraries(context: Context) -> Iterator[Finding]:
    path = context.view.variable("LD_LIBRARY_PATH") or ""
    compat = [part for part in path.split(":") if part.rstrip("/").endswith("/compat")]
    if compat:
        yield warning(
            f"LD_LIBRARY_PATH puts {compat[0]} before the driver's own libcuda",
            "take it out unless the driver is older than the stack's CUDA and the GPU is a data-centre one",
        )


def _has_code(context: Context, one: Candidate) -> bool:
    """Whether a stack's kernels hold machine code or PTX for every GPU, whatever the driver makes of it."""
    capabilities = {gpu.compute_capability for gpu in context.gpus if gpu.compute_capability}
    rows = [row for capability in capabilities for row in (of_lock(one.lock, capability, None) if one.lock else ())]
    return all(coverage.runs for row, coverage in rows if not row.optional)


def _switches(context: Context) -> int:
    """NVSwitches: NVIDIA's PCI functions of class 0680."""
    return context.once("switches", lambda: _count_switches(context))


def _count_switches(context: Context) -> int:
    folders = (path.removesuffix("/class") for path in context.view.glob("/sys/bus/pci/devices/*/class"))
    return sum(
        (context.view.read(f"{folder}/class") or "").startswith("0x0680")
        and (context.view.read(f"{folder}/vendor") or "").strip() == "0x10de"
        for folder in folders
    )


CHECKS = (
    *(driver_loaded, driver_libraries, driver_cuda_starts, driver_floor, driver_open_module),
    *(driver_fabric_manager, driver_nouveau, driver_device_nodes, driver_compat_libraries),
)
