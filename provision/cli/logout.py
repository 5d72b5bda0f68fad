"""`sgprov logout`: forget a login."""

from __future__ import annotations

import click

from provision.cli import common, render
from provision.cli.output import Shown
from provision.login import hub, keys, store


@click.command()
@click.argument("service", metavar="ngc|hf|REGISTRY")
@common.as_json
def logout(service: str, *, as_json: bool) -> Shown:
    """Forget the login for NVIDIA's registry, Hugging Face, or another registry."""
    del as_json
    host, wanted = common.local_host(), keys.service(service)
    gone = hub.forget(host) if wanted is keys.HUB else store.forget(host, wanted.registry or "")
    text = f"logged out of {wanted.name}" if gone else f"there was no login for {wanted.name}"
    return Shown(
        command="logout",
        data={"service": wanted.name, "logged_out": gone},
        text=lambda screen: render.line(screen, text),
        changed=gone,
    )
