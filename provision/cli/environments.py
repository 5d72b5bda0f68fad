"""`sgprov environments`: what is installed, whether it is still what was locked, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
import msgspec

from provision import config
from provision import environments as installed
from provision.cli import common, progress, render
from provision.cli.output import Shown
from provision.environments import uv
from provision.errors import CheckFailed, UsageError
from provision.host import Host, HostView
from provision.remembered import prefixes
from provision.report import Report
from provision.serving import relaunch

if TYPE_CHECKING:
    from rich.console import Console


@click.group()
def environments() -> None:
    """List, verify, repair, roll back and clear installed environments."""


@environments.command(name="list")
@common.prefix
@common.as_json
def show_list(prefix: str | None, *, as_json: bool) -> Shown:
    """List the installed environments: the current one, the one before, and the rest."""
    del as_json
    view = common.local_host()
    found = [
        (place, one)
        for place in prefixes(view, config.load({"prefix": prefix}))
        for one in installed.list_environments(view, place)
    ]
    return Shown(
        command="environments",
        data={"environments": [_row(place, one) for place, one in found]},
        text=lambda screen: _show(found, screen),
    )


@environments.command()
@common.prefix
@click.argument("name", required=False)
@common.as_json
def verify(prefix: str | None, name: str | None, *, as_json: bool) -> Shown:
    """Compare every file of an environment with its wheels: the current one, or NAME.

    Exit 4 if a file was edited, replaced, removed or added; the next `sgprov bootstrap` makes it anew, and so does
    `sgprov environments repair`. Bytecode is compared with what its source compiles to.
    """
    host = common.local_host()
    place, path = _path(host, prefix, name)
    with progress.bytes_of(f"verifying {path}", as_json=as_json) as tell:
        result = _verified(host, path, tell)
    report = Report(host=host.name, command="environments", findings=result.findings)
    text = (
        f"{result.files} files of {result.packages} packages, {result.bytes / 1e9:.1f} GB in {result.seconds:.1f} s "
        f"({result.mb_per_s:.0f} MB/s)"
    )

    def show(screen: Console) -> None:
        render.line(screen, text)
        render.show_report(report, screen)
        if result.ok:
            render.line(screen, ("every file is as it was in its wheel", "green"))

    return Shown(
        command="environments",
        data={
            "prefix": place,
            "path": path,
            "packages": result.packages,
            "files": result.files,
            "bytes": result.bytes,
            "seconds": result.seconds,
            "findings": msgspec.to_builtins(result.findings),
        },
        text=show,
        ok=result.ok,
        exit_status=0 if result.ok else CheckFailed.exit_status,
    )


@environments.command()
@common.prefix
@click.argument("name", required=False)
@common.as_json
def repair(prefix: str | None, name: str | None, *, as_json: bool) -> Shown:
    """Make an environment whole again: the current one, or NAME.

    Packages whose files differ from their wheels are taken out of uv's cache and fetched anew, because an edited file
    is edited there, too; the rest comes from the cache. Exit 4 if files still differ afterwards.
    """
    host = common.local_host()
    place, path = _path(host, prefix, name)
    with progress.bytes_of(f"verifying {path}", as_json=as_json) as tell:
        before = _verified(host, path, tell)
    packages = tuple(str(one.data["package"]) for one in before.findings if one.data.get("package"))
    after = before
    if not before.ok:
        from provision.steps import repairing  # noqa: PLC0415  # only where something is wrong

        with repairing.step(host, place, path, packages) as step, progress.watching(as_json=as_json) as watcher:
            watcher.started(step)
            step.apply(host, lambda done: watcher.progress(step, done))
        after = installed.verify(host, path)
    report = Report(host=host.name, command="environments", findings=after.findings)
    done = f"the environment was made anew, {len(packages)} packages fetched: {', '.join(packages)}".rstrip(": ")

    def show(screen: Console) -> None:
        screen.print("every file is as it was in its wheel: nothing to do" if before.ok else done)
        render.show_report(report, screen)

    return Shown(
        command="environments",
        data={
            "prefix": place,
            "path": path,
            "repaired": list(packages),
            "findings": msgspec.to_builtins(after.findings),
        },
        text=show,
        ok=after.ok,
        changed=not before.ok,
        exit_status=0 if after.ok else CheckFailed.exit_status,
    )


@environments.command()
@common.prefix
@common.as_json
def rollback(prefix: str | None, *, as_json: bool) -> Shown:
    """Go back to the environment that was in use before the current one.

    Servers go on as they are; started again, those of the environment that was left run from this one.
    """
    del as_json
    host = common.local_host()
    place = _only_prefix(host, prefix)
    path = installed.rollback(host, place)
    restart = [f"sgprov serve restart {name} --prefix {place}" for name in relaunch.followers(host, place)]

    def show(screen: Console) -> None:
        screen.print(f"`{path}` is in use")
        for command in restart:
            screen.print(f"  `{command}` serves from it", soft_wrap=True)

    return Shown(
        command="environments",
        data={"prefix": place, "current": path, "restart": restart},
        text=show,
        changed=True,
    )


@environments.command()
@common.prefix
@click.option(
    "--keep", type=click.IntRange(min=0), default=2, show_default=True, metavar="N", help="How many to keep at least."
)
@click.option("--dry-run", is_flag=True, help="Say what would be removed.")
@common.as_json
def clear(prefix: str | None, keep: int, *, dry_run: bool, as_json: bool) -> Shown:
    """Remove environments that nothing uses: never the current one, the one before, or one a server runs from.

    Says of each one that stays why it does.
    """
    del as_json
    host = common.local_host()
    place = _only_prefix(host, prefix)
    kept = {one.path: why for one, why in installed.judged(host, place, keep=keep) if why}
    if dry_run:
        removed = tuple(one.path for one in installed.superfluous(host, place, keep=keep))
    else:
        removed = installed.collect_garbage(host, place, keep=keep)
    verb = "would remove" if dry_run else "removed"

    def show(screen: Console) -> None:
        screen.print(f"{verb} {', '.join(removed) or 'nothing'}")
        for path, why in kept.items():
            render.line(screen, f"kept {path}: {why}")
        if removed:
            cache = installed.cache_directory(host)
            render.line(screen, f"their wheels stay in uv's cache ({cache}): `{uv.program()} cache clean` empties it")

    return Shown(
        command="environments",
        data={
            "prefix": place,
            "removed": list(removed),
            "kept": [{"path": path, "why": why} for path, why in kept.items()],
            "dry_run": dry_run,
        },
        text=show,
        changed=bool(removed),
    )


def _verified(host: Host, path: str, tell: Callable[[int, int], None]) -> installed.Verification:
    """Verify an environment, and note what differs: until it is made anew, a bootstrap does not call it complete."""
    found = installed.verify(host, path, tell=lambda scan: tell(scan.done, scan.total))
    if not found.ok:
        installed.note_drift(host, path, (str(one.data["package"]) for one in found.findings if one.data["package"]))
    return found


def _only_prefix(view: HostView, prefix: str | None) -> str:
    found = prefixes(view, config.load({"prefix": prefix}))
    with_some = [place for place in found if installed.list_environments(view, place)]
    if len(with_some) == 1:
        return with_some[0]
    if not with_some:
        raise UsageError("nothing is installed here", hint="`sgprov bootstrap` installs a stack")
    raise UsageError("there are several prefixes", hint=f"name one with `--prefix`: {', '.join(with_some)}")


def _path(view: HostView, prefix: str | None, name: str | None) -> tuple[str, str]:
    place = _only_prefix(view, prefix)
    there = {one.name: one.path for one in installed.list_environments(view, place)}
    if name is not None:
        if name not in there:
            raise UsageError(f"there is no environment `{name}`", hint=f"there are {', '.join(there)}")
        return place, there[name]
    current = installed.current(view, place)
    if current is None:
        raise UsageError(f"no environment is in use under `{place}`", hint=f"name one of {', '.join(there)}")
    return place, current


def _row(place: str, one: installed.Environment) -> dict[str, Any]:
    stamp = msgspec.to_builtins(one.stamp) if one.stamp else None
    return {
        "prefix": place,
        "name": one.name,
        "path": one.path,
        "current": one.current,
        "previous": one.previous,
        "complete": one.stamp is not None,
        "stamp": stamp,
    }


def _show(found: list[tuple[str, installed.Environment]], screen: Console) -> None:
    if not found:
        screen.print("nothing is installed here")
    for _, one in found:
        state = "current" if one.current else "previous" if one.previous else "" if one.stamp else "unfinished"
        made = f"Python {one.stamp.python}, {one.stamp.time}" if one.stamp else "the next bootstrap makes it anew"
        render.line(screen, (f"{state:<12}", "bold"), f"{one.path}  {made}")
