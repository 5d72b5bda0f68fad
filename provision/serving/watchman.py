"""Who runs the supervisor: systemd for the user where it runs, else a process of its own."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import msgspec

from provision.host.view import Host, HostView
from provision.serving import record
from provision.serving.record import Server

_SYSTEMCTL_S = 30.0
# The supervisor is the very sgprov that started it, from wherever that was loaded; servers do not inherit it.
_HERE = str(Path(__file__).parents[2])


def start(host: Host, server: Server, command: Sequence[str]) -> str:
    """Have `command` (which supervises the server) run from now on; who sees to it."""
    record.save(host, msgspec.structs.replace(server, supervised=True))
    if not has_systemd(host):
        variables = {"PYTHONPATH": _HERE}
        pid = host.start(command, log=f"{server.directory}/supervisor.log", variables=variables)
        return f"supervised by pid {pid}, until this machine is started again"
    unit = f"sgprov-{server.name}.service"
    home = host.variable("XDG_CONFIG_HOME") or f"{host.variable('HOME') or '/root'}/.config"
    host.write(f"{home}/systemd/user/{unit}", render_unit(server, command))
    host.run(["systemctl", "--user", "daemon-reload"], timeout_s=_SYSTEMCTL_S)
    host.run(["systemctl", "--user", "enable", "--now", unit], timeout_s=_SYSTEMCTL_S)
    return f"supervised by systemd (`systemctl --user status {unit}`)"


def has_systemd(view: HostView) -> bool:
    """Whether a systemd of this user answers; a machine can have its files without running it."""
    if view.stat("/run/systemd/system") is None:
        return False
    outcome = view.query(["systemctl", "--user", "is-system-running"])
    return outcome.out.strip() in {"running", "degraded", "starting"}


def render_unit(server: Server, command: Sequence[str]) -> str:
    """A unit for the user's own systemd; pure. Reference: systemd.service(5), systemd.unit(5)."""
    # The supervisor counts failures itself, and ends well when the server was stopped or given up.
    return f"""\
[Unit]
Description=sgprov: keep the server {server.name} up

[Service]
Environment={shlex.quote(f"PYTHONPATH={_HERE}")}
ExecStart={shlex.join(command).replace("%", "%%")}
Restart=on-failure
RestartSec=5
RestartPreventExitStatus=6
UMask=0077
# What it started outlives it: a supervisor that is replaced must not take the server with it.
KillMode=process

[Install]
WantedBy=default.target
"""
