"""The real `cpu` target from a bundle, in a network namespace without a route, to a chat.

Needs some 20 GB of disk for a while: the bundle, what tar makes of it, and the environment.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes import untar

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.network, pytest.mark.engine, pytest.mark.long]
NEEDED_BYTES = 22_000_000_000

# What a user without a network does, and a chat with what came of it. All of it in one namespace: the server, too.
ALONE = """
ip link set lo up || exit 97
test -z "$(ip route)" || exit 98
python3 -I -c 'import socket; socket.create_connection(("192.0.2.1", 80), 2)' 2>/dev/null && exit 99
sh sgprov-bundle/install.sh --json > report.json || exit $?
python3 -I - <<'PYTHON' || exit 96
import json, urllib.request
report = json.load(open("report.json"))
body = {"model": "default", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
headers = {"Content-Type": "application/json"}
base = report["endpoint"].rstrip("/").removesuffix("/v1")
request = urllib.request.Request(base + "/v1/chat/completions", json.dumps(body).encode(), headers)
with urllib.request.urlopen(request, timeout=120) as answer:
    open("chat.json", "wb").write(answer.read())
PYTHON
.local/share/sgprov/tool/bin/sgprov serve stop --all --json > stopped.json
"""


def test_the_cpu_target_comes_up_where_there_is_no_route(tmp_path: Path) -> None:
    if os.geteuid() != 0 or not (shutil.which("unshare") and shutil.which("ip")):
        pytest.skip("NOT RUN: a network namespace needs root, `unshare` and `ip`")
    if shutil.disk_usage(tmp_path).free < NEEDED_BYTES:
        pytest.skip(f"NOT RUN: {NEEDED_BYTES / 1e9:.0f} GB of disk are not free")
    machine = tmp_path / "machine"
    machine.mkdir()
    try:
        report, chat = _from_bundle_to_chat(tmp_path / "cpu.tar", machine)
    finally:
        for path in tmp_path.iterdir():
            subprocess.run(["rm", "-rf", str(path)], check=False)
    assert (report["ok"], report["target"]) == (True, "cpu")
    assert chat["usage"]["completion_tokens"] == 8


def _from_bundle_to_chat(bundle: Path, machine: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    python = f"3.{sys.version_info.minor}"
    command = [sys.executable, "-m", "provision", "bundle", "create", "--target", "cpu", "--python", python]
    made = subprocess.run(
        [*command, "-o", str(bundle), "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    untar(bundle, machine)
    bundle.unlink()
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(machine)}
    ran = subprocess.run(
        ["unshare", "--net", "/bin/sh", "-c", ALONE],
        env=environment,
        cwd=machine,
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    assert ran.returncode == 0, (ran.returncode, ran.stderr[-4000:])
    return json.loads((machine / "report.json").read_text()), json.loads((machine / "chat.json").read_text())
