"""`sgprov doctor`: what is wrong with this machine, and which command mends it."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click

from provision import config
from provision.cli import common
from provision.cli.output import Shown
from provision.errors import ProvisionError, UsageError
from provision.facts import Facts, gather
from provision.host import HostView

if TYPE_CHECKING:
    from rich.console import Console

    from provision.checks.base import Check, Context
    from provision.checks.run import CheckResult
    from provision.config import Options

# Checks and what they stand on are imported in functions: facts wait for other programs most of the time, and what is
# imported meanwhile costs nothing.

CHECK_FAILED = 4


@click.command()
@click.argument("checks", nargs=-1, metavar="[CHECK|FAMILY]...")
@click.option("--list", "as_list", is_flag=True, help="Print the checks instead of running them.")
@click.option("--explain", metavar="CHECK", help="Print what a check looks at, why it matters and what mends it.")
@click.option("--ignore", metavar="CHECK,...", help="Let errors of these checks through as warnings.")
@click.option("--verbose", "-v", is_flag=True, help="Show what is well, too.")
@click.option(
    "--wait",
    type=common.Seconds(most=600),
    default=1.5,
    metavar="SECONDS",
    help="How long a host of the network may take to answer (1.5).",
)
@common.wishes
@common.replayed
@common.as_json
def doctor(
    checks: tuple[str, ...],
    *,
    ignore: str | None,
    explain: str | None,
    file: str | None,
    folder: str | None,
    wait: float,
    as_list: bool,
    verbose: bool,
    as_json: bool,
    **flags: Any,
) -> Shown:
    """Say what is wrong with this machine, and which command mends it.

    Looks only, and never repairs. Without --target it looks at what the best fitting target needs. Ends with ready,
    degraded or blocked, and the next command; exit status 4 where something blocks.
    """
    del as_json
    if explain or as_list:
        return _told((explain,) if explain else checks, pages=bool(explain))
    start = time.monotonic()
    view = common.view(folder)
    with _gathering(view) as facts:
        from provision.checks.registry import CHECKS  # noqa: PLC0415
        from provision.checks.run import chosen, run_checks, verdict  # noqa: PLC0415
        from provision.cli import doctor_text  # noqa: PLC0415

        wanted = chosen(CHECKS, checks)
        ignored = tuple(one.id for one in chosen(CHECKS, names)) if (names := _names(ignore)) else ()
        asked = common.as_words(flags, file)
        context = _context(view, common.options(file, flags), facts, local=folder is None, wait=wait)
    results = run_checks(wanted, context, ignore=ignored)
    seconds = time.monotonic() - start
    outcome = verdict(results)
    following = next_command(context, results, asked)
    return Shown(
        command="doctor",
        data={"verdict": outcome, "next": following, "seconds": round(seconds, 3), **_data(context, results)},
        text=lambda screen: doctor_text.show(
            context, results, verdict=outcome, following=following, seconds=seconds, verbose=verbose, screen=screen
        ),
        ok=outcome != "blocked",
        exit_status=CHECK_FAILED if outcome == "blocked" else 0,
    )


def next_command(
    context: Context, results: tuple[CheckResult, ...], asked: Mapping[str, str | None] = MappingProxyType({})
) -> str:
    """What to do now: the remedy of the first error; else what brings the target to serve, or proves that it does.

    `asked` are the flags that doctor was given, with their values: what it looked at is what is to be done.
    """
    for result in results:
        for finding in result.findings:
            if finding.severity.value == "error" and finding.fix:
                command = _command(finding.fix[0])
                # Of a bootstrap that mends one error another may be in the way: it is given what mends both.
                begun = command.startswith(("sgprov bootstrap", "--"))
                return _bootstrap(context, results, asked, command) if begun and context.target else command
    running = {result.check.id: result for result in results}.get("server-alive")
    if running and running.outcome == "ok":
        from provision.checks.own import living  # noqa: PLC0415
        from provision.cli import places  # noqa: PLC0415

        # A server that was stopped is as it should be, and nothing that could be tested.
        if name := next((name for name, pids in living(context).items() if pids), None):
            return f"sgprov smoke {name}{places.flag_for(context.view, context.places.prefix)}"
    return _bootstrap(context, results, asked) if context.target else "sgprov targets"


def _bootstrap(
    context: Context,
    results: tuple[CheckResult, ...],
    asked: Mapping[str, str | None],
    command: str = "sgprov bootstrap",
) -> str:
    """The bootstrap that a remedy names, with the target, what doctor was asked, and what the other findings ask."""
    from provision.decision.choose import places_of  # noqa: PLC0415
    from provision.plan import EXAMPLE_MODEL  # noqa: PLC0415

    given = shlex.split(command.removeprefix("sgprov bootstrap"))
    name = context.target.name if context.target else ""
    wanted: dict[str, str | None] = {"--target": name, **asked}
    found = {result.check.id for result in results if result.outcome == "error"}
    image = context.decision.image if context.decision else None
    if not (image and image.model) and (context.serve.model is None or "model-there" in found):
        wanted["--model"] = EXAMPLE_MODEL
    if found & {"port-free", "port-derived-free"}:
        wanted["--port"] = "auto"
    unasked = places_of(context.target.layout, config.load({}), context.home) if context.target else context.places
    if context.places.prefix != unasked.prefix:
        wanted["--prefix"] = context.places.prefix
    more = [word for flag, value in wanted.items() if flag not in given for word in (flag, value) if word is not None]
    words = [*given, *more] if "--target" in given else [*more, *given]
    return shlex.join(["sgprov", "bootstrap", *words])


def _command(fix: str) -> str:
    """The command that a remedy begins with, or the whole of one that is no command."""
    found = re.match(r"`([^`]+)`", fix)
    return found[1] if found else fix


def ask_all(view: HostView, facts: Facts) -> None:
    """Ask everything that checks ask, so that a capture answers them as the machine did; no secret is asked for."""
    from provision.checks.registry import CHECKS  # noqa: PLC0415
    from provision.checks.run import run_checks  # noqa: PLC0415

    run_checks(CHECKS, _context(view, config.Options(), lambda: facts, local=False, wait=1.5))


@contextmanager
def _gathering(view: HostView) -> Iterator[Callable[[], Facts]]:
    """Facts that are gathered in the background, to be asked for when they are needed."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        yield pool.submit(gather, view).result


