"""Checks of the operating system: architecture, C library, clock, pending reboots."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from packaging.version import Version

from provision.checks.base import Context, check, error, info, on_the_machine, warning
from provision.report import Finding

_check = partial(check, "system")
_ARCHS = ("x86_64", "aarch64")
# 2026-01-01: no clock of a machine that runs this can rightly show an earlier time.
_NOT_BEFORE = 1_767_225_600


@_check(
    "system-arch",
    "The CPU architecture is one that stacks are locked for",
    looks_at="`uname -m`",
    why="wheels and images exist for x86_64 and aarch64 only",
    remedy="another machine",
)
def system_arch(context: Context) -> Iterator[Finding]:
    if context.facts.arch not in _ARCHS:
        yield error(f"this host is {context.facts.arch}, stacks are for {' and '.join(_ARCHS)}", "use another machine")


@_check(
    "system-glibc",
    "The C library is new enough for the wheels",
    looks_at="glibc's version against the tags of the stack's wheels",
    why="a wheel that was built for a newer glibc does not load; on musl (Alpine) none does",
    remedy="a newer distribution, or the target's container image: `sgprov targets`",
)
def system_glibc(context: Context) -> Iterator[Finding]:
    glibc = context.facts.glibc
    if glibc is None:
        yield error(
            "this host has no glibc (musl?): no wheel loads here", "use a glibc distribution, or an image of one"
        )
        return
    floors = [one.stack.minimum_glibc for one in context.candidates if one.stack]
    if context.decision and context.decision.stack:
        floors = [context.decision.stack.minimum_glibc]
    lowest = min(map(Version, floors), default=None)
    if lowest and Version(glibc) < lowest:
        yield error(
            f"glibc {glibc} is older than {lowest}, which the wheels need", "use a newer distribution or an image"
        )


@_check(
    "system-release",
    "The distribution is known",
    looks_at="/etc/os-release",
    why="remedies that install packages are written for it",
    remedy="nothing to do where everything else is well",
)
def system_release(context: Context) -> Iterator[Finding]:
    if context.facts.os is None:
        yield warning("/etc/os-release is missing: package names in remedies are guesses", "none is needed to serve")


@_check(
    "system-facts",
    "Everything else about the host could be told",
    looks_at="problems that were met while facts were gathered: broken interpreters, container engines that hang, …",
    why="what could not be told was left out of the decision",
    remedy="`sgprov facts` shows them; each finding has its own remedy",
)
def system_facts(context: Context) -> Iterator[Finding]:
    elsewhere = ("facts.gpu", "facts.driver", "facts.nvml", "facts.pythons", "facts.disks")
    yield from (problem for problem in context.facts.problems if not problem.check.startswith(elsewhere))


@_check(
    "system-clock",
    "The clock is right",
    looks_at="`date +%s` against the time this version was made",
    why="with a clock that is years behind every TLS certificate is not valid yet: no download works",
    remedy="`sudo timedatectl set-ntp true`, or `sudo date -s '…'`",
)
def system_clock(context: Context) -> Iterator[Finding]:
    outcome = context.view.query(["date", "+%s"])
    text = outcome.out.strip()
    if outcome.ok and text.isdecimal() and int(text) < _NOT_BEFORE:
        yield error(f"the clock is behind: `date +%s` says {text}", "`sudo timedatectl set-ntp true`")


@_check(
    "system-clock-synchronised",
    "The clock is kept right",
    looks_at="`timedatectl`: whether a time server is followed (on the machine itself)",
    why="munge and TLS refuse what comes from another time; logs of several hosts cannot be compared",
    remedy="`sudo timedatectl set-ntp true`",
    applies=on_the_machine,
)
def system_clock_synchronised(context: Context) -> Iterator[Finding]:
    outcome = context.view.query(["timedatectl", "show", "--property=NTPSynchronized", "--value"])
    if outcome.ok and outcome.out.strip() == "no":
        yield warning("no time server is followed", "`sudo timedatectl set-ntp true`")


@_check(
    "system-reboot-pending",
    "No update waits for a reboot",
    looks_at="/var/run/reboot-required",
    why="a new kernel or driver that waits to be booted breaks the running one when it is used next",
    remedy="`sudo reboot`",
    applies=on_the_machine,
)
def system_reboot_pending(context: Context) -> Iterator[Finding]:
    if context.view.stat("/var/run/reboot-required"):
        packages = " ".join((context.view.read("/var/run/reboot-required.pkgs") or "").split())
        yield warning(f"updates wait for a reboot{f' ({packages})' if packages else ''}", "`sudo reboot`")


@_check(
    "system-surroundings",
    "What this host runs inside of",
    looks_at="signs of containers, RunPod and WSL",
    why="inside of a container the driver, clock and limits belong to the machine, and cannot be mended from here",
    remedy="none; remedies with `sudo` are for the machine itself",
)
def system_surroundings(context: Context) -> Iterator[Finding]:
    around = context.facts.surroundings
    named = ((around.container, around.container), ("a RunPod pod", around.runpod), ("WSL", around.wsl))
    if told := ", ".join(name for name, there in named if name and there):
        yield info(f"this host is inside of: {told}")


CHECKS = (
    *(system_arch, system_glibc, system_release, system_facts, system_clock, system_clock_synchronised),
    *(system_reboot_pending, system_surroundings),
)
