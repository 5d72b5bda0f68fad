"""The machine sgprov runs on: the only place where processes are started."""

from __future__ import annotations

import contextlib
import glob as globbing
import os
import shutil
import socket
import stat as stat_modes
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from provision import trust
from provision.errors import CommandFailed, ProbeError, StepFailed
from provision.host import addresses, files, signals
from provision.host.children import child, interruption_deferred, limited
from provision.host.view import (
    CHANGE_TIMEOUT_S,
    QUERY_TIMEOUT_S,
    DiskSpace,
    Listener,
    Outcome,
    PathInfo,
    Process,
    Reach,
)

T = TypeVar("T")

# How much of a failed command's output its error message repeats.
TAIL_LINES = 15
# A driver that hangs holds its process against every signal: it is waited for twice as long as this.
_QUERY_PATIENCE_S = 0.5
# What a file may weigh to be read whole: facts come from small files, logs are read another way.
READ_LIMIT_BYTES = 8 * 1024 * 1024
READ_BLOCK_BYTES = 64 * 1024
# How those ended that `start` started, by pid.
_ENDED: dict[int, int] = {}


class LocalHost:
    """This machine. `environment` is what its children inherit (config gives it, already without secrets)."""

    recorded = False

    def __init__(self, environment: Mapping[str, str], *, name: str = "localhost") -> None:
        self._environment = dict(environment)
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    def with_defaults(self, variables: Mapping[str, str]) -> LocalHost:
        """The same machine, with variables for what it starts where the user has not set them."""
        return LocalHost({**variables, **self._environment}, name=self._name)

    def with_variables(self, variables: Mapping[str, str]) -> LocalHost:
        """The same machine, with variables for what it starts whatever the user has set."""
        return LocalHost({**self._environment, **variables}, name=self._name)

    # --- looking

    def query(self, argv: Sequence[str], *, timeout_s: float = QUERY_TIMEOUT_S) -> Outcome:
        start = time.monotonic()
        command = tuple(argv)
        # LC_ALL=C: what is parsed must not be translated (a localised lscpu).
        environment = {**self._environment, "LC_ALL": "C"}
        program = shutil.which(command[0], path=self._environment.get("PATH"))
        if program is None:
            return Outcome(command, None, installed=False)
        try:
            # In `/`, where root alone can write: some programs take code or settings from wherever they stand.
            with child(
                [os.path.abspath(program), *command[1:]],  # noqa: PTH100  # `absolute` leaves `..` in it
                environment,
                stderr=subprocess.PIPE,
                directory="/",
                patience_s=_QUERY_PATIENCE_S,
            ) as process:
                out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return Outcome(command, None, seconds=time.monotonic() - start)
        except CommandFailed as error:
            return Outcome(command, None, err=str(error), installed=False)
        return Outcome(command, process.returncode, _text(out), _text(err), time.monotonic() - start)

    def read(self, path: str) -> str | None:
        raw = self.read_bytes(path, READ_LIMIT_BYTES)
        return None if raw is None else _text(raw)

    def read_bytes(self, path: str, limit: int) -> bytes | None:
        def read() -> bytes | None:
            blocks: list[bytes] = []
            left = limit
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
                with os.fdopen(descriptor, "rb", buffering=0) as stream:
                    if not stat_modes.S_ISREG(os.fstat(descriptor).st_mode):
                        return None
                    # By blocks: the kernel refuses to read a file of /proc/sys into a buffer of megabytes.
                    while left > 0 and (block := stream.read(min(left, READ_BLOCK_BYTES))):
                        blocks.append(block)
                        left -= len(block)
            except (OSError, ValueError):
                return None
            return b"".join(blocks)

        return _bounded(read, None)

    def require_trusted(self, path: str) -> None:
        _answered(path, lambda: trust.require(path))

    def read_state(self, path: str) -> str | None:
        return _answered(path, lambda: files.read_state(path, READ_LIMIT_BYTES))

    def read_link(self, path: str) -> str | None:
        return _answered(path, lambda: trust.read_link(path))

    def glob(self, pattern: str) -> tuple[str, ...]:
        return _bounded(lambda: tuple(sorted(globbing.glob(pattern))), ())  # noqa: PTH207  # absolute patterns

    def stat(self, path: str) -> PathInfo | None:
        def stat() -> PathInfo | None:
            try:
                status = Path(path).stat()
            except PermissionError as error:
                raise trust.not_permitted(path) from error
            except (OSError, ValueError):
                return None
            return PathInfo(
                mode=status.st_mode & 0o7777,
                uid=status.st_uid,
                owner=trust.user_name(status.st_uid),
                size=status.st_size,
                is_directory=stat_modes.S_ISDIR(status.st_mode),
                writable=os.access(path, os.W_OK),
            )

        return _bounded(stat, None)

    def disk(self, path: str) -> DiskSpace | None:
        def disk() -> DiskSpace | None:
            there = Path(path).absolute()
            while not os.path.exists(there) and there != there.parent:  # noqa: PTH110  # which raises nothing
                there = there.parent
            try:
                status = os.statvfs(there)
            except OSError:
                return None
            mount, filesystem = _mount_of(there.resolve(), self.read("/proc/self/mounts") or "")
            return DiskSpace(
                path=path,
                mount=mount,
                filesystem=filesystem,
                total=status.f_blocks * status.f_frsize,
                free=status.f_bavail * status.f_frsize,
                inodes_free=status.f_favail if status.f_files else None,
            )

        return _bounded(disk, None)

    def listeners(self) -> tuple[Listener, ...]:
        import psutil  # noqa: PLC0415  # 15 ms that `sgprov --version` does not pay

        try:
            connections = psutil.net_connections(kind="tcp")
        except (psutil.Error, OSError, RuntimeError) as error:
            raise ProbeError(f"who listens on this host cannot be told: {error}") from error
        found = {}
        for connection in connections:
            if connection.status != psutil.CONN_LISTEN or not connection.laddr:
                continue
            owner: tuple[str | None, str | None, str | None] = (None, None, None)
            if connection.pid:
                with contextlib.suppress(psutil.Error):
                    process = psutil.Process(connection.pid)
                    owner = (process.name(), " ".join(process.cmdline()), process.username())
            key = (connection.laddr.port, connection.laddr.ip, connection.pid)
            found[key] = Listener(
                port=connection.laddr.port,
                address=connection.laddr.ip,
                pid=connection.pid,
                process=owner[0],
                command=owner[1],
                user=owner[2],
            )
        return tuple(found[key] for key in sorted(found, key=lambda key: (key[0], key[1], key[2] or 0)))

    def processes(self) -> tuple[Process, ...]:
        import psutil  # noqa: PLC0415

        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error), process.oneshot():
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                found.append(
                    Process(
                        pid=process.pid,
                        parent=process.ppid(),
                        name=process.name(),
                        command=" ".join(process.cmdline()),
                        user=process.username(),
                        started=process.create_time(),
                    )
                )
        return tuple(found)

    def variable(self, name: str) -> str | None:
        return self._environment.get(name)

    def environment(self) -> dict[str, str]:
        return dict(self._environment)

    def reach(self, host: str, port: int, *, timeout_s: float) -> Reach | None:
        start = time.monotonic()

        def knock() -> Reach:
            try:
                with socket.create_connection((host, port), timeout=timeout_s):
                    return Reach(state="reached", seconds=time.monotonic() - start)
            except socket.gaierror:
                return Reach(state="unknown", seconds=time.monotonic() - start)
            except TimeoutError:
                return Reach(state="silent", seconds=time.monotonic() - start)
            except OSError:
                return Reach(state="refused", seconds=time.monotonic() - start)

        # The resolver has a timeout of its own, which is longer than anyone wants to wait here.
        return _bounded(knock, Reach(state="silent", seconds=timeout_s), timeout_s=timeout_s)

    def bind_problem(self, address: str) -> str | None:
        return _bounded(lambda: addresses.bind_problem(address), None)

    # --- changing

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float = CHANGE_TIMEOUT_S,
        variables: Mapping[str, str | None] | None = None,
        directory: str | None = None,
        on_line: Callable[[str], None] | None = None,
        stdin: str | None = None,
        umask: int | None = None,
        pass_fds: Sequence[int] = (),
        end_when: Callable[[int], bool] | None = None,
    ) -> Outcome:
        start = time.monotonic()
        command = tuple(argv)
        lines: deque[str] = deque(maxlen=2000)
        environment = self._with(variables)
        with (
            child(
                command,
                environment,
                stderr=subprocess.STDOUT,
                directory=directory,
                stdin=stdin,
                umask=umask,
                pass_fds=pass_fds,
            ) as process,
            limited(process, timeout_s=timeout_s, end_when=end_when) as ended,
        ):
            assert process.stdout is not None  # noqa: S101  # PIPE was asked for
            for raw in process.stdout:
                line = _text(raw).rstrip("\n")
                lines.append(line)
                if on_line:
                    on_line(line)
            rc = process.wait()
        seconds = time.monotonic() - start
        outcome = Outcome(command, None if ended.is_set() else rc, "\n".join(lines), seconds=seconds)
        if not outcome.ok:
            tail = "\n".join(f"  {line}" for line in list(lines)[-TAIL_LINES:])
            raise CommandFailed(f"`{' '.join(command)}` {outcome.ending}:\n{tail}", hint=files.hint_for(tail))
        return outcome

    def start(self, argv: Sequence[str], *, log: str, variables: Mapping[str, str | None] | None = None) -> int:
        descriptor = files.open_state(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, mode=0o600)
        try:
            # Interrupted in the middle of `Popen`, it would run without the variables that it is found by.
            with interruption_deferred():
                process = subprocess.Popen(
                    list(argv),
                    stdin=subprocess.DEVNULL,
                    stdout=descriptor,
                    stderr=subprocess.STDOUT,
                    env=self._with(variables),
                    start_new_session=True,
                    cwd="/",
                    umask=0o077,
                )
                # Reap it should it end while we live: a dead server must not be a zombie that looks alive.
                threading.Thread(target=_reap, args=(process,), daemon=True).start()
        except OSError as error:
            raise StepFailed(f"`{argv[0]}` could not be started: {error}") from error
        finally:
            os.close(descriptor)
        return process.pid

    def exit_status(self, pid: int) -> int | None:
        return _ENDED.get(pid)

    def signal(self, pid: int, number: int, *, only_if: Callable[[], bool] = lambda: True) -> bool:
        return signals.send(pid, number, only_if)

    def move(self, path: str, target: str) -> None:
        files.move(path, target)

    def open_state(self, path: str, flags: int, *, mode: int = 0o600) -> int:
        return files.open_state(path, flags, mode=mode)

    def write(self, path: str, text: str, *, mode: int = 0o644) -> None:
        files.write(path, text, mode=mode)

    def write_output(self, path: str, text: str, *, mode: int = 0o644) -> None:
        files.write_output(path, text, mode=mode)

    def make_directory(self, path: str, *, mode: int = 0o755) -> None:
        files.make_directory(path, mode=mode)

    def link(self, path: str, target: str) -> None:
        files.link(path, target)

    def remove(self, path: str) -> None:
        files.remove(path)

    def _with(self, variables: Mapping[str, str | None] | None) -> dict[str, str]:
        merged: dict[str, str | None] = {**self._environment, **(variables or {})}
        return {name: value for name, value in merged.items() if value is not None}


