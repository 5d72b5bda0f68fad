"""Options that several commands share, and the machine they are asked of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

from provision import config
from provision.errors import UsageError
from provision.host import HostView
from provision.host.local import LocalHost
from provision.options import OPTION, OPTIONS

F = TypeVar("F", bound=Callable[..., Any])


class Seconds(click.FloatRange):
    """A time that can be waited for: more than nothing, and an end to it (`nan` is smaller than no bound)."""

    name = "seconds"

    def __init__(self, *, most: float) -> None:
        super().__init__(min=0, max=most, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"`{value}` is no number of seconds", param, ctx)
        return seconds


class HandsOn(click.Command):
    """A command that hands on what stands behind `--`, as `extra`.

    A stray word before it is an error: handed on as well, it would end a server that serves, for one that cannot start.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        here, behind = args, list[str]()
        if "--" in args:
            dashes = args.index("--")
            here, behind = args[:dashes], args[dashes + 1 :]
        ctx.params["extra"] = tuple(behind)
        ctx.allow_extra_args = True
        rest = super().parse_args(ctx, here)
        if rest:
            hint = "what is to be handed on stands behind `--`"
            if any(parameter.name == "target" for parameter in self.params) and rest[0] in _targets():
                hint = f"did you mean `--target {rest[0]}`?"
            raise UsageError(f"`{rest[0]}` is no option here", hint=hint)
        return rest

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- WORD...]"]


def _targets() -> set[str]:
    from provision.catalog.load import Catalog  # noqa: PLC0415  # only for a hint

    return {target.name for target in Catalog().targets}


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout instead of text.")
replayed = click.option(
    "--host", "folder", metavar="DIR", help="Look at a captured machine (`sgprov facts --capture DIR`), not this one."
)
config_file = click.option("--config", "file", metavar="FILE", help="Read this instead of ./sgprov.yml.")
insecure = click.option(
    "--insecure", is_flag=True, help="Send a key to another machine without encryption, too (`http://`)."
)


def _flag(name: str) -> Callable[[F], F]:
    """The flag of an option, as the table has it."""
    row = OPTION[name]
    words = (row.flag, *((row.short,) if row.short else ()))
    if row.kind is bool:
        return click.option(row.flag, row.name, is_flag=True, default=None, help=row.help)
    kind = None if row.kind is str else row.kind
    return click.option(*words, row.name, type=kind, metavar=row.metavar, help=row.help)


target_name, server_name, prefix = _flag("target"), _flag("name"), _flag("prefix")
# What every command that decides takes; a name only those that have a server to name.
_WISHES = tuple(_flag(row.name) for row in OPTIONS if row.has_flag and row.name not in {"target", "name", "prefix"})


forget = click.option(
    "--forget",
    multiple=True,
    metavar="OPTION|all",
    help="Forget what this server was asked for before (repeatable).",
)


def wishes(command: F) -> F:
    """The options that say what the machine is to become."""
    for option in reversed((target_name, prefix, *_WISHES, config_file)):
        command = option(command)
    return command


def options(file: str | None, flags: dict[str, Any], extra: tuple[str, ...] = ()) -> config.Options:
    """The wishes of a command line, and what stands behind its `--`, over the environment's and the file's."""
    return config.load({**flags, "extra": extra or None}, file=file)


def as_words(flags: dict[str, Any], file: str | None) -> dict[str, str | None]:
    """The flags that a command line holds with their values, as another command takes them; None for one without."""
    given = {OPTION[name].flag: value for name, value in flags.items() if name in OPTION and value not in {None, False}}
    given |= {"--config": file} if file else {}
    return {flag: None if value is True else str(value) for flag, value in given.items()}


def view(folder: str | None) -> HostView:
    """This machine, or a captured one."""
    if folder is None:
        return local_host()
    from provision.host.folder import FolderHost  # noqa: PLC0415  # only where it is asked for

    return FolderHost(folder)


def local_host() -> LocalHost:
    return LocalHost(config.process_environment())
