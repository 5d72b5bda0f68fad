"""A fleet's commands: ask every host, give sgprov to those that lack it, fetch wheels once, provision in batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec

from provision.bundle import own
from provision.errors import ProvisionError, StepFailed, UsageError
from provision.fleet import advice, answers, events, memory, supplies
from provision.fleet.drive import Run, Settings, Workshop
from provision.fleet.grouping import group
from provision.fleet.model import ENDED, FleetReport, HostState, State
from provision.fleet.wheels import WheelServer
from provision.host.local import LocalHost
from provision.host.scratch import scratch, state_directory
from provision.report import Status

PLAYBOOKS = {"doctor": "doctor.yml", "status": "serve.yml", "smoke": "serve.yml", "stop": "serve.yml"}
_PERCENT = 100
_STEP_FAILED = 5
# How often a connection is tried again that broke while a host is at work; Ansible waits 1, 3, 7 s in between.
_ATTEMPTS = 3
# How often what is known is written down while a run goes on, and how much of Ansible's own words is told.
_REMEMBER_S = 2.0
_WORDS = 2000
# Where a host may have said enough without a report: that it lacks sgprov, or that it has stopped.
_WITHOUT_REPORT = {("provision.yml", "ask"), ("provision.yml", "tool"), ("stop_work.yml", None)}


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What is asked of the fleet. `batch` are Ansible's, first to last; `max_fail` is a percentage."""

    settings: Settings
    limit: str | None = None
    only_failed: bool = False
    target: str | None = None
    batch: tuple[str, ...] = ("1", "25")
    max_fail: int = 0
    dry_run: bool = False
    smoke: bool = True
    install_tool: bool = False
    wheels_from: str = "controller"
    options: tuple[str, ...] = ()
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)


class Watcher:
    """Who is told how it goes; this one looks away."""

    def hosts(self, hosts: Sequence[HostState]) -> None: ...
    def changed(self, host: HostState) -> None: ...
    def say(self, text: str) -> None: ...


