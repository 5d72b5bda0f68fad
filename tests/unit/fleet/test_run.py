"""A fleet's commands against an Ansible that a test scripts: who is asked, changed, left alone, and what is remembered."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from fleets import KNOWN, REPORT, VERSION, StubAnsible

from provision.bundle import own
from provision.bundle.fetch import Fetched
from provision.bundle.sources import Source
from provision.errors import StepFailed, UsageError
from provision.fleet import memory, page, run, supplies
from provision.fleet.drive import Settings
from provision.fleet.model import FleetReport, HostState
from provision.fleet.run import Watcher, Wishes
from provision.host.local import LocalHost

NEW = {"finished": True, "rc": 0, "report": {}, **KNOWN, "tool": "", "needs_tool": True}
ASKED = {"finished": True, "rc": 0, "report": REPORT, **KNOWN}
FAILS = {"failed": True, "msg": "the disk is full\nhint: free space", "rc": 5, "finished": True}
MISFIT = {**FAILS, "msg": "needs a GPU", "rc": 3, **KNOWN}
SERVES = {**REPORT, "changed": False, "steps": [{"step": "server", "status": "already"}]}
IDLE = {"finished": True, "rc": 0, "report": SERVES, **KNOWN}


@dataclass
class Told(Watcher):
    said: list[str] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)

    def changed(self, host: HostState) -> None:
        self.seen.append((host.name, host.state.value))

    def say(self, text: str) -> None:
        self.said.append(text)


@dataclass
class Controller:
    """A controller whose Ansible, bundles and wheels are stand-ins."""

    home: Path
    patch: pytest.MonkeyPatch
    told: Told = field(default_factory=Told)
    bundles: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        def bundles(_: LocalHost, architectures: Any, __: Any) -> dict[str, str]:
            self.bundles = sorted(set(architectures))
            return {arch: f"/cache/tool-{arch}.tar" for arch in self.bundles}

        def wheels(__: LocalHost, locks: Any, *_: Any) -> tuple[tuple[Source, ...], Fetched]:
            self.fetched = [lock.name for lock in locks]
            return (Source(name="a.whl", url="x", sha256="0" * 64),), Fetched(files=1, bytes=1000, kept=0)

        self.patch.setattr(supplies, "bundles", bundles)
        self.patch.setattr(supplies, "wheels", wheels)
        self.patch.setattr(own, "wheel_digest", lambda: VERSION)

    @property
    def host(self) -> LocalHost:
        return LocalHost({"HOME": str(self.home), "PATH": ""})

    @property
    def inventory(self) -> str:
        return str(self.home / "inventory.yml")

    def run(self, ansible: StubAnsible, command: str = "bootstrap", **wishes: Any) -> FleetReport:
        self.patch.setattr(run, "Workshop", lambda *_: ansible)
        wanted = Wishes(settings=Settings(inventory=self.inventory), **wishes)
        return run.carry_out(self.host, command, wanted, self.told)

    def remembered(self) -> dict[str, str]:
        known = memory.recall(self.host, self.inventory)
        return known.hosts if known else {}


@pytest.fixture
def controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Controller:
    return Controller(tmp_path, monkeypatch)


def hosts(*names: str, **says: Any) -> StubAnsible:
    """Hosts that do all that is asked of them, but for `says` (host to stage to what it answers)."""
    return StubAnsible({name: says.get(name, {}) for name in (*names, *says)})


def states(report: FleetReport) -> dict[str, str]:
    return {host.name: host.state.value for host in report.hosts}


def stages(ansible: StubAnsible) -> list[tuple[str, tuple[str, ...]]]:
    return [(played.tags or played.playbook, played.hosts) for played in ansible.played]


def test_all_are_asked_and_then_all_are_changed(controller: Controller) -> None:
    ansible = hosts("a", "b")
    report = controller.run(ansible, target="cpu", batch=("1", "50%"), options=("--port", "1"))
    assert (states(report), report.exit_status, report.changed) == ({"a": "ok", "b": "ok"}, 0, True)
    assert stages(ansible) == [("ask", ("a", "b")), ("apply", ("a", "b"))]
    asked, applied = ansible.played
    assert asked.values == {
        "sgprov_host_expect": VERSION,
        "sgprov_batch": [1, "50%"],
        "sgprov_max_fail": 0,
        "sgprov_host_poll": 2,
        "sgprov_host_target": "cpu",
        "sgprov_host_options": ["--port", "1"],
    }
    assert (asked.ssh_attempts, applied.ssh_attempts) == (0, 3), "what is at work is worth another look"
    assert not asked.narrowed and not applied.narrowed
    assert page.finding(report.hosts[0]) == "serves at http://127.0.0.1:30000/v1"
    assert controller.remembered() == {"a": "ok", "b": "ok"}


def test_wheels_cross_to_those_that_install_each_by_its_own_way(controller: Controller) -> None:
    ansible = hosts("a", "b", idle={"ask": IDLE})
    report = controller.run(ansible, keys={"HF_TOKEN": "hf_{{ x }}"})
    assert states(report) == {"a": "ok", "b": "ok", "idle": "ok"}
    applied = ansible.played[-1]
    assert applied.hosts == ("a", "b") and applied.narrowed, "who has nothing to do is left alone"
    ways = applied.secrets["sgprov_host_wheels_of"]
    assert set(ways) == {"a", "b"} and ways["a"] != ways["b"]
    assert applied.secrets["sgprov_host_keys"] == {"HF_TOKEN": "hf_{{ x }}"}
    assert applied.ssh_arguments.startswith("-R 127.0.0.1:")
    assert controller.fetched == [REPORT["lock"]]
    assert report.wheels == {"locks": [REPORT["lock"]], "files": 1, "fetched_bytes": 1000, "sent_bytes": 0}
    assert not ansible.played[0].secrets, "no key goes where nothing is installed yet"


def test_hosts_that_ask_their_own_index(controller: Controller) -> None:
    ansible = hosts("a")
    report = controller.run(ansible, wheels_from="index", smoke=False)
    assert (report.wheels, ansible.played[-1].secrets, ansible.played[-1].ssh_arguments) == ({}, {}, "")
    assert ansible.played[-1].values["sgprov_host_smoke"] is False


def test_nothing_to_do_changes_nothing(controller: Controller) -> None:
    ansible = hosts(a={"ask": IDLE})
    report = controller.run(ansible)
    assert (states(report), report.changed, stages(ansible)) == ({"a": "ok"}, False, [("ask", ("a",))])
    assert page.finding(report.hosts[0]) == "sglang-0.5.23, nothing to do"


@pytest.mark.parametrize(
    "more",
    [
        {"running": True},
        {
            "report": {
                **SERVES,
                "steps": [{"step": "smoke", "status": "skipped"}, {"step": "server", "status": "already"}],
            }
        },
    ],
    ids=["work that goes on", "a server to be tested"],
)
def test_what_is_worth_another_look(controller: Controller, more: dict[str, Any]) -> None:
    ansible = hosts(a={"ask": {**IDLE, **more}})
    controller.run(ansible)
    assert stages(ansible)[-1] == ("apply", ("a",))


def test_sgprov_goes_to_those_that_lack_it(controller: Controller) -> None:
    ansible = hosts(
        "old", new={"ask": NEW, "tool": {**IDLE, "changed": False}}, arm={"ask": {**NEW, "arch": "aarch64"}}
    )
    report = controller.run(ansible)
    assert states(report) == {"old": "ok", "new": "ok", "arm": "ok"}
    brought = ansible.played[1]
    assert (brought.tags, brought.hosts, controller.bundles) == ("tool", ("new", "arm"), ["aarch64", "x86_64"])
    assert brought.values["sgprov_install_bundles"] == {
        arch: f"/cache/tool-{arch}.tar" for arch in ("x86_64", "aarch64")
    }
    known = brought.values["sgprov_install_known"]
    assert set(known) == {"new", "arm"} and known["arm"]["arch"] == "aarch64"
    assert next(host for host in report.hosts if host.name == "new").changed, "it has got sgprov"


def test_a_dry_run_changes_nothing_and_says_what_would_be_done(controller: Controller) -> None:
    ansible = hosts("a", new={"ask": NEW}, idle={"ask": IDLE})
    report = controller.run(ansible, dry_run=True, target="cpu")
    assert stages(ansible) == [("ask", ("a", "new", "idle"))]
    said = {host.name: page.finding(host).splitlines()[0] for host in report.hosts}
    assert said == {
        "a": "to get sglang-0.5.23: environment, server",
        "new": "to get sgprov, then its target `cpu`",
        "idle": "sglang-0.5.23, nothing to do",
    }
    assert (report.changed, report.exit_status, controller.remembered()) == (True, 0, {})


def test_a_dry_run_that_may_bring_sgprov_says_what_a_new_host_would_become(controller: Controller) -> None:
    ansible = hosts(new={"ask": NEW})
    report = controller.run(ansible, dry_run=True, install_tool=True)
    assert stages(ansible) == [("ask", ("new",)), ("tool", ("new",))]
    assert page.finding(report.hosts[0]) == "to get sglang-0.5.23: environment, server"


def test_a_failure_stops_the_rest(controller: Controller) -> None:
    ansible = hosts(a={"apply": FAILS}, b={})
    report = controller.run(ansible)
    assert states(report) == {"a": "failed", "b": "not-reached"}
    assert report.stopped == "stopped after a failure: the rest was left alone" and report.exit_status == 7
    assert report.hosts[0].finding == FAILS["msg"] and report.hosts[0].exit_status == 5
    assert controller.remembered() == {"a": "failed", "b": "not-reached"}


def test_a_misfit_stops_all_before_anything_is_changed(controller: Controller) -> None:
    ansible = hosts("a", misfit={"ask": MISFIT})
    report = controller.run(ansible)
    assert [stage for stage, _ in stages(ansible)] == ["ask"]
    assert report.stopped and "`--max-fail` is 0" in report.stopped
    assert report.hosts[1].exit_status == 3


@pytest.mark.parametrize(("most", "goes_on"), [(24, False), (25, True), (26, True)])
def test_as_many_may_fail_as_was_said_and_no_more(controller: Controller, most: int, goes_on: bool) -> None:
    """One of four is 25 percent."""
    ansible = hosts("a", "b", "c", misfit={"ask": MISFIT})
    report = controller.run(ansible, max_fail=most)
    assert (report.stopped is None) is goes_on
    assert (ansible.played[-1].hosts == ("a", "b", "c")) is goes_on


def test_where_a_first_host_may_fail_the_others_are_taken_up(controller: Controller) -> None:
    """Ansible ends a play where all hosts of a batch failed."""
    ansible = hosts(a={"apply": FAILS}, b={}, c={})
    report = controller.run(ansible, max_fail=34, batch=("1", "25"))
    assert states(report) == {"a": "failed", "b": "ok", "c": "ok"}
    assert stages(ansible)[1:] == [("apply", ("a", "b", "c")), ("apply", ("b", "c"))]
    assert report.stopped is None and report.exit_status == 7


def test_an_unreachable_host_stops_nobody(controller: Controller) -> None:
    ansible = hosts("a", gone={"ask": "unreachable"})
    report = controller.run(ansible)
    assert states(report) == {"a": "ok", "gone": "unreachable"}
    assert report.hosts[1].finding == "connect to host x port 22: No route to host"
    assert ansible.played[-1].hosts == ("a",) and report.exit_status == 7


def test_only_those_that_are_meant(controller: Controller) -> None:
    ansible = hosts("a", "b", "c")
    report = controller.run(ansible, limit="b,c")
    assert states(report) == {"b": "ok", "c": "ok"}
    assert [(played.hosts, played.narrowed) for played in ansible.played] == [(("b", "c"), True)] * 2
    assert controller.remembered() == {"b": "ok", "c": "ok"}


def test_what_failed_is_taken_up_and_what_others_are_is_kept(controller: Controller) -> None:
    controller.run(hosts("a", b={"apply": FAILS}), max_fail=100)
    assert controller.remembered() == {"a": "ok", "b": "failed"}
    ansible = hosts("a", "b", "new")
    assert states(controller.run(ansible, only_failed=True)) == {"b": "ok"}
    assert ansible.played[0].hosts == ("b",) and ansible.played[0].narrowed
    assert controller.remembered() == {"a": "ok", "b": "ok"}
    with pytest.raises(UsageError, match="no host of the last run failed"):
        controller.run(hosts("a", "b"), only_failed=True)


def test_failed_without_a_run_before(controller: Controller) -> None:
    with pytest.raises(UsageError, match="nothing is known"):
        controller.run(hosts("a"), only_failed=True)
    controller.run(hosts("a", b={"apply": FAILS}), max_fail=100)
    with pytest.raises(UsageError, match="none of these hosts failed"):
        controller.run(hosts("a", "b"), only_failed=True, limit="a")


@pytest.mark.parametrize("command", ["doctor", "status", "smoke", "stop"])
def test_one_question_to_every_host(controller: Controller, command: str) -> None:
    ansible = hosts("a", "b")
    report = controller.run(ansible, command, target="cpu")
    assert states(report) == {"a": "ok", "b": "ok"}
    played = ansible.played[0]
    assert played.playbook == ("doctor.yml" if command == "doctor" else "serve.yml")
    assert played.values == {"sgprov_host_action": command, "sgprov_host_target": "cpu"}
    assert controller.remembered() == {}, "only a bootstrap is taken up again"


def test_doctor_on_a_new_host_says_what_to_do(controller: Controller) -> None:
    absent = {"failed": True, "msg": "there is no sgprov at /root/x", "rc": 127, "finished": True}
    report = controller.run(hosts("a", new={"doctor.yml": absent}), "doctor")
    assert states(report) == {"a": "ok", "new": "failed"}
    assert f"sgprov fleet doctor -i {controller.inventory} --limit new --install-tool" in report.hosts[1].finding


def test_doctor_may_bring_sgprov_first(controller: Controller) -> None:
    ansible = hosts(
        "a", new={"ask": NEW}, misfit={"ask": MISFIT}, gone={"ask": "unreachable"}, broken={"ask": NEW, "tool": FAILS}
    )
    report = controller.run(ansible, "doctor", install_tool=True)
    assert stages(ansible)[1:] == [("tool", ("new", "broken")), ("doctor.yml", ("a", "new", "misfit"))]
    assert states(report) == {"a": "ok", "new": "ok", "misfit": "ok", "gone": "unreachable", "broken": "failed"}


def test_a_lock_that_is_not_ours_is_that_hosts_failure(controller: Controller) -> None:
    foreign = {"finished": True, "rc": 0, "report": {**REPORT, "lock": "sglang-9.cp312.x86_64"}, **KNOWN}
    ansible = hosts("a", evil={"ask": foreign})
    report = controller.run(ansible, max_fail=50)
    assert states(report) == {"a": "ok", "evil": "failed"} and controller.fetched == [REPORT["lock"]]
    assert "no lock of this sgprov" in report.hosts[1].finding


def test_who_says_done_and_nothing_more_is_not_done(controller: Controller) -> None:
    report = controller.run(hosts(a={"apply": {"finished": True, "rc": 0, "report": {}}}))
    assert states(report) == {"a": "failed"} and "nothing of what it did" in report.hosts[0].finding


def test_what_a_run_left_behind_is_not_ok(controller: Controller) -> None:
    left = hosts(a={"apply": "silent"}, b={"apply": "unreachable"}, c={"apply": FAILS}, d={})
    report = controller.run(replace(left, status="failed"), batch=("100%",), max_fail=100)
    assert states(report) == {"a": "not-reached", "b": "unreachable", "c": "failed", "d": "ok"}
    assert "takes up" in report.hosts[0].finding
    assert controller.remembered() == {"a": "not-reached", "b": "unreachable", "c": "failed", "d": "ok"}
    path = Path(memory.place(controller.host, controller.inventory))
    assert path.stat().st_mode & 0o777 == 0o600
    again = hosts("a", "b", "c", "d")
    assert states(controller.run(again, only_failed=True)) == {"a": "ok", "b": "ok", "c": "ok"}


def test_who_gave_no_answer_at_all_has_failed(controller: Controller) -> None:
    report = controller.run(hosts(a={"apply": "silent"}))
    assert states(report) == {"a": "failed"} and report.hosts[0].finding == "it gave no answer"


@pytest.mark.parametrize("stage", ["ask", "tool", "apply"])
def test_who_ends_ansible_itself_fails_alone(controller: Controller, stage: str) -> None:
    ansible = hosts(*(name for name in "abcdefg"), evil={stage: "breaks"})
    for says in ansible.says.values():
        says.setdefault("ask", NEW if stage == "tool" else says.get("ask", ASKED))
    report = controller.run(ansible, max_fail=50, batch=("100%",))
    assert states(report) == {**dict.fromkeys("abcdefg", "ok"), "evil": "failed"}
    assert report.hosts[-1].finding == "what it says ends Ansible itself: ERROR! Unexpected Exception"
    assert len(ansible.played) < 14, "who it is, is found by halves"


def test_a_host_that_ends_ansible_stops_the_rest_where_none_may_fail(controller: Controller) -> None:
    ansible = hosts(evil={"apply": "breaks"}, a={}, b={})
    report = controller.run(ansible, batch=("1", "25"))
    assert states(report) == {"evil": "failed", "a": "not-reached", "b": "not-reached"}


def test_an_interruption_ends_the_work_and_says_where(controller: Controller) -> None:
    stopped = {"finished": True, "rc": 0, "changed": True}
    ansible = hosts(
        a={},
        b={"apply": "silent", "stop_work.yml": stopped},
        c={"apply": "silent", "stop_work.yml": "unreachable"},
        d={"apply": KeyboardInterrupt()},
        e={},
    )
    ansible.says["d"]["stop_work.yml"] = stopped
    with pytest.raises(KeyboardInterrupt):
        controller.run(ansible, batch=("100%",))
    assert stages(ansible)[-1] == ("stop_work.yml", ("b", "c", "d"))
    assert "ended what went on at b, d" in controller.told.said
    assert any("at c could not be ended" in text for text in controller.told.said)
    assert controller.remembered() == {
        "a": "ok",
        "b": "not-reached",
        "c": "not-reached",
        "d": "not-reached",
        "e": "not-reached",
    }


def test_an_ansible_that_does_not_start(controller: Controller) -> None:
    ansible = replace(hosts("a"), status="failed")
    controller.patch.setattr(ansible, "_one", lambda *_: False)
    with pytest.raises(StepFailed, match="did not start on any host"):
        controller.run(ansible)


def test_an_ansible_that_is_gone_is_told(controller: Controller) -> None:
    report = controller.run(replace(hosts("a"), status="canceled"))
    assert report.stopped == "Ansible ended as `canceled`" and report.exit_status == 7


def test_times_are_each_hosts_own(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(10_000))
    monkeypatch.setattr("time.monotonic", lambda: float(next(ticks)))
    report = controller.run(hosts("a", "b"))
    assert all(host.seconds > 0 and host.since is None for host in report.hosts)
    assert report.seconds > max(host.seconds for host in report.hosts)