def _context(view: HostView, wishes: Options, facts: Callable[[], Facts], *, local: bool, wait: float) -> Context:
    from provision import bootstrap, remembered  # noqa: PLC0415
    from provision.checks.sight import look  # noqa: PLC0415

    plain = remembered.Remembered(options=wishes)
    try:
        recalled = remembered.recall(view, wishes)
    except ProvisionError:
        # Several servers, or a prefix that another user decides on: the machine is looked at all the same.
        recalled = plain

    def seen(given: remembered.Remembered) -> Context:
        return look(
            bootstrap.question(view, given.options, gathering=facts, previous=given.previous, hf_home=given.hf_home),
            view,
            # A recorded machine has no secrets, and those of this one say nothing of it.
            credential=config.secret if local else lambda _: None,
            local=local,
            network_wait_s=wait,
        )

    try:
        return seen(recalled)
    except UsageError:
        if not recalled.kept:
            raise
        # What a server was asked for, and is not there any more: its checks say so, and the rest is looked at, too.
        return seen(plain)


def _data(context: Context, results: tuple[CheckResult, ...]) -> dict[str, Any]:
    import msgspec  # noqa: PLC0415

    return {
        "host": context.facts.host,
        "target": context.target.name if context.target else None,
        "findings": [msgspec.to_builtins(finding) for result in results for finding in result.findings],
        "checks": [
            {"id": result.check.id, "status": result.outcome, "seconds": round(result.seconds, 4)} for result in results
        ],
    }


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def _told(names: tuple[str, ...], *, pages: bool) -> Shown:
    from provision.checks.registry import CHECKS  # noqa: PLC0415
    from provision.checks.run import chosen  # noqa: PLC0415
    from provision.cli import doctor_text  # noqa: PLC0415

    checks: tuple[Check, ...] = chosen(CHECKS, names)
    fields = ("id", "family", "title", "looks_at", "why", "remedy")
    rows = [{name: getattr(one, name) for name in fields} for one in checks]

    def text(screen: Console) -> None:
        (doctor_text.show_pages if pages else doctor_text.show_list)(checks, screen)

    return Shown(command="doctor", data={"checks": rows}, text=text)
