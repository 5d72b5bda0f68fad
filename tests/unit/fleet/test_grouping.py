"""Hosts that are alike are told in one word, and the others by what differs."""

from __future__ import annotations

import time
import tracemalloc

from provision.fleet import answers, page
from provision.fleet.answers import Asked, Machine
from provision.fleet.grouping import drift, group, sentence
from provision.fleet.model import FleetReport, HostState, State


def host(name: str, *, driver: str = "580.126.09", stack: str = "sglang-0.5.23", python: str = "3.12") -> HostState:
    return HostState(
        name=name,
        state=State.OK,
        machine=Machine(gpus=["NVIDIA H100"], driver=driver, os="ubuntu 24.04", glibc="2.39", arch="x86_64"),
        report=answers.report({"stack": stack, "lock": f"{stack}.txt", "python": python}),
        asked=Asked(arch="x86_64", home="/root", tool="abc", needs_tool=False, running=False),
    )


def test_fourteen_alike_and_two_with_another_driver() -> None:
    hosts = [host(f"gpu-{number}") for number in range(14)]
    hosts += [host(f"old-{number}", driver="535.104.05") for number in range(2)]
    groups = group(hosts)
    assert sentence(groups) == "14 alike; 2 have driver 535.104.05 (old-0, old-1)"
    assert drift(groups) == {"driver": {"580.126.09": 14, "535.104.05": 2}}


def test_all_alike_and_one_alone() -> None:
    assert sentence(group([host("a"), host("b", python="3.12.3")])) == "all 2 alike"
    assert sentence(group([host("a")])) == ""
    assert sentence(group([])) == ""
    assert drift(group([host("a"), host("b")])) == {}


def test_a_host_that_gave_no_answer_is_in_no_group() -> None:
    groups = group([host("a"), HostState(name="dead", state=State.UNREACHABLE)])
    assert [each.hosts for each in groups] == [("a",)]


def test_files_that_were_edited_are_drift() -> None:
    hosts = [host("a"), host("b")]
    for one in hosts:
        one.report = answers.report({"verdict": "ready", "findings": []})
    finding = {"check": "environment-files", "severity": "error", "text": "edited"}
    hosts[1].report = answers.report({"verdict": "ready", "findings": [finding]})
    assert drift(group(hosts)) == {"files": {"as installed": 1, "environment-files": 1}}


def test_many_names_are_cut() -> None:
    hosts = [host(f"a{number}") for number in range(9)] + [host(f"b{number}", stack="other") for number in range(6)]
    assert "6 have stack other, lock other.txt (b0, b1, b2, b3 and 2 more)" in sentence(group(hosts))


def test_the_page_holds_every_host_and_nothing_of_them_unescaped() -> None:
    evil = host("a")
    evil.state, evil.finding = State.FAILED, '<script>alert("x")</script> with hf_' + "a" * 30
    hosts = (evil, host("b"))
    report = FleetReport(command="bootstrap", hosts=hosts, groups=group(hosts), seconds=93.4)
    text = page.render(report)
    assert "<script" not in text and "hf_a" not in text and "&lt;script&gt;" in text
    assert "1 ok, 1 failed, in 93 s" in text
    assert report.exit_status == 7


def test_a_thousand_hosts_are_grouped_and_shown_in_bounded_time_and_memory() -> None:
    """Simulated hosts: their reports are as large as a real `doctor`'s."""
    findings = [{"check": f"c{number}", "severity": "warning", "text": "x" * 200} for number in range(60)]
    tracemalloc.start()
    start = time.process_time()
    hosts = []
    for number in range(1000):
        one = host(f"gpu-{number:04}", driver="535.1" if number % 50 == 0 else "580.1")
        one.report = answers.report({"stack": "s", "findings": [dict(finding) for finding in findings]})
        hosts.append(one)
    report = FleetReport(command="doctor", hosts=tuple(hosts), groups=group(hosts), seconds=1.0)
    text = page.render(report)
    seconds, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert text.count("<tr>") > 1000
    assert sentence(report.groups).startswith("980 alike; 20 have driver 535.1")
    assert seconds < 10
    assert peak < 200e6
