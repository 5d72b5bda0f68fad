"""What may be asked of a machine, and what may be changed on it: two protocols, so that "checks only look" is typed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

# A wedged driver or a dead network mount must not stop the tool: with the end of what did not answer, no question takes
# more than ten seconds.
QUERY_TIMEOUT_S = 8.0
# A change is bounded too, but a 10 GB download over a slow line is still a change.
CHANGE_TIMEOUT_S = 4 * 3600.0
# What has to stay free on a disk, so that the machine still works (logs, bytecode, a server's own caches).
RESERVE_BYTES = 1_000_000_000


@dataclass(frozen=True)
class Outcome:
    """What came of a command. Without an `rc` it was not installed, or was stopped for taking too long."""

    argv: tuple[str, ...]
    rc: int | None
    out: str = ""
    err: str = ""
    seconds: float = 0.0
    installed: bool = True

    @property
    def ok(self) -> bool:
        return self.rc == 0

    @property
    def ending(self) -> str:
        if self.rc is not None:
            return f"exited {self.rc}"
        return f"gave no answer in {self.seconds:.0f} s" if self.installed else "is not installed"


@dataclass(frozen=True, kw_only=True)
class PathInfo:
    """One path, links followed. `mode` holds the permission bits only (0o755)."""

    mode: int
    uid: int
    owner: str
    size: int
    is_directory: bool
    writable: bool


@dataclass(frozen=True, kw_only=True)
class DiskSpace:
    """The file system that holds a path (or its nearest existing parent). Bytes; inodes are None where uncounted."""

    path: str
    mount: str
    filesystem: str
    total: int
    free: int
    inodes_free: int | None = None


@dataclass(frozen=True, kw_only=True)
class Listener:
    """A listening TCP socket. `pid` and what follows are None where the owner is not ours to see."""

    port: int
    address: str
    pid: int | None = None
    process: str | None = None
    command: str | None = None
    user: str | None = None


@dataclass(frozen=True, kw_only=True)
class Process:
    """A running process. `command` is its argv joined, with nothing hidden: never print it unmasked."""

    pid: int
    parent: int
    name: str
    command: str
    user: str
    started: float


@dataclass(frozen=True, kw_only=True)
class Reach:
    """What came of knocking at a TCP port: `unknown` is a name that does not resolve, `silent` no answer in time."""

    state: Literal["reached", "unknown", "refused", "silent"]
    seconds: float = 0.0


class HostView(Protocol):
    """What facts and checks may do: look. Nothing here raises because something is missing, and nothing hangs."""

    @property
    def name(self) -> str:
        """How reports call this host."""
        ...

    @property
    def recorded(self) -> bool:
        """Whether this is a recording: it has no ports to ask, and its files are texts that were read before."""
        ...

    def query(self, argv: Sequence[str], *, timeout_s: float = QUERY_TIMEOUT_S) -> Outcome:
        """Run a command that only looks. Not installed and hanging are two different answers; neither raises."""
        ...

    def read(self, path: str) -> str | None:
        """The text of a file (undecodable bytes replaced), or None where it is not there or not readable."""
        ...

    def read_bytes(self, path: str, limit: int) -> bytes | None:
        """At most `limit` bytes from the beginning of a file; None where it is not there or not readable."""
        ...

    def require_trusted(self, path: str) -> None:
        """Raise `UntrustedPath` where another user could have written what lies at `path`, or could now.

        Ask before anything below a directory that the user named is believed or run; `provision.trust` has the rule.
        Raises `NotPermitted` where that cannot be looked at. A recorded machine has only what it recorded: fine.
        """
        ...

    def read_state(self, path: str) -> str | None:
        """The text of a file that we wrote (a record, receipt, stamp, key), or None where there is none.

        Never through a link, from a pipe, or another user's: raises `UntrustedPath` for what is not a plain file of
        the caller's or root's in directories of theirs, `NotPermitted` where it may not be read.
        """
        ...

    def read_link(self, path: str) -> str | None:
        """Where a link that we made leads, as it was written; None where there is none. Raises as `read_state`."""
        ...

    def glob(self, pattern: str) -> tuple[str, ...]:
        """Paths that match, sorted."""
        ...

    def stat(self, path: str) -> PathInfo | None:
        """What lies at a path, links followed; None where nothing does.

        Raises `NotPermitted` where the caller may not look: that is not "nothing there".
        """
        ...

    def disk(self, path: str) -> DiskSpace | None:
        """The file system of `path`, or of its nearest parent that exists; None if that gives no answer."""
        ...

    def listeners(self) -> tuple[Listener, ...]:
        """Listening TCP sockets. Raises `ProbeError` where they cannot be told, which is not the same as none."""
        ...

    def processes(self) -> tuple[Process, ...]: ...

    def variable(self, name: str) -> str | None:
        """An environment variable of the machine's user. Never ask for a secret's value."""
        ...

    def reach(self, host: str, port: int, *, timeout_s: float) -> Reach | None:
        """Resolve a name and connect to a TCP port; nothing is sent. None where it cannot be tried (a recording)."""
        ...

    def bind_problem(self, address: str) -> str | None:
        """Why nobody can listen on that address of this machine; None where one can, or it cannot be tried."""
        ...


class Host(HostView, Protocol):
    """What steps may do: look and change."""

    def environment(self) -> dict[str, str]:
        """The variables that everything inherits that it starts; no secrets are among them."""
        ...

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
        """Run a command that changes something, in a process group of its own that ends with us.

        `variables` are set in its environment (None removes one); `on_line` sees every line of output as it comes.
        `stdin` is what it reads: the way for a credential, which is in no list of processes and in no file. `umask` is
        for what others are to read, such as an environment (0o022); without one, what it makes is for us alone.
        `pass_fds` are descriptors that it keeps: a lock that is held as long as it lives, should we end before it.
        `end_when` is asked every second, with its pid, whether it has been watched for long enough: then it is ended.
        Raises `CommandFailed` with the end of the output on a status other than 0, on a timeout, and where the
        program is not installed.
        """
        ...

    def start(self, argv: Sequence[str], *, log: str, variables: Mapping[str, str | None] | None = None) -> int:
        """Start a process that outlives us, in its own session, output appended to the file `log`; its pid.

        What it writes is for nobody else. `variables` are set in its environment (None removes one).
        """
        ...

    def exit_status(self, pid: int) -> int | None:
        """How a process ended that this run started with `start`: a negative number is a signal. None where untold."""
        ...

    def signal(self, pid: int, number: int, *, only_if: Callable[[], bool] = lambda: True) -> bool:
        """Send a signal; False where there is no such process (any more), or `only_if` says no.

        That is asked when the process can no longer become another one. Raises `StepFailed` for one that is not ours.
        """
        ...

    def move(self, path: str, target: str) -> None:
        """Give a file of ours another name in its directory, in one step, in place of what has that name.

        Nothing is written, so a full disk is no obstacle. Raises `UntrustedPath` and `StepFailed` as `write` does.
        """
        ...

    def open_state(self, path: str, flags: int, *, mode: int = 0o600) -> int:
        """A descriptor of a file of ours, for a lock or a log, opened with `flags` (`os.O_…`).

        Raises as `read_state` does, so what is written does not end up in another file; and `StepFailed`.
        """
        ...

    def write(self, path: str, text: str, *, mode: int = 0o644) -> None:
        """Write a file of ours whole: created with its final mode beside its place, then moved there.

        What is there already is replaced, a link too. Raises `UntrustedPath` where others may write in its directory,
        and `StepFailed` with what helps where the system refuses (no room, read-only, a directory in the way).
        """
        ...

    def write_output(self, path: str, text: str, *, mode: int = 0o644) -> None:
        """The same for a file that the user named: whoever else may write to its directory, which must exist."""
        ...

    def make_directory(self, path: str, *, mode: int = 0o755) -> None:
        """Make a directory and its parents; `mode` is given to the last one only, and only if it is new.

        Raises `UntrustedPath` where others may write to it, or to where it would be, also if it is there already.
        """
        ...

    def link(self, path: str, target: str) -> None:
        """Make `path` a symbolic link to `target`, replacing an older link in one step."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file, link or directory tree; nothing happens where there is none."""
        ...
