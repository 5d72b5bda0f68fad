"""`sgprov plan`: what bootstrap would do here, and why."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click
import msgspec

from provision import assume, bootstrap, config
from provision.cli import common, render
from provision.cli.output import Shown
from provision.decision import Decision
from provision.errors import OK, UnsupportedHost
from provision.plan import Foresight, Plan
from provision.report import Report, Status
from provision.steps.environment import times

if TYPE_CHECKING:
    from rich.console import Console

_GB = 1e9


@click.command(cls=common.HandsOn)
@common.wishes
@common.server_name
@common.forget
@common.replayed
@click.option(
    "--assume",
    "assumed",
    metavar="[gpu=A40,driver=550.90.07,…]",
    is_flag=False,
    flag_value="target",
    help="Plan for a machine that is not here: the one that the target is for, with these facts changed. "
    f"Keys: {', '.join(assume.KEYS)}.",
)
@common.as_json
def plan(
    file: str | None,
    folder: str | None,
    assumed: str | None,
    extra: tuple[str, ...],
    forget: tuple[str, ...],
    *,
    as_json: bool,
    **flags: Any,
) -> Shown:
    """Show what bootstrap would do, step by step, and why this stack and none of the others.

    Looks only. Exit 4 if a step would fail, as bootstrap does. Works for a machine that is not here: a captured one
    (--host) or an assumed one (--assume). What stands behind `--` is handed to the engine.
    """
    del as_json
    view = common.view(folder)
    wishes = common.options(file, flags, extra)
    manner = bootstrap.Manner(api_key=config.secret("SGPROV_API_KEY"), forget=forget)
    try:
        made = bootstrap.make_plan(view, wishes, manner, assumed=assumed)
    except UnsupportedHost as error:
        raise type(error)(str(error), hint=_hint(error, assumed, folder), findings=error.findings) from error
    foresight = made.foresee(None if assumed else bootstrap.for_target(view, made))
    return Shown(
        command="plan",
        data=_data(made, foresight),
        text=lambda screen: _show(made, foresight, screen),
        ok=not any(step.problem for step in foresight),
        changed=any(step.would_change for step in foresight),
        exit_status=next((step.exit_status for step in foresight if step.problem), OK),
    )


def _hint(error: UnsupportedHost, assumed: str | None, folder: str | None) -> str | None:
    """The hint of a refusal, for the machine that was planned for."""
    if assumed:
        return "assume another machine, such as `--assume gpu=A40,driver=570`, or name another `--target`"
    if folder and error.hint:
        for command in ("`sgprov targets`", "`sgprov doctor`"):
            error.hint = error.hint.replace(command, f"{command[:-1]} --host {shlex.quote(folder)}`")
    return error.hint


def _data(made: Plan, foresight: tuple[Foresight, ...]) -> dict[str, Any]:
    decision = made.decision
    return {
        "target": decision.target.name,
        "stack": decision.stack.name if decision.stack else None,
        "image": decision.image.reference if decision.image else None,
        "lock": decision.lock.name if decision.lock else None,
        "lock_digest": f"sha256:{decision.lock.digest}" if decision.lock else None,
        "python": decision.python,
        "interpreter": decision.interpreter,
        "download_bytes": decision.download_bytes,
        "disk_bytes": decision.disk_bytes,
        "places": msgspec.to_builtins(decision.places),
        "serve": msgspec.to_builtins(decision.serve),
        "launch": {"argv": list(made.launch.argv), "variables": made.launch.variables},
        "why": list(decision.why),
        **made.told(),
        "candidates": [
            {
                "name": one.name,
                "kind": one.kind,
                "fits": one.fits,
                "objections": list(one.objections),
                "reasons": list(one.reasons),
            }
            for one in decision.candidates
        ],
        "steps": msgspec.to_builtins(foresight),
        "findings": msgspec.to_builtins(decision.findings),
    }


def _show(made: Plan, foresight: tuple[Foresight, ...], screen: Console) -> None:
    decision = made.decision
    render.line(screen, (decision.target.name, "bold"), "  ", decision.target.summary)
    for line in decision.why:
        render.line(screen, (f"  {line}", "dim"))
    for line in made.lines():
        render.line(screen, (line, "cyan"))
    screen.print()
    for name, value in _summary(decision):
        render.line(screen, (f"{name:<10}", "bold"), value, indent=10)
    screen.print()
    for step in foresight:
        if step.problem:
            render.show_step(step.id, Status.FAILED, step.problem, 0, screen, told="would fail")
            if step.remedy:
                render.line(screen, (f"    → {step.remedy}", "cyan"), indent=6)
        elif step.looks_only:
            render.show_step(step.id, Status.SKIPPED, step.preview, 0, screen, told="looks only")
        else:
            status = Status.ALREADY if step.would_change is False else Status.WOULD
            render.show_step(step.id, status, step.preview, 0, screen)
    render.show_report(Report(host="", command="plan", findings=decision.findings), screen, steps=False)


def _summary(decision: Decision) -> list[tuple[str, str]]:
    rows = []
    if decision.stack and decision.lock:
        rows.append(("stack", f"{decision.stack.name} from {decision.lock.name}"))
        where = decision.interpreter or "provided on the way"
        rows.append(("python", f"{decision.python}, {where}"))
    if decision.image:
        rows.append(("image", decision.image.reference))
    fetched = decision.download_bytes
    rows.append(("fetch", _bytes(fetched) + (f"; {times(fetched)}" if fetched else "")))
    rows.append(("disk", f"{_bytes(decision.disk_bytes)} under {decision.places.prefix}"))
    serve = decision.serve
    rows.append(("serve", f"{serve.model or 'no model named: --model'} on {serve.host}:{serve.port}"))
    return rows


def _bytes(count: int | None) -> str:
    if count is None:
        return "an unknown amount"
    return f"{count / _GB:.1f} GB" if count else "nothing more"
