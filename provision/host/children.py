"""Starting a child process so that no interruption can lose it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

from provision.errors import CommandFailed

_PATIENCE_S = 3.0
# Where nobody reaps orphans (a container without an init) they stay as zombies: no longer than this is waited.
_STRAGGLERS_S = 0.5
_POLL_S = 0.01
# How often a child that is watched is looked at.
_LOOK_S = 1.0


@contextmanager
def child(
    argv: Sequence[str],
    environment: Mapping[str, str],
    *,
    stderr: int,
    directory: str | None = None,
    stdin: str | None = None,
    umask: int | None = None,
    pass_fds: Sequence[int] = (),
    patience_s: float = _PATIENCE_S,
) -> Iterator[subprocess.Popen[bytes]]:
    """A running process in a session of its own; leaving the block by an exception ends it with all its children.

    It reads `stdin` and then the end of it; nothing without one. `umask` is the child's, ours without one; `pass_fds`
    are descriptors that it has, too. `patience_s` is how long each signal has its effect.
    Raises `CommandFailed` where the program is not there or cannot be started.
    """
    started: list[subprocess.Popen[bytes]] = []
    try:
        # Ctrl-C in the middle of `Popen` would leave a process that runs and that nobody knows of.
        with interruption_deferred():
            piped = subprocess.DEVNULL if stdin is None else subprocess.PIPE
            started.append(
                _started(
                    argv,
                    environment,
                    stdin=piped,
                    stderr=stderr,
                    directory=directory,
                    umask=umask,
                    pass_fds=pass_fds,
                )
            )
        if started[0].stdin and stdin is not None:
            # A key, which every pipe takes at once; a program that did not read it says why itself.
            with contextlib.suppress(BrokenPipeError), started[0].stdin as entrance:
                entrance.write(stdin.encode())
        yield started[0]
    except BaseException:
        for process in started:
            end_group(process, patience_s=patience_s)
        raise
    finally:
        for stream in (stream for process in started for stream in (process.stdout, process.stderr) if stream):
            stream.close()


@contextmanager
def limited(
    process: subprocess.Popen[bytes], *, timeout_s: float, end_when: Callable[[int], bool] | None
) -> Iterator[threading.Event]:
    """End a child that takes longer, or of which `end_when` says so, asked every second; then the event is set."""
    over, ended = threading.Event(), threading.Event()
    deadline = time.monotonic() + timeout_s

    def look() -> None:
        while not over.wait(min(_LOOK_S, max(0.0, deadline - time.monotonic()))):
            if time.monotonic() >= deadline or (end_when and end_when(process.pid)):
                ended.set()
                end_group(process)
                break

    # Interrupted before it is told that it is over, it must not keep the whole process alive.
    threading.Thread(target=look, daemon=True).start()
    try:
        yield ended
    finally:
        over.set()


def end_group(process: subprocess.Popen[bytes], *, patience_s: float = _PATIENCE_S) -> None:
    """End a child and all its children: politely, then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        _signal_group(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
            break
    # Its children were told as well; one may take a moment longer than its parent.
    deadline = time.monotonic() + _STRAGGLERS_S
    while _signal_group(process.pid, signal.SIGKILL) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def _signal_group(leader: int, number: int) -> bool:
    """Send a signal; False where nobody is left in the group."""
    try:
        os.killpg(leader, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _started(
    argv: Sequence[str],
    environment: Mapping[str, str],
    *,
    stdin: int,
    stderr: int,
    directory: str | None,
    umask: int | None,
    pass_fds: Sequence[int],
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            list(argv),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=dict(environment),
            cwd=directory,
            start_new_session=True,
            umask=-1 if umask is None else umask,
            pass_fds=pass_fds,
        )
    except FileNotFoundError as error:
        if error.filename != argv[0]:
            raise CommandFailed(f"`{argv[0]}` could not be started: {error}") from error
        raise CommandFailed(f"`{argv[0]}` is not installed") from None
    except OSError as error:
        raise CommandFailed(f"`{argv[0]}` could not be started: {error}") from error


@contextmanager
def interruption_deferred() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP reach their handlers when the block is over, so it is carried out whole."""
    if threading.current_thread() is not threading.main_thread():
        # Handlers run in the main thread only, here nothing is interrupted.
        yield
        return
    pending: list[tuple[int, FrameType | None]] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        for number, handler in handlers.items():
            if callable(handler):
                signal.signal(number, lambda *received: pending.append(received))
        yield
    finally:
        for number, handler in handlers.items():
            if callable(handler):
                signal.signal(number, handler)
        for received in pending:
            handler = handlers[signal.Signals(received[0])]
            if callable(handler):
                handler(*received)
