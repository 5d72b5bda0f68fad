"""`sgprov login`: a key for a registry or the model hub, proved before it is kept."""

from __future__ import annotations

import sys
from typing import Any

import click
import msgspec

from provision.cli import common, render
from provision.cli.output import Shown
from provision.errors import UsageError
from provision.host.local import LocalHost
from provision.login import hub, keys, registry, store
from provision.login.keys import Key, Service
from provision.report import Finding, Report, Severity


@click.command()
@click.argument("service", metavar="ngc|hf|REGISTRY")
@click.option("--user", metavar="NAME", help="The user of another registry; NGC's is `$oauthtoken`, literally.")
@click.option("--key-file", metavar="FILE", help="Read the key from a file that only you can read.")
@click.option("--stdin", "from_stdin", is_flag=True, help="Read the key from standard input.")
@click.option("--image", metavar="IMAGE", help="Also prove that the key may fetch this image.")
@common.insecure
@common.as_json
def login(
    service: str,
    user: str | None,
    key_file: str | None,
    image: str | None,
    *,
    from_stdin: bool,
    insecure: bool,
    as_json: bool,
) -> Shown:
    """Log in to NVIDIA's registry, Hugging Face, or another registry.

    The key comes from NGC_API_KEY, HF_TOKEN or SGPROV_REGISTRY_KEY, from a file, from standard input, or is asked
    for; never from the command line. It is proved first: a login that is refused leaves the old one as it was.
    """
    wanted = keys.service(service, user=user)
    key = _key(wanted, key_file, from_stdin=from_stdin, as_json=as_json)
    keys.check_shape(key, wanted)
    host = common.local_host()
    findings = (
        _hub(host, key, insecure=insecure)
        if wanted is keys.HUB
        else _registry(host, wanted, key, user, image, insecure=insecure)
    )
    report = Report(host=host.name, command="login", findings=findings)
    return Shown(
        command="login",
        data={"service": wanted.name, "source": key.source, "findings": msgspec.to_builtins(findings)},
        text=lambda screen: render.show_report(report, screen),
        changed=True,
    )


def _key(wanted: Service, key_file: str | None, *, from_stdin: bool, as_json: bool) -> Key:
    if key_file:
        return keys.from_file(key_file)
    if from_stdin:
        return keys.from_stream(sys.stdin)
    if found := keys.from_environment(wanted):
        return found
    if as_json or not sys.stdin.isatty():
        raise UsageError(
            f"there is no key for {wanted.name}",
            hint=f"set {wanted.variables[0]}, or give `--key-file FILE` or `--stdin`; get one at {wanted.where}",
        )
    given: Any = click.prompt(f"the key for {wanted.name} (from {wanted.where})", hide_input=True, err=True)
    return Key(str(given).strip(), "what was typed")


def _hub(host: LocalHost, key: Key, *, insecure: bool) -> tuple[Finding, ...]:
    proved = hub.prove(host, key, insecure=insecure)
    path = hub.save(host, key)
    return (
        Finding(check="login-proved", severity=Severity.OK, text=proved),
        Finding(check="login-store", severity=Severity.OK, text=f"kept in `{path}` (mode 600)"),
    )


def _registry(
    host: LocalHost, wanted: Service, key: Key, user: str | None, image: str | None, *, insecure: bool
) -> tuple[Finding, ...]:
    name = wanted.user or user
    if name is None:
        raise UsageError(f"who logs in to `{wanted.name}`?", hint="name the user with `--user`")
    proved = registry.prove(wanted, key, user=name, image=image, insecure=insecure)
    kept = store.save(host, wanted.registry or "", user=name, key=key, insecure=insecure)
    return (
        Finding(check="login-proved", severity=Severity.OK, text=proved),
        store.finding(kept, wanted.registry or ""),
    )
