"""Every way to stop, with its exit status (docs/decisions/004-exit-statuses.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from provision.report import Finding

OK = 0
INTERRUPTED = 130


class ProvisionError(Exception):
    """A failure the user can act on: printed as a message, never as a traceback.

    `code` is the stable name used in JSON, `exit_status` what the process ends with, `hint` what to do now,
    `findings` what was found out on the way (the diagnosis of a failed launch).
    """

    code = "internal"
    exit_status = 1

    def __init__(self, message: str, *, hint: str | None = None, findings: tuple[Finding, ...] = ()) -> None:
        super().__init__(message)
        self.hint = hint
        self.findings = findings


class UsageError(ProvisionError):
    """An unknown name, a wrong value, a file that does not parse."""

    code = "usage"
    exit_status = 2


class UnsupportedHost(ProvisionError):
    """No stack fits this host, or what it is cannot be told."""

    code = "unsupported-host"
    exit_status = 3


class WrongPython(UnsupportedHost):
    """The Python that was asked for, or the only one here, is not the one the stack has wheels for."""

    code = "wrong-python"


class TooLittleDisk(UnsupportedHost):
    """A stack would fit this host, but for the space on its disk. Ends as the check before an installation does."""

    code = "too-little-disk"
    exit_status = 4


class CheckFailed(ProvisionError):
    """A check that must hold before anything is changed does not hold."""

    code = "check-failed"
    exit_status = 4


class UntrustedPath(CheckFailed):
    """Another user could have written what lies there, or could write it now; or it is not what belongs there."""

    code = "untrusted-path"


class NotPermitted(CheckFailed):
    """What is there is not the caller's to read or to write, which is not the same as not being there."""

    code = "not-permitted"


class LoginRefused(CheckFailed):
    """A registry or hub does not know the key (401), or does not let it in (403)."""

    code = "login-refused"


class NoEntitlement(CheckFailed):
    """The key is right, and what was asked for is not among what it may have."""

    code = "no-entitlement"


class Unreachable(CheckFailed):
    """A registry or hub cannot be asked: no name, no route, no answer, or not what it was taken for."""

    code = "unreachable"


class StepFailed(ProvisionError):
    """A step could not make its change; what was there before is still in use."""

    code = "step-failed"
    exit_status = 5


class CommandFailed(StepFailed):
    """A command that a step ran ended badly; the message holds the end of its output."""

    code = "command-failed"


class ServingFailed(ProvisionError):
    """The server did not start, died, or answers wrongly."""

    code = "serving-failed"
    exit_status = 6


class ProbeError(ProvisionError):
    """A source of facts is there but cannot be read. `facts.gather` turns it into a problem."""

    code = "probe-failed"
