"""Cases of the GPU, driver, choice and topology checks."""

from __future__ import annotations

from dataclasses import replace

import msgspec
from unit.checks.machines import A40, A100, GB10, H100, Case, answer, info, machine, problem, process

from provision.checks.base import Context
from provision.checks.driver import CUDA_COMMAND
from provision.checks.smi_state import FIELDS
from provision.config import Options
from provision.facts.model import Cpu, Driver, Link, Mig
from provision.host import Outcome

_STATE = f"nvidia-smi --query-gpu={','.join(FIELDS)}"
_WELL = "0, Enabled, Default, 0, No, 0x0000000000000001, 16, 16\n"
_CUDA = " ".join(CUDA_COMMAND)
_PAIR = tuple(
    Link(a=a, b=b, kind="NV12" if (a, b) in {(0, 1), (2, 3)} else "SYS") for a in range(4) for b in range(a + 1, 4)
)
_MESH = tuple(replace(link, kind="NV12") for link in _PAIR)
_SYS = tuple(replace(link, kind="SYS") for link in _PAIR)


def _state(line: str) -> dict[str, Outcome]:
    return {_STATE: answer(line)}


_CASES_OF_STATE = tuple(
    Case(
        check,
        text,
        lambda line=line: machine(A40, answers=_state(line)),  # type: ignore[misc]
        lambda: machine(A40, answers=_state(_WELL)),
    )
    for check, text, line in (
        ("gpu-ecc-errors", "3 uncorrectable", "0, Enabled, Default, 3, Yes, 0x1, 16, 16\n"),
        ("gpu-throttling", "hardware thermal", "0, Enabled, Default, 0, No, 0x0000000000000040, 16, 16\n"),
        ("gpu-persistence", "off on GPU 0", "0, Disabled, Default, 0, No, 0x1, 16, 16\n"),
        ("gpu-compute-mode", "Exclusive_Process", "0, Enabled, Exclusive_Process, 0, No, 0x1, 16, 16\n"),
        ("gpu-pcie-width", "4 of 16", "0, Enabled, Default, [N/A], [N/A], 0x1, 4, 16\n"),
    )
)

_SWITCH = {
    "/sys/bus/pci/devices/0000:05:00.0/class": "0x068000\n",
    "/sys/bus/pci/devices/0000:05:00.0/vendor": "0x10de\n",
}


def _linked(links: tuple[Link, ...]) -> Context:
    made = machine(A100)
    return replace(made, facts=replace(made.facts, links=links), _answers={})


def _mixed(variables: dict[str, str]) -> Context:
    made = machine(A40, variables=variables)
    both = (*made.facts.gpus, replace(made.facts.gpus[0], index=1, name="NVIDIA A10"))
    return replace(made, facts=replace(made.facts, gpus=both), gpus=both, _answers={})


def _two_nodes(balancing: str) -> Context:
    files = {"/proc/sys/kernel/numa_balancing": balancing}
    return machine(A100, files=files, cpu=Cpu(cores=64, numa_nodes=2))


