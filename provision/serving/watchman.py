"""Who runs the supervisor: systemd for the user where it runs, else a process of its own; and whether one is there."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import msgspec

from provision import trust
from provision.containers.names import unique_name
from provision.errors import ProvisionError
from provision.host import Host, HostView, locking
from provision.serving import processes, record
from provision.serving.record import Server

# Held by the supervisor as long as it lives, with its pid in it.
LOCK = "supervisor.lock"
_SYSTEMCTL_S = 30.0
# The supervisor is the very sgprov that started it, from wherever that was loaded; servers do not inherit it.
_HERE = str(Path(__file__).parents[2])


def is_at_work(directory: str) -> bool:
    """Whether somebody supervises the server in `directory` at this moment."""
    return _holder(directory) is not None


def keeps_up(server: Server) -> bool:
    """Whether somebody starts a server again when it dies: its container's engine, or a supervisor that is there."""
    return server.container.restarts > 0 if server.container else server.supervised and is_at_work(server.directory)


def _holder(directory: str) -> int | None:
    """The pid of its supervisor, 0 where that cannot be told; None where there is none."""
    try:
        descriptor = trust.open_state(f"{directory}/{LOCK}")
    except (ProvisionError, OSError):
        return None
    try:
        return locking.holder(descriptor) or 0 if locking.is_held(descriptor) else None
    finally:
        os.close(descriptor)


def end(host: Host, directory: str) -> None:
    """End the supervisor of the server in `directory`, where there is one."""
    if has_systemd(host):
        unit = _unit(directory)
        host.query(["systemctl", "--user", "stop", unit], timeout_s=_SYSTEMCTL_S)
    pid = _holder(directory)
    if pid:
        host.signal(pid, signal.SIGTERM, only_if=lambda: _supervises(host, pid))


def _supervises(host: HostView, pid: int) -> bool:
    words = (host.read(f"/proc/{pid}/cmdline") or "").split("\0")
    return "supervise" in words and processes.is_callers(host, pid)


def start(host: Host, server: Server) -> str:
    """Have the server supervised from now on; who sees to it."""
    record.save(host, msgspec.structs.replace(server, supervised=True))
    if (pid := _holder(server.directory)) is not None:
        return f"supervised by pid {pid}, which was there already"
    prefix, _ = _place(server.directory)
    command = [sys.executable, "-m", "provision", "serve", "supervise", server.name, "--prefix", prefix]
    if not has_systemd(host):
        variables = {"PYTHONPATH": _HERE}
        pid = host.start(command, log=f"{server.directory}/supervisor.log", variables=variables)
        return f"supervised by pid {pid}, until this machine is started again"
    unit = _unit(server.directory)
    home = host.variable("XDG_CONFIG_HOME") or f"{host.variable('HOME') or '/root'}/.config"
    host.write(f"{home}/systemd/user/{unit}", render_unit(server, command))
    host.run(["systemctl", "--user", "daemon-reload"], timeout_s=_SYSTEMCTL_S)
    host.run(["systemctl", "--user", "enable", "--now", unit], timeout_s=_SYSTEMCTL_S)
    return f"supervised by systemd (`systemctl --user status {unit}`)"


def _unit(directory: str) -> str:
    return f"{unique_name(*_place(directory))}.service"


def _place(directory: str) -> tuple[str, str]:
    """The prefix and the name of the server in `directory`, which is `PREFIX/servers/NAME`."""
    servers, _, name = directory.rpartition("/")
    return servers.rpartition("/")[0], name


def has_systemd(view: HostView) -> bool:
    """Whether a systemd of this user answers; a machine can have its files without running it."""
    if view.stat("/run/systemd/system") is None:
        return False
    outcome = view.query(["systemctl", "--user", "is-system-running"])
    return outcome.out.strip() in {"running", "degraded", "starting"}


def render_unit(server: Server, command: list[str]) -> str:
    """A unit for the user's own systemd; pure. Reference: systemd.service(5), systemd.unit(5)."""
    # The supervisor counts failures itself, and ends well when the server was stopped or given up.
    return f"""\
[Unit]
Description=sgprov: keep the server {server.name} up

[Service]
WorkingDirectory=/
Environment={_word(f"PYTHONPATH={_HERE}")}
ExecStart={" ".join(_word(word).replace("$", "$$") for word in command)}
Restart=on-failure
RestartSec=5
RestartPreventExitStatus=6
UMask=0077
# What it started outlives it: a supervisor that is replaced must not take the server with it.
KillMode=process

[Install]
WantedBy=default.target
"""


def _word(text: str) -> str:
    """A word as systemd reads it, in which nothing stands for something else; it quotes otherwise than a shell."""
    for sign, written in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%")):
        text = text.replace(sign, written)
    return f'"{text}"'
