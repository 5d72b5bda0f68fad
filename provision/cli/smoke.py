"""`sgprov smoke`: test a running server, local or remote."""

from __future__ import annotations

import click
import msgspec

from provision import config
from provision.cli import common, render
from provision.cli.output import Shown
from provision.cli.servers import find_one
from provision.errors import ServingFailed
from provision.report import Report, Severity
from provision.serving import contained
from provision.serving import smoke as smoking
from provision.serving.client import shown
from provision.serving.listening import key_of
from provision.serving.record import members
from provision.serving.status import status


@click.command()
@click.argument("name", required=False)
@click.option("--url", metavar="URL", help="Test this server instead of one of ours, such as http://10.0.0.5:30000.")
@click.option("--model", metavar="NAME", help="Also see that it serves this model.")
@click.option(
    "--timeout",
    "timeout_s",
    type=common.Seconds(most=86400),
    default=smoking.TIMEOUT_S,
    show_default=True,
    metavar="SECONDS",
    help="How long each request may take.",
)
@common.insecure
@common.prefix
@common.as_json
def smoke(
    name: str | None,
    url: str | None,
    model: str | None,
    timeout_s: float,
    prefix: str | None,
    *,
    insecure: bool,
    as_json: bool,
) -> Shown:
    """Test a running server: its models, a chat, a stream, and the same long prompt twice.

    A key for it is taken from SGPROV_API_KEY; that of a server of ours is known. Exit 6 where it serves wrongly or not
    at all.
    """
    del as_json
    key = config.secret("SGPROV_API_KEY")
    if url:
        # A login in it is for the server, and for nobody who reads the result; it is known by what stands before it.
        url = url if "://" in url else f"http://{url}"
        asked = shown(url)
        findings = smoking.run(url, api_key=key, timeout_s=timeout_s, expect_model=model, insecure=insecure)
    else:
        host = common.local_host()
        _, known = find_one(host, config.load({"name": name, "prefix": prefix}))
        asked = known.url
        if not members(host, contained.current(host, known)):
            found = status(host, known)
            raise ServingFailed(
                f"the server `{known.name}` does not run: it {found.text}",
                hint=f"`sgprov serve start {known.name}` starts it again",
            )
        findings = smoking.run(
            asked,
            api_key=key_of(host, known, otherwise=key),
            timeout_s=timeout_s,
            expect_model=model,
            log=known.log,
            engine=known.engine,
            version=known.version,
        )
    ok = all(finding.severity is not Severity.ERROR for finding in findings)
    report = Report(host=asked, command="smoke", findings=findings)
    return Shown(
        command="smoke",
        data={"url": asked, "findings": msgspec.to_builtins(findings)},
        text=lambda screen: render.show_report(report, screen),
        ok=ok,
        exit_status=0 if ok else ServingFailed.exit_status,
    )
