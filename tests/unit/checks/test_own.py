"""A server of sgprov under another prefix is one, and not a stranger to be killed."""

from __future__ import annotations

import pytest
from unit.checks.machines import A40, answer, machine, process

from provision.checks.registry import CHECKS
from provision.checks.run import chosen, run_checks
from provision.report import Finding

STAT = "{pid} (python) S {parent} 50 50 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 777 0 0\n"
LEADER = "/srv/other/environments/sglang-1-cp310-x86_64-0123456789ab/bin/python -m sglang.launch_server --port 1"


def findings(check: str, marker: str) -> list[Finding]:
    context = machine(
        A40,
        files={
            "/proc/50/stat": STAT.format(pid=50, parent=1),
            "/proc/50/environ": f"HOME=/root\0{marker}=abc\0",
            "/proc/51/stat": STAT.format(pid=51, parent=50),
            "/proc/51/environ": "sglang::scheduler",
        },
        running=(process(50, LEADER), process(51, "sglang::scheduler", parent=50, name="sglang::sched")),
        answers={"nvidia-smi --query-compute-apps": answer("51, sglang::scheduler, 20480\n")},
    )
    return [one for result in run_checks(chosen(CHECKS, (check,)), context) for one in result.findings]


@pytest.mark.parametrize(("check", "severity"), [("gpu-foreign-processes", "warning"), ("server-foreign", "info")])
def test_a_server_under_another_prefix(check: str, severity: str) -> None:
    (one,) = findings(check, "SGPROV_SERVER")
    assert one.severity.value == severity
    assert "a server of sgprov" in one.text
    assert "under /srv/other" in one.text
    assert one.fix[0].startswith("`sgprov serve stop --all --prefix /srv/other`")


@pytest.mark.parametrize("check", ["gpu-foreign-processes", "server-foreign"])
def test_a_stranger(check: str) -> None:
    (one,) = findings(check, "OTHER_SERVER")
    assert one.severity.value == "warning"
    assert "`kill 5" in one.fix[0]
