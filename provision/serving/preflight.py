"""Whether a launch can be, looked at while what it would replace still serves."""

from __future__ import annotations

from provision.errors import ServingFailed
from provision.host.view import HostView
from provision.secrets import mask
from provision.serving.launch import Launch

# Longer than any engine takes to be imported from a slow disk; one that is silent for that long has not failed.
_IMPORT_S = 180.0
_LAST_LINES = 5


def check_launch(view: HostView, launch: Launch) -> None:
    """Raise `ServingFailed` where the program of a launch is not there, or its engine cannot be imported.

    That takes as long as the beginning of a launch, which costs nobody anything while another server serves.
    """
    if launch.container:
        return  # its engine says so at once
    program = launch.argv[0] if launch.argv else ""
    found = view.stat(program)
    if found is None or found.is_directory or not found.mode & 0o111:
        raise ServingFailed(
            f"`{program}`, which runs the engine, is not there" if found is None else f"`{program}` is not a program",
            hint="`sgprov environments verify` says what else is wrong, `sgprov bootstrap` installs it again",
        )
    module = _module(launch)
    if module is None:
        return
    variables = [f"{name}={value}" for name, value in launch.variables.items()]
    # What stands first is where it was started, in which there is nothing of the engine's.
    code = f"import sys; sys.path.pop(0); import importlib; importlib.import_module({module!r})"
    outcome = view.query(["env", *variables, program, "-c", code], timeout_s=_IMPORT_S)
    if outcome.rc not in {0, None}:
        end = "\n".join(f"  {line}" for line in outcome.err.strip().splitlines()[-_LAST_LINES:])
        raise ServingFailed(
            f"the engine cannot be started: importing `{module}` {outcome.ending}\n{mask(end)}",
            hint="`sgprov environments verify` says what is wrong, `sgprov bootstrap` installs it again",
        )


def _module(launch: Launch) -> str | None:
    """The module that a launch runs with `-m`; None for a program of another kind."""
    words = launch.argv
    if launch.python is None or "-m" not in words[:-1]:
        return None
    return words[words.index("-m") + 1]
