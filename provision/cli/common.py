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
            raise UsageError(f"`{rest[0]}` is no option here", hint="what is to be handed on stands behind `--`")
        return rest

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- WORD...]"]


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout instead of text.")
replayed = click.option(
    "--host", "folder", metavar="DIR", help="Look at a captured machine (`sgprov facts --capture DIR`), not this one."
)
config_file = click.option("--config", "file", metavar="FILE", help="Read this instead of ./sgprov.yml.")
target_name = click.option("--target", "-t", metavar="NAME", help="What this machine is to become; `sgprov targets`.")
server_name = click.option("--name", metavar="NAME", help="What the server is called, if not as its target or NIM.")
prefix = click.option("--prefix", metavar="DIR", help="Where environments, servers and receipts lie.")

_WISHES = (
    click.option("--python", metavar="VERSION|PATH", help="The Python to use, such as 3.10 or /usr/bin/python3.10."),
    click.option("--stack", metavar="NAME", help="Take this stack or image of the target's, not the preferred one."),
    click.option("--image", metavar="IMAGE", help="Serve from this container image, or run the target's stack in it."),
    click.option("--container-engine", metavar="NAME", help="docker or podman; the first that can otherwise."),
    click.option("--gpus", metavar="0,1", help="Use only these GPUs, by index."),
    click.option("--model", metavar="ID|DIR", help="A Hugging Face id, a directory, or a name under the models' one."),
    click.option("--model-directory", metavar="DIR", help="Where models lie."),
    click.option("--cache-directory", metavar="DIR", help="The Hugging Face cache, or NIM's."),
    click.option("--port", metavar="N|auto", help="The port to serve on; `auto` takes the next free one."),
    click.option("--bind", metavar="ADDRESS", help="The address to listen on, such as 0.0.0.0."),
    click.option("--context-length", type=int, metavar="TOKENS", help="The longest context to serve."),
    click.option("--mem-fraction", type=float, metavar="0-1", help="The share of GPU memory for weights and KV cache."),
)


def wishes(command: F) -> F:
    """The options that say what the machine is to become."""
    for option in reversed((target_name, prefix, *_WISHES, config_file)):
        command = option(command)
    return command


def options(file: str | None, flags: dict[str, Any]) -> config.Options:
    """The wishes of a command line over the environment's and the file's."""
    return config.load(flags, file=file)


def view(folder: str | None) -> HostView:
    """This machine, or a captured one."""
    if folder is None:
        return local_host()
    from provision.host.folder import FolderHost  # noqa: PLC0415  # only where it is asked for

    return FolderHost(folder)


def local_host() -> LocalHost:
    return LocalHost(config.process_environment())
