"""What a server is to be started with again: as it was, or from the environment that a rollback put in use."""

from __future__ import annotations

import glob
from dataclasses import replace

from provision import environments
from provision.errors import StepFailed
from provision.host.view import HostView
from provision.serving import record
from provision.serving.launch import Asked, Launch, render
from provision.serving.record import Server


def launch_of(view: HostView, prefix: str, server: Server) -> tuple[Launch, str | None]:
    """The launch and the stack that `server` is to be started with again.

    One whose environment was rolled back is launched from the one in use, with the flags of that engine version;
    others are launched as they were. Raises `UsageError` for a setting that the version there does not know, and
    `StepFailed` where it is another engine.
    """
    path = gone_back_to(view, prefix, server)
    if path is None or server.serve is None:
        return server.launch, server.stack
    folders = view.glob(f"{glob.escape(path)}/lib/python*/site-packages/{server.engine}-*.dist-info")
    if not folders:
        raise StepFailed(
            f"the server `{server.name}` runs {server.engine}, which is not in `{path}`",
            hint=f"`sgprov serve start {server.name} --target {server.target or 'NAME'}` starts it with other settings",
        )
    version = folders[0].rsplit("/", 1)[-1].removesuffix(".dist-info").rpartition("-")[2]
    launch = render(
        server.engine,
        version,
        server.serve,
        python=environments.python_of(path),
        model_path=server.model,
        given=server.given,
        key_file=server.key_file,
    )
    stamp = environments.read_stamp(view, path)
    return replace(launch, asked=asked_of(view, prefix, server)), stamp.stack if stamp else None


def asked_of(view: HostView, prefix: str, server: Server) -> Asked | None:
    """What `server` was asked for. Who rolled its environment back has asked for the stack and the Python there."""
    path = gone_back_to(view, prefix, server)
    stamp = environments.read_stamp(view, path) if path else None
    if server.asked is None or stamp is None:
        return server.asked
    python = ".".join(stamp.python.split(".")[:2])
    return server.asked.of_environment(stamp.name, stack=stamp.stack, python=python)


def followers(view: HostView, prefix: str) -> tuple[str, ...]:
    """Names of the servers that a restart takes to the environment that a rollback put in use."""
    servers = f"{prefix}/servers"
    found = (record.load(view, record.directory_of(servers, name)) for name in record.names(view, servers))
    return tuple(one.name for one in found if one and gone_back_to(view, prefix, one))


def gone_back_to(view: HostView, prefix: str, server: Server) -> str | None:
    """The environment in use, where a rollback put it in the place of the server's own.

    A server of another target keeps its environment, though that is not `current` either; so does one that was never
    verified with the environment gone back to, which is another server's of the same prefix.
    """
    receipt, now = environments.environment_receipt(view, prefix), environments.current(view, prefix)
    if receipt is None or receipt.rolled_back_from is None or now is None:
        return None
    left = environments.python_of(f"{prefix}/environments/{receipt.rolled_back_from}")
    in_force = now.rsplit("/", 1)[-1] == receipt.environment
    receipts = (receipt, *environments.receipt_history(view, prefix))
    was_its = any(one.environment == receipt.environment and one.server in {None, server.name} for one in receipts)
    return now if in_force and was_its and server.python == left else None
