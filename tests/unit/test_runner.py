"""The loop: what is true is left alone, the first failure stops the rest, and a dry run changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import pytest
from fakes import FakeHost

from provision import assume, runner
from provision.bootstrap import Manner, make_plan
from provision.catalog.load import Catalog
from provision.catalog.shipped import folder
from provision.config import Options
from provision.decision import Question, decide
from provision.errors import CommandFailed, ProvisionError, ServingFailed, StepFailed, UsageError, WrongPython
from provision.host import Host, HostView, Listener
from provision.locks.lockfile import available
from provision.plan import Plan
from provision.report import Finding, Severity, Status
from provision.serving import record
from provision.serving.launch import Launch, at
from provision.serving.record import Server
from provision.steps import Applied, Progress, Step
from provision.steps.environment import Environment
from provision.steps.port import Port
from provision.steps.receipt import WriteReceipt
from provision.steps.server import StartServer

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Change:
    """A step that becomes true, or fails."""

    id: str
    log: list[str] = field(default_factory=list)
    already: bool = False
    looks_only: bool = False
    error: ProvisionError | None = None

    def preview(self) -> str:
        return f"do {self.id}"

    def satisfied(self, host: HostView) -> bool:
        return self.already

    def apply(self, host: Host, tell: Callable[[Progress], None]) -> Applied:
        if self.error:
            raise self.error
        self.log.append(self.id)
        found = Finding(check=self.id, severity=Severity.OK, text="well")
        return Applied(note=f"did {self.id}", findings=(found,), data={self.id: 1})


def plan(*steps: Step, left_out: frozenset[str] = frozenset()) -> Plan:
    catalog = Catalog()
    facts = assume.facts(catalog.target("cpu").assume)
    decision = decide(Question(wishes=Options(target="cpu"), facts=facts, catalog=catalog, locks=folder("lockfiles")))
    launch = Launch(engine="sglang", version="0.5.23", argv=(), url="http://127.0.0.1:1", model="m")
    return Plan(decision=decision, steps=steps, launch=launch, left_out=left_out)


def statuses(*steps: Change, dry_run: bool = False, left_out: frozenset[str] = frozenset()) -> list[Status]:
    report = runner.apply(plan(*steps, left_out=left_out), FakeHost(), dry_run=dry_run)
    return [step.status for step in report.steps]


def test_what_is_true_is_left_alone() -> None:
    log: list[str] = []
    report = runner.apply(plan(Change(id="one", log=log, already=True), Change(id="two", log=log)), FakeHost())
    assert log == ["two"]
    assert [step.status for step in report.steps] == [Status.ALREADY, Status.DONE]
    assert (report.ok, report.changed, report.exit_status) == (True, True, 0)
    assert (report.data, [finding.check for finding in report.findings]) == ({"two": 1}, ["two"])


def test_nothing_to_do_is_no_change() -> None:
    report = runner.apply(plan(Change(id="one", already=True), Change(id="look", looks_only=True)), FakeHost())
    assert [step.status for step in report.steps] == [Status.ALREADY, Status.CHECKED]
    assert not report.changed


def test_a_dry_run_changes_nothing() -> None:
    log: list[str] = []
    steps = (Change(id="one", log=log), Change(id="look", log=log, looks_only=True))
    assert statuses(*steps, dry_run=True) == [Status.WOULD, Status.SKIPPED]
    assert log == []


@pytest.mark.parametrize(
    ("error", "exit_status"),
    [
        (StepFailed("no"), 5),
        (CommandFailed("`uv` exited 1"), 5),
        (WrongPython("3.11"), 3),
        (ServingFailed("died"), 6),
        (UsageError("runs already"), 2),
    ],
)
def test_the_first_failure_stops_the_rest_with_its_own_status(error: ProvisionError, exit_status: int) -> None:
    log: list[str] = []
    report = runner.apply(plan(Change(id="one", error=error), Change(id="two", log=log)), FakeHost())
    assert [step.status for step in report.steps] == [Status.FAILED, Status.NOT_REACHED]
    assert (log, report.ok, report.exit_status) == ([], False, exit_status)
    assert report.steps[0].error == str(error)


def test_what_is_hopeless_is_told_before_the_first_change() -> None:
    log: list[str] = []
    port = Port(ports=(30000,))
    host = FakeHost()
    host.ears = [Listener(port=30000, address="127.0.0.1", pid=4711, process="jupyter", command="jupyter-lab")]
    made = plan(Change(id="one", log=log), port, Change(id="two", log=log))
    report = runner.apply(made, host)
    assert [step.status for step in report.steps] == [Status.NOT_REACHED, Status.FAILED, Status.NOT_REACHED]
    assert (log, report.exit_status) == ([], 4)
    assert "pid 4711" in (report.steps[1].error or "")
    assert "pid 4711" in (made.foresee(host)[1].problem or "")


def test_a_failed_command_is_diagnosed() -> None:
    error = CommandFailed("`uv pip sync` exited 1:\n  No space left on device (os error 28)")
    report = runner.apply(plan(Change(id="one", error=error)), FakeHost())
    assert [finding.check for finding in report.findings][:1] == ["disk-full"]


def test_steps_that_are_left_out_are_shown_as_such() -> None:
    assert statuses(Change(id="one"), Change(id="two"), left_out=frozenset({"one"})) == [Status.SKIPPED, Status.DONE]


def test_a_plan_knows_its_steps_by_name() -> None:
    with pytest.raises(UsageError, match="there is no step `servr`"):
        make_plan(FakeHost(), Options(target="cpu"), Manner(skip=("servr",)), assumed="target")
    made = make_plan(FakeHost(), Options(target="cpu"), Manner(smoke=False), assumed="target")
    assert made.left_out == {"port", "server", "smoke"}
    made = make_plan(FakeHost(), Options(target="cpu"), Manner(only=("environment",)), assumed="target")
    assert "environment" not in made.left_out
    assert len(made.left_out) == len(made.steps) - 1


def step_of(made: Plan, kind: type[T]) -> T:
    return next(step for step in made.steps if isinstance(step, kind))


def test_only_the_smoke_test_of_this_run_is_written_down() -> None:
    tested = make_plan(FakeHost(), Options(target="cpu"), Manner(), assumed="target")
    assert step_of(tested, WriteReceipt).smoke and step_of(tested, StartServer).tested
    for manner in (Manner(smoke=False), Manner(skip=("smoke",)), Manner(only=("server", "receipt"))):
        untested = make_plan(FakeHost(), Options(target="cpu"), manner, assumed="target")
        assert step_of(untested, WriteReceipt).smoke is None
        assert not step_of(untested, StartServer).tested


def test_without_a_switch_there_is_no_receipt_unless_it_is_asked_for() -> None:
    assert (
        "receipt" in make_plan(FakeHost(), Options(target="cpu"), Manner(skip=("switch",)), assumed="target").left_out
    )
    asked = make_plan(FakeHost(), Options(target="cpu"), Manner(only=("receipt",)), assumed="target")
    assert "receipt" not in asked.left_out


def test_a_port_is_kept_only_by_a_server_that_lives_not_by_whoever_has_its_pid_now() -> None:
    host = FakeHost({"/proc/sys/kernel/random/boot_id": "b", "/proc/sys/kernel/hostname": "m"})
    kept = Server(
        id="1", name="cpu", directory="/p/servers/cpu", engine="sglang", version="0.5.23", stack=None, model="/m",
        url="http://127.0.0.1:31234", argv=("x",), variables={}, log="/l", started="", machine="m", boot="b",
        state="ready", pid=4711, started_ticks=50,
    )  # fmt: skip
    record.save(host, kept)
    wishes = Options(target="cpu", prefix="/p", port="auto")

    def port_with_a_process_started_at(ticks: int) -> int:
        host.files["/proc/4711/stat"] = f"4711 (python) S 1 4711 4711 0 -1 {'0 ' * 13}{ticks} 0 0"
        launch = make_plan(host, wishes, assumed="target").launch
        assert launch is not None
        return int(launch.url.rsplit(":", 1)[1])

    host.ears = [Listener(address="127.0.0.1", port=31234, pid=4711)]
    assert port_with_a_process_started_at(50) == 31234
    assert port_with_a_process_started_at(51) != 31234
    # What stopped goes back to where its clients look for it, as long as nobody else is there.
    host.ears = []
    assert port_with_a_process_started_at(51) == 31234


class Starting(FakeHost):
    """A machine that only notes what is started."""

    def __init__(self, files: Mapping[str, str]) -> None:
        super().__init__(files)
        self.started: list[tuple[tuple[str, ...], Mapping[str, str | None]]] = []

    def start(self, argv: Sequence[str], *, log: str, variables: Mapping[str, str | None] | None = None) -> int:
        assert log
        self.started.append((tuple(argv), variables or {}))
        raise StepFailed("enough")


def test_a_model_of_the_hub_is_served_from_where_it_was_fetched_to() -> None:
    host = FakeHost({"/proc/sys/kernel/random/boot_id": "b", "/proc/sys/kernel/hostname": "m"})
    wishes = Options(target="cpu", prefix="/p", model="org/gated", cache_directory="/hf")
    step = step_of(make_plan(host, wishes, assumed="target"), StartServer)
    folder = f"{step.hub.copy.huggingface if step.hub else ''}/hub/models--org--gated"
    snapshot = f"{folder}/snapshots/abc"
    host.files |= {f"{folder}/refs/main": "abc\n", f"{snapshot}/config.json": "{}"}
    host = Starting(host.files)
    with pytest.raises(StepFailed, match="enough"):
        step.apply(host, lambda _: None)
    argv, variables = host.started[0]
    assert argv[argv.index("--model-path") + 1] == snapshot
    assert argv[argv.index("--served-model-name") + 1] == "org/gated"
    assert variables["HF_HUB_OFFLINE"] == "1" and "HF_TOKEN" not in variables
    # The second run finds the very same server.
    known = record.load(host, "/p/servers/cpu")
    again = step_of(make_plan(host, wishes, assumed="target"), StartServer)
    assert known and again.hub and known.runs(at(again.launch, again.hub.path(host) or ""))


def test_bytes_and_time_are_told_before_it_starts_and_only_of_what_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = next(lock for lock in available(folder("lockfiles"), "sglang-0.5.23") if lock.arch == "x86_64")
    step = Environment(prefix="/p", lock=lock)
    told = plan(step).to_fetch(FakeHost()) or ""
    assert told.startswith("4.") and "GB to download, 1" in told and told.endswith("s at 1 Gbit/s")
    assert " GB" not in step.preview(), "which is shown where it is true already, too"
    assert plan(step, left_out=frozenset({"environment"})).to_fetch(FakeHost()) is None
    carried = replace(step, wheels="/bundle/wheels")
    assert "download" not in (plan(carried).to_fetch(FakeHost()) or "")
    monkeypatch.setattr(Environment, "satisfied", lambda *_: True)
    assert plan(step).to_fetch(FakeHost()) is None
