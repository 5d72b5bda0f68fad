"""The real `cpu` target on two bare hosts, wheels over SSH only, to a chat that is answered over the network.

Both hosts keep uv's cache and their prefixes on one shared folder of this machine, so that 10 GB are on its disk once
and not twice; what crosses the network is not changed by that but for the second host, which finds the cache filled.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
from live import hosts

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.container, pytest.mark.engine, pytest.mark.long]


def sgprov(home: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("SGPROV_", "ANSIBLE_"))},
        "PYTHONPATH": str(ROOT),
        "HOME": str(home),
        "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR") or str(Path.home() / ".cache" / "uv"),
    }
    command = [sys.executable, "-m", "provision", *arguments, "--json"]
    ran = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, check=False)
    return ran.returncode, json.loads(ran.stdout), ran.stderr


def test_two_hosts_to_a_chat_over_the_network(tmp_path: Path) -> None:
    pytest.importorskip("ansible_runner", reason="NOT RUN: ansible-runner is not installed")
    home, shared = tmp_path / "home", tmp_path / "shared"
    home.mkdir()
    shared.mkdir()
    fleet = hosts.make(tmp_path / "hosts")
    try:
        for name in ("one", "two"):
            fleet.add(
                name,
                *("-v", f"{shared}:/srv/shared", "--shm-size", "1g"),
                sgprov_host_prefix=f"/srv/shared/{name}",
                sgprov_host_options=["--bind", "0.0.0.0", "--port", "30000", "--allow-unauthenticated"],
            )
        fleet.ready()
        for name in fleet.addresses:
            fleet.run(name, "echo UV_CACHE_DIR=/srv/shared/cache >> /etc/environment")
        arguments = ("fleet", "bootstrap", "-i", fleet.inventory(), "--target", "cpu")
        status, found, told = sgprov(home, *arguments)
        assert status == 0, json.dumps(found, indent=1)[-6000:] + told
        assert {host["state"] for host in found["hosts"]} == {"ok"}
        for address in fleet.addresses.values():
            body = {"model": "default", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
            answer = requests.post(f"http://{address}:30000/v1/chat/completions", json=body, timeout=120).json()
            assert answer["usage"]["completion_tokens"] == 8
        status, found, told = sgprov(home, "fleet", "smoke", "-i", fleet.inventory())
        assert (status, {host["state"] for host in found["hosts"]}) == (0, {"ok"}), told
        status, found, told = sgprov(home, "fleet", "stop", "-i", fleet.inventory())
        assert status == 0, told
    finally:
        for name in fleet.addresses:
            fleet.run(name, "rm -rf /srv/shared/*", check=False)
        fleet.close()
        subprocess.run(["rm", "-rf", str(home), str(shared)], check=False)
