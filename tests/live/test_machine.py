"""`machine.yml` on a real host: users, directories, driver and container toolkit, with packages of the test's own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from live import hosts
from live.hosts import Hosts

from provision.catalog.shipped import folder

pytestmark = [pytest.mark.container, pytest.mark.ansible]
BIN = Path(sys.executable).parent
PLAYBOOKS = folder("playbooks")
DRIVER = "nvidia-driver-580-server-open"

# It writes what the real one writes, as far as Docker goes.
NVIDIA_CTK = """#!/bin/sh
mkdir -p /etc/docker
echo '{"runtimes": {"nvidia": {"path": "nvidia-container-runtime"}}}' > /etc/docker/daemon.json
"""
DOCKER = """#!/bin/sh
[ "$1" = info ] || exit 1
grep -o '"nvidia"' /etc/docker/daemon.json 2>/dev/null || echo '{}'
"""
SERVICE = """#!/bin/sh
### BEGIN INIT INFO
# Provides: docker
# Default-Start: 2 3 4 5
# Default-Stop: 0 1 6
### END INIT INFO
echo "$1" >> /tmp/service-calls
"""


@dataclass
class Source:
    """A signed source of packages in a folder, as a mirror of one's own is."""

    folder: Path

    def add(self, name: str, files: dict[str, str] | None = None) -> None:
        build = self.folder / "build" / name
        (build / "DEBIAN").mkdir(parents=True)
        (build / "DEBIAN" / "control").write_text(
            f"Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\n"
            "Description: a stand-in that the test made\n"
        )
        for path, text in (files or {}).items():
            (build / path).parent.mkdir(parents=True)
            (build / path).write_text(text)
            (build / path).chmod(0o755)
        command = ["dpkg-deb", "--root-owner-group", "--build", str(build), str(self.folder / f"{name}.deb")]
        subprocess.run(command, check=True, capture_output=True)
        shutil.rmtree(build.parent)

    def fetch(self, *names: str) -> None:
        """Ansible's own need on a host, which a network would bring: from this machine's sources, with lists of our own."""
        if "VERSION_CODENAME=bookworm" not in Path("/etc/os-release").read_text():
            pytest.skip("NOT RUN: packages for the hosts come from this machine's sources, and it is no Debian 12")
        lists = self.folder.parent / "apt"
        for name in ("lists/partial", "cache/archives/partial"):
            (lists / name).mkdir(parents=True)
        apt = ["apt-get", "-q", "-o", f"Dir::State::lists={lists}/lists", "-o", f"Dir::Cache={lists}/cache"]
        apt += ["-o", "APT::Sandbox::User=root"]
        for command in (["update"], ["download", *names]):
            ran = subprocess.run([*apt, *command], cwd=self.folder, capture_output=True, text=True, check=False)
            if ran.returncode:
                pytest.skip(f"NOT RUN: packages cannot be had: {ran.stderr[-300:]}")

    def sign(self) -> None:
        def run(*command: str) -> str:
            environment = {**os.environ, "GNUPGHOME": str(home)}
            ran = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
            assert ran.returncode == 0, ran.stderr
            return ran.stdout

        home = self.folder.parent / "gpg"
        home.mkdir(mode=0o700)
        (self.folder / "Packages").write_text(run("dpkg-scanpackages", "."))
        packages = (self.folder / "Packages").read_bytes()
        digest = run("sha256sum", "Packages").split()[0]
        (self.folder / "Release").write_text(
            f"Date: {run('date', '-Ru').strip()}\nSHA256:\n {digest} {len(packages)} Packages\n"
        )
        gpg = ("gpg", "--batch", "--yes", "--pinentry-mode", "loopback", "--passphrase", "")
        run(*gpg, "--quick-generate-key", "test@example.org", "ed25519", "sign", "never")
        run(*gpg, "--armor", "--output", "key.asc", "--export")
        run(*gpg, "--clearsign", "--output", "InRelease", "Release")
        run("gpgconf", "--kill", "gpg-agent")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    if not all(shutil.which(name) for name in ("gpg", "dpkg-deb", "dpkg-scanpackages")):
        pytest.skip("NOT RUN: gpg, dpkg-deb or dpkg-scanpackages is not installed")
    made = Source(tmp_path_factory.mktemp("packages") / "source")
    made.folder.mkdir(mode=0o755)
    made.add(DRIVER)
    made.add("nvidia-container-toolkit", {"usr/bin/nvidia-ctk": NVIDIA_CTK})
    made.fetch("python3-apt", "python-apt-common", "distro-info-data")
    made.sign()
    return made


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Hosts]:
    if not (BIN / "ansible-playbook").exists():
        pytest.skip("NOT RUN: ansible-core is not installed (`pip install sgprov[fleet]`)")
    made = hosts.make(tmp_path / "hosts")
    yield made
    made.close()


