"""The tree of commands, each loaded when it is called, and the one place where errors become exit statuses."""

from __future__ import annotations

import errno
import importlib
import os
from collections.abc import Sequence

import click

from provision import __version__, config, errors, trust
from provision.catalog.load import nearest
from provision.cli import interrupts, render
from provision.cli.output import Shown
from provision.cli.program import remember_prefix
from provision.host import files
from provision.report import Finding, noticing

_UMASK = 0o077
# What is no bug of ours: no right, no room, no descriptor, no such file system any more.
_REFUSALS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ENOTDIR),
    *(errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN),
}

# name -> (module, one line for --help); the module holds the command under its own name, dashes as underscores.
COMMANDS = {
    "bootstrap": "Take this machine to a verified endpoint.",
    "bundle": "Carry a stack to a machine that has no network.",
    "doctor": "Say what is wrong with this machine, and which command mends it.",
    "diagnose": "Find the root cause in a log.",
    "environments": "List, verify, roll back and clear installed environments.",
    "experiment": "Try a running server: its recovery, and its portability.",
    "fleet": "Do it on many hosts.",
    "facts": "Show what this machine is.",
    "init": "Write a sgprov.yml for this machine.",
    "image": "Build an image from a stack's lock, write it to a file, load it elsewhere.",
    "login": "Log in to a registry or the model hub, with a key that is proved first.",
    "logout": "Forget a login.",
    "plan": "Show what bootstrap would do, and why.",
    "serve": "Start, stop and look at servers.",
    "smoke": "Test a running server, local or remote.",
    "targets": "List the targets, and which of them fit this machine.",
}


# Those that hold others, the commonest first.
_GROUPS = ("serve", "environments", "bundle", "image", "fleet", "experiment")


class Lazy(click.Group):
    """A group that imports a command's module only when that command is called."""

    def list_commands(self, _: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command = self.load(name)
        # It may change things as soon as it runs.
        interrupts.raise_from_now_on()
        return command

    @staticmethod
    def load(name: str) -> click.Command:
        command = getattr(importlib.import_module(f"provision.cli.{name}"), name)
        assert isinstance(command, click.Command)  # noqa: S101  # a rule of this package, kept by a test
        return command

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
            raise errors.UsageError(f"there is no command `{arguments[0]}`", hint=self._hint(arguments[0]))
        return super().resolve_command(context, arguments)

    def _hint(self, name: str) -> str:
        """What a command that is not there was probably meant to be: one of a group, or one that is spelled alike."""
        groups = [group for each in _GROUPS if isinstance(group := self.load(each), click.Group)]
        inside = [f"`sgprov {group.name} {name}`" for group in groups if name in group.commands]
        near = nearest(name, COMMANDS)
        meant = " or ".join(inside) or (f"`{near}`" if near else "")
        return f"did you mean {meant}?" if meant else "`sgprov --help` lists them"

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="sgprov %(version)s")
def sgprov() -> None:
    """Take a GPU machine from bare to a verified LLM endpoint.

    Start with `sgprov doctor`, or with `sgprov bootstrap`: without a target it takes the one that fits best.
    """


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit status; every error is printed as a message, or as JSON with `--json`."""
    # Arguments behind `--` belong to the engine.
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    as_json = "--json" in own
    remember_prefix(own)
    command = next((argument for argument in own if not argument.startswith("-")), "sgprov")
    # What sgprov and its servers write is the caller's alone; what others are to read says so itself.
    umask = os.umask(_UMASK)
    try:
        with interrupts.handled():
            return _guarded(arguments, command, as_json=as_json)
    finally:
        os.umask(umask)


def _guarded(arguments: Sequence[str], command: str, *, as_json: bool) -> int:
    """Run it; whatever goes wrong is told, and becomes a status."""
    notices: list[Finding] = []
    try:
        config.know_secrets()
        with noticing(lambda finding: _heard(finding, notices)):
            return _answer(arguments, notices, as_json=as_json)
    except errors.ProvisionError as error:
        status = error.exit_status
        render.show_error(error, command=command, as_json=as_json, notices=notices)
    except click.exceptions.NoArgsIsHelpError as error:
        status = errors.UsageError.exit_status
        render.show_help(error.format_message())
    except click.UsageError as error:
        status = errors.UsageError.exit_status
        render.show_error(_usage(error), command=command, as_json=as_json, notices=notices)
    except (KeyboardInterrupt, click.Abort):
        interrupts.look_away()
        status = errors.INTERRUPTED
        render.show_interrupted(command=command, as_json=as_json)
    except OSError as error:
        status = _refused(error, command=command, as_json=as_json, notices=notices)
    except Exception as error:  # noqa: BLE001  # a bug of ours is told in the form that was asked for, too
        status = errors.ProvisionError.exit_status
        render.show_bug(error, command=command, as_json=as_json)
    return status


def _answer(arguments: Sequence[str], notices: Sequence[Finding], *, as_json: bool) -> int:
    shown = sgprov.main(list(arguments), prog_name="sgprov", standalone_mode=False)
    if isinstance(shown, Shown):
        render.show(shown, as_json=as_json, notices=notices)
        return shown.exit_status
    return shown if isinstance(shown, int) else errors.OK


def _refused(error: OSError, *, command: str, as_json: bool, notices: Sequence[Finding]) -> int:
    """What the system refuses, wherever that is met: the path and what helps. Other errors of the system are bugs."""
    if error.errno not in _REFUSALS:
        render.show_bug(error, command=command, as_json=as_json)
        return errors.ProvisionError.exit_status
    path = str(error.filename) if error.filename else None
    told: errors.ProvisionError
    told = errors.StepFailed(
        f"the system refused: {error.strerror}", hint="`df -h` and `ulimit -a` show what is used up"
    )
    if path:
        told = trust.not_permitted(path) if isinstance(error, PermissionError) else files.failed("used", path, error)
    render.show_error(told, command=command, as_json=as_json, notices=notices)
    return told.exit_status


def _heard(finding: Finding, notices: list[Finding]) -> None:
    """Once on stderr, at once; and kept for the JSON."""
    if finding not in notices:
        notices.append(finding)
        render.show_notice(finding)


def _lower(message: str) -> str:
    """A message of click's in the form of ours: lower case first, no full stop, names in backticks."""
    text = message.rstrip(".").replace("'", "`")
    return text[:1].lower() + text[1:]


def _usage(error: click.UsageError) -> errors.UsageError:
    """A usage error of click's as one of ours; what click guesses itself stands behind its first sentence."""
    path = error.ctx.command_path if error.ctx else "sgprov"
    hint = f"`{path} --help` shows what it takes"
    said = error.format_message()
    if isinstance(error, click.NoSuchOption):
        said = f"no such option: {error.option_name}"
        near = nearest(error.option_name, error.possibilities or ())
        hint = f"did you mean `{near}`?" if near else hint
    return errors.UsageError(_lower(said), hint=hint)
