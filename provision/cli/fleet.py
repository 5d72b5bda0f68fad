"""`sgprov fleet`: many hosts, one table, one report a host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from provision import config
from provision.cli import common, fleet_table
from provision.cli.output import Shown
from provision.errors import ProvisionError, StepFailed, UsageError
from provision.fleet import page, run
from provision.fleet.drive import Settings, require_own
from provision.fleet.model import FleetReport

F = TypeVar("F", bound=Callable[..., Any])

_ALL = (
    click.option("--inventory", "-i", metavar="FILE|DIR", required=True, help="An inventory as Ansible reads it."),
    click.option("--limit", metavar="PATTERN", help="Only these hosts, such as `gpu-1,gpu-2` or a group."),
    click.option("--forks", default=16, show_default=True, metavar="N", help="How many hosts at the same time."),
    click.option("--vault-password-file", metavar="FILE", help="Handed to Ansible, for vaults in the inventory."),
    click.option("--html", "html", metavar="FILE", help="Write the report as a page, too."),
    common.as_json,
)


def _shared(command: F) -> F:
    for option in reversed(_ALL):
        command = option(command)
    return command


install_tool = click.option(
    "--install-tool",
    is_flag=True,
    help="First bring sgprov, and nothing else, to the hosts that lack it.",
)


@click.group()
def fleet() -> None:
    """Provision, examine and operate many hosts over SSH: Ansible for order, sgprov for what each of them gets.

    Needs `pip install 'sgprov[fleet]'` here; a host needs SSH and Python 3.10 or newer.
    """


@fleet.command(cls=common.HandsOn)
@_shared
@common.target_name
@click.option(
    "--batch", default="1,25", show_default=True, metavar="N,N%", help="How many hosts first, then at a time."
)
@click.option("--max-fail", default=0, show_default=True, metavar="PERCENT", help="How many may fail before it stops.")
@click.option("--failed", is_flag=True, help="Only the hosts that did not end well the last time.")
@click.option("--dry-run", is_flag=True, help="Ask every host what would be done, change nothing.")
@install_tool
@click.option("--no-smoke", is_flag=True, help="Install and switch, without a launch and its smoke test.")
@click.option(
    "--wheels",
    type=click.Choice(["controller", "index"]),
    default="controller",
    show_default=True,
    help="Fetch wheels once here and hand them on over SSH, or let each host ask its own index.",
)
@click.option("--send-keys", is_flag=True, help="Give hosts the HF and NGC keys of this environment.")
@click.option("--ask-keys", is_flag=True, help="Ask for the keys to give.")
def bootstrap(
    *,
    batch: str,
    max_fail: int,
    failed: bool,
    dry_run: bool,
    install_tool: bool,
    no_smoke: bool,
    wheels: str,
    send_keys: bool,
    ask_keys: bool,
    target: str | None,
    extra: tuple[str, ...],
    **flags: Any,
) -> Shown:
    """Bring every host to a verified endpoint: all are asked first, then one is changed, then batches.

    Without --target each host takes what fits it best. What stands behind `--` are options of `sgprov bootstrap`.
    """
    return _carry_out(
        "bootstrap",
        flags,
        target=target,
        batch=tuple(one.strip() for one in batch.split(",") if one.strip()),
        max_fail=max_fail,
        only_failed=failed,
        dry_run=dry_run,
        install_tool=install_tool,
        smoke=not no_smoke,
        wheels_from=wheels,
        options=extra,
        keys=_keys(send=send_keys, ask=ask_keys),
    )


@fleet.command()
@_shared
@common.target_name
@install_tool
def doctor(*, target: str | None, install_tool: bool, **flags: Any) -> Shown:
    """Say what is wrong with each host, and in what the hosts differ."""
    return _carry_out("doctor", flags, target=target, install_tool=install_tool)


@fleet.command()
@_shared
def status(**flags: Any) -> Shown:
    """Show the servers of each host."""
    return _carry_out("status", flags)


@fleet.command()
@_shared
def smoke(**flags: Any) -> Shown:
    """Test the servers of each host."""
    return _carry_out("smoke", flags)


@fleet.command()
@_shared
def stop(**flags: Any) -> Shown:
    """Stop the servers of each host."""
    return _carry_out("stop", flags)


def _carry_out(command: str, flags: dict[str, Any], **wishes: Any) -> Shown:
    vault = flags["vault_password_file"]
    if vault:
        # Ansible runs it where it is a program.
        require_own("the vault's password file", Path(vault).absolute())
    settings = Settings(
        inventory=flags["inventory"],
        forks=flags["forks"],
        user_arguments=("--vault-password-file", str(Path(vault).absolute())) if vault else (),
    )
    if flags["html"] and not Path(flags["html"]).absolute().parent.is_dir():
        raise UsageError(f"there is no directory for `{flags['html']}`", hint="`mkdir -p` it first")
    wanted = run.Wishes(settings=settings, limit=flags["limit"], **wishes)
    with fleet_table.watching(as_json=flags["as_json"]) as watcher:
        report = run.carry_out(common.local_host(), command, wanted, watcher)
    unwritten = _write(flags["html"], report) if flags["html"] else None
    if unwritten:
        report = replace(report, unkept=(*report.unkept, unwritten))
    return Shown(
        command=f"fleet-{command}",
        data=fleet_table.data(report),
        text=lambda screen: fleet_table.show(report, screen),
        ok=report.ok,
        changed=report.changed,
        exit_status=StepFailed.exit_status if report.ok and unwritten else report.exit_status,
    )


def _write(path: str, report: FleetReport) -> str | None:
    """Write the page; why it could not be, where it could not: what came of the run is told all the same."""
    try:
        common.local_host().write_output(path, page.render(report))
    except ProvisionError as error:
        return str(error)
    return None


def _keys(*, send: bool, ask: bool) -> dict[str, str]:
    names = ("HF_TOKEN", "NGC_API_KEY", "SGPROV_API_KEY")
    if send and ask:
        raise UsageError("`--send-keys` and `--ask-keys` are two ways for one thing", hint="give one of them")
    if send:
        found = {name: value for name in names if (value := config.secret(name))}
        if not found:
            raise UsageError("no key is in this environment", hint=f"set {', '.join(names)}")
        return _of_one_line(found)
    if ask:
        asked = {name: click.prompt(name, default="", show_default=False, hide_input=True, err=True) for name in names}
        return _of_one_line({name: value for name, value in asked.items() if value})
    return {}


def _of_one_line(keys: dict[str, str]) -> dict[str, str]:
    """On the hosts they are lines of a file: one with two lines would be two variables."""
    for name, value in keys.items():
        if not value.isprintable():
            raise UsageError(f"`{name}` holds a line break or another sign that no key has", hint="set it again")
    return keys