def add(there: Hosts, source: Source, name: str, *options: str) -> None:
    there.add(name, "-v", f"{source.folder}:/srv/source:ro", *options)


def play(there: Hosts, *arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    values = there.folder / "values.yml"
    values.write_text(yaml.safe_dump(variables))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
        "ANSIBLE_CONFIG": str(PLAYBOOKS / "ansible.cfg"),
        "ANSIBLE_HOME": str(there.folder / "ansible"),
        "NO_COLOR": "1",
    }
    command = [str(BIN / "ansible-playbook"), "-i", there.inventory(), str(PLAYBOOKS / "machine.yml")]
    command += ["-e", f"@{values}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=there.folder)


def changed(ran: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """Host to how many tasks changed it, of a run that failed nowhere."""
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = re.findall(r"^([\w-]+)\s*: ok=\d+\s+changed=(\d+)", ran.stdout, re.MULTILINE)
    return {host: int(count) for host, count in found}


EVERYTHING = {
    "serving_user_name": "serving",
    "serving_user_groups": ["video"],
    "serving_user_directories": ["/srv/models", "/srv/sgprov"],
    "gpu_driver_package": DRIVER,
    "container_toolkit_install": True,
    "container_toolkit_repository": "file:/srv/source",
    "container_toolkit_key": "file:///srv/source/key.asc",
}


def test_a_host_without_a_gpu_gets_all_but_the_driver(machines: Hosts, source: Source) -> None:
    add(machines, source, "bare")
    machines.ready()
    # No package lists, as on a new machine, and no network to fetch them from.
    machines.run("bare", "rm -f /etc/apt/sources.list; rm -rf /var/lib/apt/lists/*")
    machines.run("bare", "mkdir -p /srv/models")
    checked = play(machines, "--check", "--diff", **EVERYTHING)
    assert changed(checked)["bare"] > 0
    assert machines.run("bare", "getent passwd serving; ls -A /etc/apt/sources.list.d; ls /srv") == "models\nsource"

    ran = play(machines, **EVERYTHING)
    assert changed(ran)["bare"] > 0
    assert "There is no NVIDIA GPU on this host's PCI bus" in ran.stdout
    assert machines.run(
        "bare", "id -nG serving; stat -c '%U %a' /srv/models /srv/sgprov; getent shadow serving"
    ).startswith("serving video\nserving 755\nserving 755\nserving:!:")
    installed = machines.run("bare", "dpkg-query -Wf '${Package} ${db:Status-Status}\\n' 'nvidia-*'")
    assert installed == "nvidia-container-toolkit installed"

    again = play(machines, **EVERYTHING)
    assert changed(again) == {"bare": 0}, again.stdout
    assert changed(play(machines, "--check", **EVERYTHING)) == {"bare": 0}


def test_a_host_with_a_gpu_gets_its_driver_and_is_told_of_the_reboot(
    machines: Hosts, source: Source, tmp_path: Path
) -> None:
    for name, kind in (("0000:01:00.0", "0x030200"), ("0000:01:00.1", "0x040300")):
        device = tmp_path / "bus" / name
        device.mkdir(parents=True)
        (device / "vendor").write_text("0x10de\n")
        (device / "class").write_text(f"{kind}\n")
    mounted = ("-v", f"{tmp_path}/bus:/sys/bus/pci/devices:ro", "-v", f"{source.folder}:/srv/driver:ro")
    add(machines, source, "gpu", *mounted)
    machines.ready()
    machines.run("gpu", "echo 'deb [signed-by=/srv/driver/key.asc] file:/srv/driver /' > /etc/apt/sources.list")
    for path, text in (("/usr/local/bin/docker", DOCKER), ("/etc/init.d/docker", SERVICE)):
        machines.run("gpu", f"cat > {path} <<'END'\n{text}END\nchmod 755 {path}")

    checked = play(machines, "--check", **EVERYTHING)
    assert changed(checked)["gpu"] > 0
    assert f"{DRIVER} would be installed" in checked.stdout
    assert "Docker would be told of the toolkit, and restarted" in checked.stdout
    assert (
        machines.run("gpu", "dpkg-query -Wf '${Package}\\n' 'nvidia-*' 2>/dev/null; ls /etc/docker 2>/dev/null; true")
        == ""
    )

    ran = play(machines, **EVERYTHING)
    assert changed(ran)["gpu"] > 0
    assert "Reboot this host, or allow it with gpu_driver_reboot" in ran.stdout
    assert machines.run("gpu", f"dpkg --get-selections {DRIVER}").split() == [DRIVER, "hold"]
    assert machines.run("gpu", "docker info; tail -n 1 /tmp/service-calls").split() == ['"nvidia"', "start"]

    again = play(machines, **EVERYTHING)
    assert changed(again) == {"gpu": 0}, again.stdout
    assert "Reboot this host" not in again.stdout