class Fleet:
    """The hosts of one command, and the workshop in which it is carried out."""

    def __init__(
        self, controller: LocalHost, wishes: Wishes, watcher: Watcher, workshop: Workshop, *, command: str
    ) -> None:
        self._controller, self._wishes, self._command = controller, wishes, command
        self._watcher, self._workshop = watcher, workshop
        inventory = wishes.settings.inventory
        names = workshop.hosts(wishes.limit)
        if wishes.only_failed:
            wanted = set(memory.failed(controller, inventory))
            names = tuple(name for name in names if name in wanted)
            if not names:
                raise UsageError("none of these hosts failed the last time", hint="leave `--failed` out")
        self.states = {name: HostState(name=name) for name in names}
        self._narrowed = bool(wishes.limit or wishes.only_failed)
        self._started = time.monotonic()
        self._wheels: dict[str, Any] = {}
        self._brought: set[str] = set()
        self._remembered = 0.0
        watcher.hosts(tuple(self.states.values()))

    def look(self) -> FleetReport:
        """`doctor`, `status`, `smoke`, `stop`: one question to every host at once."""
        if self._wishes.install_tool:
            self._bring_first()
        values: dict[str, Any] = {"sgprov_host_action": self._command}
        if self._wishes.target:
            values["sgprov_host_target"] = self._wishes.target
        names = [name for name, host in self.states.items() if host.state is State.WAITING]
        stopped = None
        if names:
            ran = self._play(PLAYBOOKS[self._command], names, values=values)
            if any(host.state not in ENDED for host in self.states.values()):
                stopped = f"Ansible ended before all had answered: {answers.text(ran.last_line, _WORDS)}"
        for host in self.states.values():
            advice.without_tool(host, self._wishes.settings.inventory)
        return self._report(stopped=stopped)

    def _bring_first(self) -> None:
        """Give sgprov to the hosts that lack it; whether they could be brought to a target is not the question."""
        values = self._values()
        self._play("provision.yml", self.states, tags="ask", values=values)
        for host in self.states.values():
            if host.state is State.FAILED and host.asked:
                host.state, host.finding, host.exit_status = State.OK, "", None
        if lacking := self._names(_lacks_tool):
            self._bring_sgprov(lacking, values)
        self._wait(self._names(lambda _: True))

    def bootstrap(self) -> FleetReport:
        """Bring every host to its target. What is already true is left alone, so that running it again goes on."""
        values = self._values()
        # Before anything is changed: where nothing can be remembered, or this run is killed, that is known.
        self._remember(at_once=True)
        asked = self._play("provision.yml", self.states, tags="ask", values=values)
        if stopped := self._too_many(self.states, asked):
            return self._report(stopped=stopped)
        lacking = self._names(_lacks_tool)
        if lacking and (self._wishes.install_tool or not self._wishes.dry_run):
            ran = self._bring_sgprov(lacking, values)
            if stopped := self._too_many(lacking, ran):
                return self._report(stopped=stopped)
        self._refuse_foreign_locks()
        if stopped := self._too_many(self.states, asked):
            return self._report(stopped=stopped)
        work = self._names(self._has_work)
        if self._wishes.dry_run:
            for name in self._names(_lacks_tool):
                advice.would_come(self.states[name], self._wishes.target)
        if not work or self._wishes.dry_run:
            return self._report()
        self._wait(work)
        with ExitStack() as stack:
            secrets, ssh = self._serve_wheels(stack, work)
            if self._wishes.keys:
                secrets["sgprov_host_keys"] = dict(self._wishes.keys)
            self._apply(work, values, secrets, ssh)
        unfinished = [host.name for host in self.states.values() if host.state not in ENDED and host.name in work]
        return self._report(stopped="stopped after a failure: the rest was left alone" if unfinished else None)

    def _values(self) -> dict[str, Any]:
        wishes = self._wishes
        values: dict[str, Any] = {
            "sgprov_host_expect": own.wheel_digest()[:12],
            "sgprov_host_smoke": wishes.smoke,
            "sgprov_batch": [int(one) if one.isdigit() else one for one in wishes.batch],
            "sgprov_max_fail": wishes.max_fail,
            "sgprov_host_poll": 2,
        }
        if wishes.target:
            values["sgprov_host_target"] = wishes.target
        if wishes.options:
            values["sgprov_host_options"] = list(wishes.options)
        # Said here, an inventory's own words would be overruled: only what was asked for is handed on.
        return values if not wishes.smoke else {k: v for k, v in values.items() if k != "sgprov_host_smoke"}

    def _has_work(self, host: HostState) -> bool:
        if host.state is not State.OK:
            return False
        # Nothing would change, but whether it still serves is worth asking where a server is wanted.
        steps = {step.step: step.status for step in host.report.steps} if host.report else {}
        serves = steps.get("smoke") is Status.SKIPPED and steps.get("server") is Status.ALREADY
        return host.changed or serves or (host.asked is not None and (host.asked.running or host.asked.needs_tool))

    def _refuse_foreign_locks(self) -> None:
        """Wheels are fetched for the locks that we have, and not for whatever a host names."""
        for name in self._names(lambda host: _would(host, "environment")):
            host = self.states[name]
            if host.report and host.report.lock and supplies.lock_of(host.report.lock) is None:
                host.state, host.exit_status = State.FAILED, _STEP_FAILED
                host.finding = f"it wants the wheels of `{host.report.lock}`, which is no lock of this sgprov"

    def _bring_sgprov(self, names: Sequence[str], values: dict[str, Any]) -> Run:
        self._wait(names)
        # Handed on: nobody is asked for it twice.
        known = {name: asked for name in names if (asked := self.states[name].asked)}
        bundles = supplies.bundles(self._controller, (asked.arch for asked in known.values()), self._say)
        for name in names:
            self.states[name].asked = None
        more = {**values, "sgprov_install_bundles": bundles, "sgprov_install_known": msgspec.to_builtins(known)}
        ran = self._play("provision.yml", names, tags="tool", values=more)
        self._brought |= {name for name in names if self.states[name].state is State.OK}
        return ran

    def _serve_wheels(self, stack: ExitStack, names: Sequence[str]) -> tuple[dict[str, Any], str]:
        """Fetch what the hosts will install and serve it to them: secret values, and what SSH needs for it."""
        reports = [host.report for name in names if _would(host := self.states[name], "environment")]
        wanted = sorted({report.lock for report in reports if report and report.lock})
        if self._wishes.wheels_from != "controller" or not wanted:
            return {}, ""
        place = state_directory(self._controller) / "wheels"
        locks = [lock for name in wanted if (lock := supplies.lock_of(name))]
        sources, fetched = supplies.wheels(self._controller, locks, place, self._say)
        server = stack.enter_context(WheelServer(place, sources, names))
        self._wheels = {"locks": wanted, "files": len(sources), "fetched_bytes": fetched.bytes}
        stack.callback(lambda: self._wheels.update(sent_bytes=server.sent_bytes))
        return {"sgprov_host_wheels_of": server.urls}, server.ssh_arguments

    def _apply(self, names: Sequence[str], values: dict[str, Any], secrets: dict[str, Any], ssh: str) -> None:
        left = tuple(names)
        try:
            while left:
                self._play("provision.yml", left, tags="apply", values=values, secrets=secrets, ssh_arguments=ssh)
                # Ansible ends a play where all hosts of a batch failed, and the first batch is one host.
                still = tuple(name for name in left if self.states[name].state is State.WAITING)
                left = still if len(still) < len(left) and not self._over_limit(names) else ()
        except KeyboardInterrupt:
            self._interrupted(names, values)
            raise

    def _interrupted(self, names: Sequence[str], values: dict[str, Any]) -> None:
        """End what goes on in the background of hosts, say so, and keep which of them were complete."""
        working = [name for name in names if self.states[name].state is State.WORKING]
        ended = [name for name in names if self.states[name].state in ENDED]
        try:
            if working:
                self._say(f"interrupted: ending what goes on at {', '.join(working)}")
                self._play("stop_work.yml", working, values=values)
                deaf = [name for name in working if self.states[name].state in {State.FAILED, State.UNREACHABLE}]
                if stopped := [name for name in working if name not in deaf]:
                    self._say(f"ended what went on at {', '.join(stopped)}")
                if deaf:
                    self._say(f"what goes on at {', '.join(deaf)} could not be ended: the next run takes it up")
        finally:
            for name in names:
                if name not in ended:
                    self.states[name].state = State.NOT_REACHED
            self._report()

    def _play(self, playbook: str, names: Iterable[str], **how: Any) -> Run:
        """A playbook on these hosts. Where what one of them says ends Ansible itself, the others go on without it."""
        groups = [tuple(names)]
        while groups:
            run = self._play_once(playbook, groups[0], **how)
            groups = [*(self._apart(groups[0], run) if run.broke else ()), *groups[1:]]
            if how.get("tags") == "apply" and self._over_limit(tuple(self.states)):
                break
        return run

    def _apart(self, names: Sequence[str], run: Run) -> list[tuple[str, ...]]:
        """The hosts that are left of a broken run, in groups that come closer to the one that broke it."""
        suspects = tuple(name for name in names if self.states[name].state is State.WORKING)
        left = tuple(name for name in names if self.states[name].state is State.WAITING)
        if len(suspects) == 1:
            host = self.states[suspects[0]]
            host.state, host.exit_status = State.FAILED, _STEP_FAILED
            host.finding = f"what it says ends Ansible itself: {answers.text(run.last_line, _WORDS)}"
            return [left] if left else []
        self._wait(suspects)
        half = len(suspects) // 2
        return [group_ for group_ in (suspects[:half], suspects[half:], left) if group_]

    def _play_once(
        self,
        playbook: str,
        names: Iterable[str],
        *,
        tags: str | None = None,
        values: Mapping[str, Any],
        secrets: Mapping[str, Any] | None = None,
        ssh_arguments: str = "",
    ) -> Run:
        wanted = tuple(names)
        for name in wanted:
            self.states[name].answered = self.states[name].reported = False

        def tell(event: Mapping[str, Any]) -> None:
            host = events.take(self.states, event)
            if host is not None:
                at_it = event.get("event") in {"runner_on_start", "runner_retry"}
                host.clock(time.monotonic(), working=at_it)
                # Whoever looked on may have gone: the work ends as it would have.
                with suppress(OSError, ValueError):
                    self._watcher.changed(host)
                if host.state in ENDED:
                    with suppress(ProvisionError):
                        self._remember()

        whole = not self._narrowed and len(wanted) == len(self.states)
        run = self._workshop.play(
            playbook,
            tell,
            limit=() if whole else wanted,
            tags=tags,
            values=values,
            secrets=secrets,
            ssh_arguments=ssh_arguments,
            # Work that goes on at a host is worth another look; one that is not there is told at once.
            ssh_attempts=_ATTEMPTS if tags == "apply" else 0,
        )
        seen = False
        for name in wanted:
            host = self.states[name]
            seen = seen or host.state is not State.WAITING
            if host.state is State.WORKING and (host.answered or not run.broke):
                _end(host, run, enough=host.reported or (host.answered and (playbook, tags) in _WITHOUT_REPORT))
        if not seen:
            words = answers.text(run.output.strip() or run.status, _WORDS)
            raise StepFailed(
                f"Ansible did not start on any host:\n{words}",
                hint="what it says comes from the inventory, or from this machine; no host was changed",
            )
        return run

    def _too_many(self, names: Iterable[str], run: Run) -> str | None:
        """Whether more hosts failed than may; unreachable ones are told, and stop nobody."""
        wanted = tuple(names)
        if self._over_limit(wanted):
            failed = [name for name in wanted if self.states[name].state is State.FAILED]
            return (
                f"{len(failed)} of {len(wanted)} hosts cannot be brought to their target, and `--max-fail` is "
                f"{self._wishes.max_fail}: nothing was changed on any"
            )
        return None if run.status in {"successful", "failed"} else f"Ansible ended as `{run.status}`"

    def _over_limit(self, names: Sequence[str]) -> bool:
        failed = sum(self.states[name].state is State.FAILED for name in names)
        return bool(failed) and _PERCENT * failed / len(names) > self._wishes.max_fail

    def _say(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self._watcher.say(text)

    def _wait(self, names: Iterable[str]) -> None:
        """They answered, and something is prepared for them."""
        for name in names:
            host = self.states[name]
            host.state, host.changed, host.step = State.WAITING, False, ""

    def _remember(self, *, at_once: bool = False) -> None:
        """Keep what is known of each host, so that a run that is killed can be taken up; not for every host anew."""
        now = time.monotonic()
        if self._wishes.dry_run or self._command != "bootstrap":
            return
        if at_once or now - self._remembered > _REMEMBER_S:
            self._remembered = now
            states = {name: _known(host) for name, host in self.states.items()}
            memory.remember(self._controller, self._wishes.settings.inventory, self._command, states)

    def _names(self, wanted: Callable[[HostState], bool]) -> tuple[str, ...]:
        return tuple(name for name, host in self.states.items() if host.state is State.OK and wanted(host))

    def _report(self, *, stopped: str | None = None) -> FleetReport:
        for host in self.states.values():
            if host.state not in ENDED or (stopped and host.state is State.OK and host.asked and host.asked.needs_tool):
                host.state = State.NOT_REACHED
            host.changed = host.changed or host.name in self._brought
        hosts = tuple(self.states.values())
        # What came of it is told, also where it cannot be kept: a disk that is full by now, for one.
        unkept: tuple[str, ...] = ()
        try:
            self._remember(at_once=True)
        except ProvisionError as error:
            unkept = (f"how this run ended could not be kept, so `--failed` does not know of it: {error}",)
        return FleetReport(
            command=self._command,
            hosts=hosts,
            groups=group(hosts),
            seconds=time.monotonic() - self._started,
            dry_run=self._wishes.dry_run,
            stopped=stopped,
            unkept=unkept,
            wheels=self._wheels,
        )


def carry_out(controller: LocalHost, command: str, wishes: Wishes, watcher: Watcher) -> FleetReport:
    """One command over the fleet. Raises `UsageError` for an inventory without hosts or a missing Ansible."""
    with scratch(controller) as folder_, closing(Workshop(wishes.settings, folder_)) as workshop:
        fleet = Fleet(controller, wishes, watcher, workshop, command=command)
        return fleet.bootstrap() if command == "bootstrap" else fleet.look()


def _lacks_tool(host: HostState) -> bool:
    return host.asked is not None and host.asked.needs_tool


def _known(host: HostState) -> State:
    """What a later run is told of a host: one that is still at work was not brought to its end."""
    return host.state if host.state in ENDED else State.NOT_REACHED


def _end(host: HostState, run: Run, *, enough: bool) -> None:
    """What becomes of a host that neither failed nor ended well when its play is over."""
    if enough:
        host.state = State.OK
    elif host.answered or run.status == "successful":
        host.state, host.exit_status = State.FAILED, _STEP_FAILED
        host.finding = "it said that it was done, and nothing of what it did" if host.answered else "it gave no answer"
    else:
        host.finding = "the run stopped while it was at work; the next one takes up what goes on there"


def _would(host: HostState, step: str) -> bool:
    steps = host.report.steps if host.report else ()
    return any(one.step == step and one.status is Status.WOULD for one in steps)
