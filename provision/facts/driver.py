"""The NVIDIA driver this host has loaded."""

from __future__ import annotations

import re

from provision.errors import ProbeError
from provision.facts.model import Driver
from provision.facts.sources import DriverAnswer
from provision.host import HostView

SYS_MODULE = "/sys/module/nvidia/version"
PROC_DRIVER = "/proc/driver/nvidia/version"
# 550.144.03, and since 580 also two parts: 580.142, 595.80.
_VERSION = re.compile(r"(?<![\d.])(\d{3}\.\d{1,4}(?:\.\d{1,4})?)(?![\d.])", re.ASCII)


def probe_driver(view: HostView, answer: DriverAnswer) -> Driver | None:
    """The loaded driver, or None where none is.

    Sources, in order: the kernel (`/sys/module/nvidia/version`, `/proc/driver/nvidia/version`), which still answers
    where library and module differ; then `answer`, all there is under WSL. The CUDA version is the one of the
    libcuda in this namespace, so only `answer` has it.
    """
    module, raw = view.read(SYS_MODULE), (view.read(PROC_DRIVER) or "").strip()
    kernel_module = "Open Kernel Module" in raw if raw else None
    for source, text in ((SYS_MODULE, module), (PROC_DRIVER, raw)):
        if text:
            return Driver(
                version=parse_version(text, source),
                cuda=answer.cuda,
                open_kernel_module=kernel_module,
                source=source,
                raw=raw or text.strip(),
            )
    if answer.driver:
        return Driver(version=answer.driver, cuda=answer.cuda, source=answer.source, raw=answer.driver)
    return None


def parse_version(text: str, source: str = PROC_DRIVER) -> str:
    """Parse `550.144.03`, or `NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.126.09  Release Build`."""
    found = _VERSION.search(text)
    if found is None:
        raise ProbeError(f"`{source}` holds no driver version: {text.strip()[:100]!r}")
    return found[1]