CASES = (
    Case(
        "gpu-answers",
        "mismatch",
        lambda: machine(A40, problems=(problem("facts.driver", "driver/library version mismatch"),)),
        lambda: machine(A40),
    ),
    Case("gpu-memory-known", "no memory size", lambda: machine(A40), lambda: machine(A40, gpus={"memory_mib": 46068})),
    Case(
        "gpu-mixed",
        "2 kinds",
        lambda: _mixed({}),
        lambda: machine(A40),
    ),
    Case(
        "gpu-visible",
        "is empty",
        lambda: machine(A40, variables={"CUDA_VISIBLE_DEVICES": ""}),
        lambda: machine(A40),
    ),
    Case(
        "gpu-visible",
        "gets no GPU",
        lambda: machine(A40, variables={"NVIDIA_VISIBLE_DEVICES": "void"}),
        lambda: machine(A40, variables={"NVIDIA_VISIBLE_DEVICES": "all"}),
    ),
    Case(
        "gpu-visible",
        "names 7",
        lambda: machine(A40, variables={"CUDA_VISIBLE_DEVICES": "0,7"}),
        lambda: machine(A40),
    ),
    Case(
        "gpu-mig",
        "without an instance",
        lambda: machine(A100, gpus={"mig": Mig(enabled=True)}),
        lambda: machine(A100, gpus={"mig": Mig(enabled=False)}),
    ),
    Case(
        "gpu-mig",
        "2 MIG instances",
        lambda: machine(A100, gpus={"mig": Mig(enabled=True, instances=("1g.10gb", "1g.10gb"))}),
        lambda: machine(A100),
    ),
    Case(
        "gpu-foreign-processes",
        "pid 99 (python, user me) holds 20,480 MiB",
        lambda: machine(
            A40,
            answers={"nvidia-smi --query-compute-apps": answer("99, python, 20480\n")},
            running=(process(99, "python train.py"),),
        ),
        lambda: machine(A40, answers={"nvidia-smi --query-compute-apps": answer("77, gnome-shell, 120\n")}),
    ),
    Case(
        "gpu-foreign-processes",
        "not visible from here",
        lambda: machine(A40, gpus={"memory_mib": 46068, "memory_used_mib": 30000}),
        lambda: machine(A40, gpus={"memory_mib": 46068, "memory_used_mib": 4}),
    ),
    *_CASES_OF_STATE,
    Case("driver-loaded", "no driver is loaded", lambda: machine("gpu=A40,python=3.10"), lambda: machine(A40)),
    Case(
        "driver-libraries",
        "libcuda is 550.144.03",
        lambda: machine(
            A40,
            files={
                "/sys/module/nvidia/version": "550.90.07\n",
                "/usr/lib/x86_64-linux-gnu/libcuda.so.550.144.03": "",
            },
        ),
        lambda: machine(
            A40,
            files={"/sys/module/nvidia/version": "550.90.07\n", "/usr/lib/x86_64-linux-gnu/libcuda.so.550.90.07": ""},
        ),
    ),
    Case(
        "driver-cuda-starts",
        "cuInit answers 802: the NVLink fabric",
        lambda: machine(A40, answers={_CUDA: answer("802 13000 0\n")}),
        lambda: machine(A40, answers={_CUDA: answer("0 13000 1\n")}),
    ),
    Case(
        "driver-cuda-starts",
        "gave no answer",
        lambda: machine(A40, answers={_CUDA: Outcome((), None, seconds=10)}),
        lambda: machine(A40),
    ),
    Case(
        "driver-cuda-starts",
        "cannot be loaded",
        lambda: machine(A40, answers={_CUDA: answer("-\n")}),
        lambda: machine(A40),
    ),
    Case(
        "driver-cuda-starts",
        "crashed (exited -11)",
        lambda: machine(A40, answers={_CUDA: answer("", rc=-11)}),
        lambda: machine(A40),
    ),
    Case(
        "driver-floor",
        "below every stack's floor",
        lambda: machine("gpu=GeForce RTX 3090,driver=470.57.02,python=3.10"),
        lambda: machine(A40),
    ),
    # No driver makes a stack without code for the GPU one that fits.
    Case(
        "driver-floor",
        "below every stack's floor",
        lambda: machine("gpu=GeForce RTX 3090,driver=470.57.02,python=3.10"),
        lambda: machine(
            "gpu=Thor,compute_capability=11.0,driver=450.80.02,python=3.10", wishes=Options(target="nvidia")
        ),
    ),
    Case(
        "driver-floor",
        "forward-compatibility",
        lambda: machine("gpu=A40,driver=515.105.01,python=3.10"),
        lambda: machine(A40),
    ),
    Case(
        "driver-open-module",
        "needs the open kernel module",
        lambda: machine(
            GB10,
            driver=Driver(version="580.95.05", open_kernel_module=False, raw="NVRM version: NVIDIA UNIX Kernel Module"),
        ),
        lambda: machine(
            GB10,
            driver=Driver(
                version="580.95.05", open_kernel_module=True, raw="NVRM version: NVIDIA UNIX Open Kernel Module"
            ),
        ),
    ),
    Case(
        "driver-fabric-manager",
        "1 NVSwitches are here and nvidia-fabricmanager is inactive",
        lambda: machine(H100, files=_SWITCH, answers={"systemctl is-active": answer("inactive\n", rc=3)}),
        lambda: machine(H100, files=_SWITCH, answers={"systemctl is-active": answer("active\n")}),
    ),
    Case(
        "driver-nouveau",
        "nouveau holds the GPU",
        lambda: machine("gpu=A40,python=3.10", paths={"/sys/module/nouveau": info(is_directory=True)}),
        lambda: machine("gpu=A40,python=3.10"),
    ),
    Case(
        "driver-device-nodes",
        "/dev/nvidia-uvm is missing",
        lambda: machine(A40, paths={"/dev/nvidiactl": info(mode=0o666)}),
        lambda: machine(A40, paths={"/dev/nvidiactl": info(mode=0o666), "/dev/nvidia-uvm": info(mode=0o666)}),
    ),
    Case(
        "driver-device-nodes",
        "not open to this user",
        lambda: machine(
            A40, paths={"/dev/nvidiactl": info(mode=0o660, writable=False), "/dev/nvidia-uvm": info(mode=0o666)}
        ),
        lambda: machine(A40, paths={"/dev/nvidiactl": info(mode=0o666), "/dev/nvidia-uvm": info(mode=0o666)}),
    ),
    Case(
        "driver-compat-libraries",
        "before the driver's own libcuda",
        lambda: machine(A40, variables={"LD_LIBRARY_PATH": "/usr/local/cuda/compat:/usr/lib"}),
        lambda: machine(A40, variables={"LD_LIBRARY_PATH": "/usr/lib"}),
    ),
    Case(
        "target-fits",
        "no stack fits",
        lambda: machine("gpu=Thor,compute_capability=11.0,driver=580.95.05,python=3.12"),
        lambda: machine(A40),
    ),
    Case(
        "target-fits",
        "target `a100` does not fit",
        lambda: machine(A40, wishes=Options(target="a100")),
        lambda: machine(A40, wishes=Options(target="a40")),
    ),
    Case("target-model", "no model of its own", lambda: _without_model(machine(A100)), lambda: machine(A100)),
    Case(
        "kernels-cover-gpu",
        "no locked stack holds",
        lambda: machine("gpu=Thor,compute_capability=11.0,driver=580.95.05,python=3.12"),
        lambda: machine(A40),
    ),
    Case("topology-nvlink", "0-1, 2-3", lambda: _linked(_PAIR), lambda: _linked(_MESH)),
    Case("topology-across-sockets", "6 of 6 pairs", lambda: _linked(_SYS), lambda: _linked(_MESH)),
    Case(
        "topology-peer-access",
        "1 pairs of GPUs have no peer access (CNS)",
        lambda: machine(
            A100, answers={"nvidia-smi topo -p2p r": answer(" \tGPU0\tGPU1\n GPU0\tX\tCNS\n GPU1\tCNS\tX\n")}
        ),
        lambda: machine(
            A100, answers={"nvidia-smi topo -p2p r": answer(" \tGPU0\tGPU1\n GPU0\tX\tOK\n GPU1\tOK\tX\n")}
        ),
    ),
    Case(
        "topology-iommu",
        "not in pass-through",
        lambda: machine(A100, files={"/proc/cmdline": "ro quiet\n", "/sys/class/iommu/dmar0": ""}),
        lambda: machine(A100, files={"/proc/cmdline": "ro iommu=pt\n", "/sys/class/iommu/dmar0": ""}),
    ),
    Case(
        "topology-acs",
        "on at 2 PCI bridges",
        lambda: machine(
            A100, answers={"lspci -vvv": answer("\t\tACSCtl:\tSrcValid+ \n\t\tACSCtl:\tSrcValid+ Trans\n")}
        ),
        lambda: machine(A100, answers={"lspci -vvv": answer("\t\tACSCtl:\tSrcValid- \n")}),
    ),
    Case(
        "topology-numa-balancing",
        "is on",
        lambda: _two_nodes("1\n"),
        lambda: _two_nodes("0\n"),
    ),
    Case(
        "topology-order",
        "by speed",
        lambda: _mixed({}),
        lambda: _mixed({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}),
    ),
)


def _without_model(context: Context) -> Context:
    decision = context.decision
    assert decision is not None
    return replace(context, decision=replace(decision, serve=msgspec.structs.replace(decision.serve, model=None)))
