"""The step that has the server running with the settings of the plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from msgspec import structs

from provision.errors import ProvisionError
from provision.host import Host, HostView
from provision.remembered import living
from provision.report import Finding, Severity
from provision.serving import contained, keys, record, server, watchman
from provision.serving.failed_launch import diagnosed
from provision.serving.launch import Launch, at
from provision.serving.phases import Phase
from provision.serving.record import members
from provision.serving.status import status
from provision.steps.base import Applied, Progress
from provision.steps.model import HubModel


@dataclass(frozen=True, kw_only=True)
class StartServer:
    """The server `name` runs with `launch`; one of ours that runs by that name with other settings is replaced.

    Two may not fit on the GPUs, so the old one is ended first, and started again where the new one fails: here, or in
    the smoke test (`tested`; without one after it, being ready is all the proof). `servers` is the directory of all.

    A model of `hub` is served from where it was fetched to: the server then asks nobody for it, and needs no token.
    """

    servers: str
    name: str
    launch: Launch
    stack: str | None = None
    timeout_s: float = server.READY_TIMEOUT_S
    tested: bool = True
    hub: HubModel | None = None
    key: str | None = field(default=None, repr=False)

    looks_only = False

    @property
    def id(self) -> str:
        return "server"

    def preview(self) -> str:
        # An image that is made for one model has it inside, without a place that anybody could name.
        model = f"`{self.launch.model}`" if self.launch.model else "the model of the image"
        return f"serve {model} at {self.launch.url}"

    def satisfied(self, host: HostView) -> bool:
        directory = record.directory_of(self.servers, self.name)
        known = record.load(host, directory)
        if known is None or not known.runs(self.launch_on(host)) or known.asked != self.launch.asked:
            return False
        if record.damage(host, directory):
            return False
        if self.key is not None and keys.of(host, directory) != self.key:
            return False
        return status(host, known).health == "running" and not self._left_alone(known)

    def check(self, view: HostView) -> None:
        known = record.load(view, record.directory_of(self.servers, self.name))
        if known:
            server.refuse_elsewhere(view, known)
        if self.launch.container and not (known and known.runs(self.launch) and living(view, known)):
            # Without them the one that serves would be ended for one that cannot start.
            contained.secrets_of(self.launch.container)

    def apply(self, host: Host, tell: Callable[[Progress], None]) -> Applied:
        known = record.load(host, record.directory_of(self.servers, self.name))
        if known and not known.runs(self.launch_on(host)) and members(host, known):
            tell(
                Progress(text=f"replacing the `{self.name}` that runs with other settings", milestone=True, stays=True)
            )
        try:
            with server.undone_if_interrupted(host, self.servers, name=self.name):
                ready = self._start(host, tell)
        except ProvisionError as error:
            raise gone_back(host, error, servers=self.servers, name=self.name, tell=tell) from error
        except BaseException:
            # Not waited for: who interrupts wants an end, and what served before is to go on.
            if server.restore(host, self.servers, name=self.name):
                tell(Progress(text="the server that served before is starting again", milestone=True))
            raise
        if not self.tested:
            record.forget_replaced(host, ready.directory)
        took = f", ready after {ready.ready_after_s:.0f} s" if ready.ready_after_s is not None else ""
        return Applied(note=f"pid {ready.pid} at {ready.url}{took}{_kept_up(host, ready)}")

    @staticmethod
    def _left_alone(known: record.Server) -> bool:
        """Whether it is to be kept up, and whoever did so is gone."""
        return known.supervised and not watchman.is_at_work(known.directory)

    def launch_on(self, view: HostView) -> Launch:
        """The launch with the place of the model, as soon as it has one."""
        path = self.hub.path(view) if self.hub else None
        return at(self.launch, path) if path else self.launch

    def _start(self, host: Host, tell: Callable[[Progress], None]) -> record.Server:
        launch = self.launch_on(host)
        started = server.start(
            host,
            self.servers,
            launch,
            name=self.name,
            stack=self.stack,
            replacing=True,
            key=self.key,
            tell=lambda text: tell(Progress(text=text, milestone=True, stays=True)),
        )
        with diagnosed(started.log):
            ready = server.wait_until_ready(host, started, timeout_s=self.timeout_s, tell=_phases(tell))
        # One that ran already, and was asked for the same in other words.
        return ready if ready.asked == launch.asked else record.note(host, structs.replace(ready, asked=launch.asked))


def _kept_up(host: Host, ready: record.Server) -> str:
    """What becomes of it when it dies: whoever kept up the one before goes on, or somebody begins anew."""
    if not ready.supervised:
        return ""
    if watchman.is_at_work(ready.directory):
        return ", kept up like the one before"
    return f", {watchman.start(host, ready)}: the supervisor of the one before was gone"


def gone_back(
    host: Host,
    error: ProvisionError,
    *,
    servers: str,
    name: str,
    tell: Callable[[Progress], None],
    otherwise_stop: bool = False,
) -> ProvisionError:
    """The error of a new server, with what became of the one that it replaced: that is started again, and waited for.

    The same error where it replaced none; then the new one goes, too, with `otherwise_stop`.
    """
    log = f"{record.directory_of(servers, name)}/server.log"
    started = None
    try:
        started = server.restore(host, servers, name=name)
        if started is None:
            if otherwise_stop:
                server.stop(host, servers, name=name)
            return error
        tell(Progress(text="starting the server again that served before", milestone=True))
        server.wait_until_ready(host, started, tell=_phases(tell))
    except ProvisionError as problem:
        severity = Severity.ERROR
        said = f"the server that served before could not be started again: {str(problem).splitlines()[0]}"
    except KeyboardInterrupt:
        if started:
            server.start_again(host, started)
        raise
    else:
        severity = Severity.INFO
        said = f"the server that served before was started again, and serves at {started.url}"
    # The log of the one that failed has made way for that of the other.
    text, hint = (part.replace(log, f"{log}.1") for part in (str(error), error.hint or ""))
    fix = (f"`sgprov serve start {name}`",) if severity is Severity.ERROR else ()
    finding = Finding(check="server-restored", severity=severity, text=said, fix=fix)
    return type(error)(f"{text}\n{said}", hint=hint or None, findings=(*error.findings, finding))


def _phases(tell: Callable[[Progress], None]) -> Callable[[Phase, float], None]:
    return lambda now, seconds: tell(Progress(text=f"{now} ({seconds:.0f} s)", milestone=True))
