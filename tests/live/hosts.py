"""Hosts of a fleet as containers: Debian 12 made by debootstrap, with sshd and Python and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from live.parts import debian, docker

IMAGE = "sgprov-test-host:bookworm"


def image() -> str:
    """The image of a bare host; made once on a machine. SGPROV_TEST_ROOT names a root that is there already."""
    return debian(IMAGE, "openssh-server", "python3", root=os.environ.get("SGPROV_TEST_ROOT"))


@dataclass
class Hosts:
    """Containers on a network of their own, which leads nowhere else: what a host gets comes over SSH."""

    folder: Path
    network: str
    addresses: dict[str, str] = field(default_factory=dict)
    variables: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, name: str, *options: str, **variables: Any) -> None:
        full = f"{self.network}-{name}"
        volume = f"{self.folder}/key.pub:/root/.ssh/authorized_keys:ro"
        script = "mkdir -p /run/sshd; ssh-keygen -A >/dev/null; exec /usr/sbin/sshd -D -e"
        docker(
            *("run", "-d", "--init", "--name", full, "--network", self.network, "-v", volume, *options),
            *(IMAGE, "/bin/sh", "-c", script),
        )
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        self.addresses[name] = docker("inspect", "-f", form, full)
        self.variables[name] = variables

    def run(self, name: str, script: str, *, check: bool = True) -> str:
        return docker("exec", f"{self.network}-{name}", "/bin/sh", "-c", script, check=check)

    @property
    def gateway(self) -> str:
        """This machine's address on their network."""
        return docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", self.network)

    def inventory(self) -> str:
        common = {
            "ansible_user": "root",
            "ansible_ssh_private_key_file": f"{self.folder}/key",
            "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
        }
        hosts = {
            name: {"ansible_host": address, **self.variables[name]} for name, address in sorted(self.addresses.items())
        }
        path = self.folder / "inventory.yml"
        path.write_text(yaml.safe_dump({"all": {"hosts": hosts, "vars": common}}))
        return str(path)

    def ready(self) -> None:
        """Wait until every host answers."""
        for name, address in self.addresses.items():
            command = ["ssh", "-i", f"{self.folder}/key", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR"]
            command += ["-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=3", f"root@{address}", "true"]
            for _ in range(60):
                if subprocess.run(command, check=False, capture_output=True).returncode == 0:
                    break
                time.sleep(0.5)
            else:
                pytest.fail(f"{name} does not answer: {docker('logs', f'{self.network}-{name}')}")

    def close(self) -> None:
        for name in self.addresses:
            docker("rm", "-f", "-v", f"{self.network}-{name}", check=False)
        docker("network", "rm", self.network, check=False)


def make(folder: Path, *, internal: bool = True) -> Hosts:
    """No host yet, and a network that only this machine and they are on."""
    if not shutil.which("docker") or not docker("version", "-f", "{{.Server.Version}}", check=False):
        pytest.skip("NOT RUN: no Docker Engine answers")
    image()
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")], check=True, stdin=subprocess.DEVNULL
    )
    # sshd wants its keys to be the user's own.
    (folder / "key.pub").chmod(0o600)
    network = f"sgprov-test-{os.getpid()}-{time.monotonic_ns() % 10**6}"
    docker("network", "create", *(["--internal"] if internal else []), network)
    return Hosts(folder, network)


def stub_smi(folder: Path, machine: str) -> str:
    """The `-v` of a container that has that recorded machine's `nvidia-smi`: it answers what was recorded."""
    recorded = yaml.safe_load((Path(__file__).parents[1] / "hosts" / machine / "commands.yml").read_text())
    answers = {"\0".join(one["argv"][1:]): one.get("out", "") for one in recorded if one["argv"][0] == "nvidia-smi"}
    path = folder / f"nvidia-smi-{machine}"
    path.write_text(
        f"#!/usr/bin/python3\nimport sys\nanswers = {answers!r}\n"
        "out = answers.get('\\0'.join(sys.argv[1:]))\n"
        "print(out or '', end='')\nsys.exit(out is None)\n"
    )
    path.chmod(0o755)
    return f"{path}:/usr/local/bin/nvidia-smi:ro"