def _bounded(look: Callable[[], T], otherwise: T, *, timeout_s: float = QUERY_TIMEOUT_S) -> T:
    """Look, but give up after the query limit: a path on a dead network mount blocks for ever otherwise."""
    box: list[T] = []
    raised: list[BaseException] = []

    def answer() -> None:
        try:
            box.append(look())
        except BaseException as error:  # noqa: BLE001  # raised again where it was asked
            raised.append(error)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if raised:
        raise raised[0]
    return box[0] if box else otherwise


def _answered(path: str, look: Callable[[], T]) -> T:
    """Look at state of ours within the query limit; no answer is not "nothing there"."""
    answer = _bounded(lambda: (look(),), None)
    if answer is None:
        raise ProbeError(f"`{path}` gives no answer", hint=f"`findmnt --target {path}` says what is mounted there")
    return answer[0]


def _reap(process: subprocess.Popen[bytes]) -> None:
    _ENDED[process.pid] = process.wait()


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", errors="replace")


def _mount_of(path: Path, mounts: str) -> tuple[str, str]:
    """Mount point and type of the file system that holds `path`, from text such as `/dev/vda / ext4 rw 0 0`."""
    best = ("/", "unknown")
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:  # noqa: PLR2004  # device, mount point, type
            continue
        mount = fields[1].replace("\\040", " ")
        if path.is_relative_to(mount) and len(mount) >= len(best[0]):
            best = (mount, fields[2])
    return best
