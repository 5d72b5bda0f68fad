"""The step that installs a stack: its own directory, every wheel by hash, stamped when all are in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from provision import __version__
from provision.environments import claims, drift, interpreters, layout, locking, receipts, stamping, uv, watching
from provision.environments.building import Building
from provision.environments.sealing import Comparison
from provision.errors import CheckFailed, StepFailed
from provision.host import Host, HostView
from provision.locks import sizes
from provision.locks.lockfile import Lock
from provision.report import Finding
from provision.steps.base import Applied, Progress
from provision.steps.disk import check_disk, check_links

_GB = 1e9
# What the estimate of the time takes a line to carry, in bits per second: a fast home line and a data centre.
_LINES = ((100e6, "100 Mbit/s"), (1e9, "1 Gbit/s"))


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The environment of `lock` is complete. It is not in use by that: the step `switch` does it.

    `interpreter` is the path of a fitting Python, None for the one under the prefix. With `anew` it is
    made anew even where it is complete; `reinstall` names packages whose files are not trusted then, nor those in uv's
    cache, which are the same files. `cached` says that it has all wheels, `wheels` is
    where all of them are taken from, if not from the index.
    """

    prefix: str
    lock: Lock
    interpreter: str | None = None
    reinstall: tuple[str, ...] = ()
    anew: bool = False
    cached: bool = False
    wheels: str | None = None

    @property
    def id(self) -> str:
        return "environment"

    looks_only = False

    @property
    def path(self) -> str:
        return layout.path_for(self.prefix, self.lock)

    def preview(self) -> str:
        return f"install the {len(self.lock.requirements)} wheels of `{self.lock.name}` into `{self.path}`"

    def estimate(self) -> str | None:
        """Bytes and time of what `apply` will fetch; None where they are not known."""
        known = sizes.of(self.lock)
        if known is None:
            return None
        carried = self.cached or (self.wheels is not None and "://" not in self.wheels)
        return estimate(None if carried else known.download_bytes, known.disk_bytes)

    def satisfied(self, host: HostView) -> bool:
        return not self.anew and layout.is_complete(host, self.path, self.lock)

    def check(self, view: HostView) -> None:
        short = check_disk(view, prefix=self.prefix, lock=self.lock, interpreter=self.interpreter)
        if short is not None:
            raise CheckFailed(short.text, hint=short.fix[0], findings=(short,))

    def apply(self, host: Host, tell: Callable[[Progress], None]) -> Applied:
        # Before anything is changed, the prefix included.
        interpreter = self._interpreter(host)
        with locking.alone(
            host,
            self.prefix,
            patience_s=locking.LONG_S,
            tell=lambda text: tell(Progress(text=text, milestone=True)),
        ) as held:
            # Another run may have made it while this one waited.
            return self._found(host) if self.satisfied(host) else self._made(host, interpreter, tell, held)

    def _found(self, host: Host) -> Applied:
        claims.hold(host, self.path)
        stamp = layout.read_stamp(host, self.path)
        return self._applied(stamp.python if stamp else "")

    def _interpreter(self, host: HostView) -> interpreters.Interpreter:
        """The Python to make it from. Raises where there is none, and `CheckFailed` where the disk is too small."""
        interpreter = interpreters.find(host, prefix=self.prefix, python=self.lock.python, path=self.interpreter)
        if interpreter is None:
            raise StepFailed(f"the Python {self.lock.python} for `{self.lock.name}` is gone: `{self.interpreter}`")
        replace(self, interpreter=interpreter.path).check(host)
        return interpreter

    def _made(
        self, host: Host, interpreter: interpreters.Interpreter, tell: Callable[[Progress], None], held: int
    ) -> Applied:
        told = self.estimate()
        tell(Progress(text=f"{self.preview()} ({told})" if told else self.preview(), milestone=True))
        building = Building(
            host=host,
            path=self.path,
            staging=layout.staging_of(self.path),
            lock=self.lock,
            interpreter=interpreter.path,
            held=held,
            wheels=self.wheels,
            tell=lambda line: tell(Progress(text=line.strip())),
        )
        made = self._built(host, building, tell)
        stamp = self._stamp(interpreter)
        tell(Progress(text="writing everything out to the disk"))
        stamping.stamp(host, self.path, building.staging, made, stamp, lock_text=self.lock.text, cache=building.cache)
        copied = check_links(host, prefix=self.prefix)
        return self._applied(interpreter.version, (*uv.check(host), *([copied] if copied else ())))

    def _applied(self, python: str, findings: tuple[Finding, ...] = ()) -> Applied:
        return Applied(
            note=f"{len(self.lock.requirements)} wheels in `{self.path}`",
            findings=findings,
            data={"environment": self.path, "lock_digest": self.lock.digest, "python": python},
        )

    def _built(self, host: Host, building: Building, tell: Callable[[Progress], None]) -> Comparison:
        known = sizes.of(self.lock)
        total = known.installed_bytes if known else None
        # What is counted is what lies on the disk, which is more than what is fetched for it.
        text = f"installing {len(self.lock.requirements)} wheels, on disk"

        def written(count: int) -> None:
            # uv writes a little more than the wheels hold (its own notes), which must not read as 101 %.
            tell(Progress(text=text, done=min(count, total) if total else count, total=total))

        try:
            with watching.watch(host, written):
                return building.carried_out({*self.reinstall, *drift.packages(host, self.path)})
        except StepFailed as error:
            error.findings = error.findings or _known_causes(error)
            raise

    def _stamp(self, interpreter: interpreters.Interpreter) -> layout.Stamp:
        return layout.Stamp(
            name=self.path.rsplit("/", 1)[-1],
            lock=self.lock.name,
            lock_digest=self.lock.digest,
            python=interpreter.version,
            interpreter=interpreter.path,
            sgprov=__version__,
            time=receipts.now(),
        )


def _known_causes(error: StepFailed) -> tuple[Finding, ...]:
    """What the last words of an installer are known to mean."""
    from provision.diagnosis.matcher import diagnose_text  # noqa: PLC0415  # a second of patterns

    return diagnose_text(str(error)).to_findings()


def estimate(download_bytes: int | None, disk_bytes: int | None = None) -> str:
    """Bytes and time, such as `5.1 GB to download, 9.5 GB on disk; 7 min at 100 Mbit/s, 41 s at 1 Gbit/s`."""
    sizes_ = [(download_bytes, "to download"), (disk_bytes, "on disk")]
    parts = ", ".join(f"{count / _GB:.1f} GB {what}" for count, what in sizes_ if count is not None)
    return f"{parts}; {times(download_bytes)}" if download_bytes else parts


def times(download_bytes: int) -> str:
    """How long a download takes, such as `7 min at 100 Mbit/s, 41 s at 1 Gbit/s`."""
    return ", ".join(f"{_time(download_bytes * 8 / rate)} at {line}" for rate, line in _LINES)


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"  # noqa: PLR2004  # easier read in minutes
