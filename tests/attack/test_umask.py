"""Whatever umask sgprov is called with: nothing is writable for others, and what is installed can be run by them."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import small

from provision.environments import uv
from provision.errors import UntrustedPath
from provision.host.local import LocalHost

KIND = "open umask"
STRANGER = 54321


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[small.Small]:
    made = small.make(tmp_path)
    server = made.index.serve()
    yield made
    server.shutdown()
    server.server_close()


def everything(root: Path) -> list[Path]:
    return [path for path in (root, *root.rglob("*")) if not path.is_symlink()]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.attack
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777], ids=oct)
@pytest.mark.tried(KIND, "A fresh installation under the umask 000, 022, 077 and 777: nothing that others may write")
def test_nothing_is_writable_for_others(machine: small.Small, umask: int) -> None:
    before = os.umask(umask)
    try:
        status, said, err = machine.sgprov(
            *("bootstrap", "--target", "cpu", "--no-smoke", "--prefix", str(machine.home / "prefix")),
            UV_CACHE_DIR=str(machine.home / "cache"),
        )
    finally:
        os.umask(before)
    assert status == 0, (said, err)
    made = everything(machine.home)
    assert len(made) > 100
    # uv lets everyone write its locks, which are empty; nobody else comes to them.
    locks = [path for path in (machine.home / "cache").rglob("*.lock") if path.stat().st_size == 0]
    assert [path for path in made if mode(path) & 0o022 and path not in locks] == []
    assert mode(machine.home / "cache") == 0o700
    # What others are to run, and what is nobody's but ours.
    for path in everything(machine.home / "prefix" / "environments"):
        # What sgprov alone wants to know of it may be closed.
        assert path.parent.name == ".sgprov" or mode(path) & 0o444 == 0o444, path
        assert not path.is_dir() or mode(path) & 0o555 == 0o555, path
    assert mode(machine.home / "prefix" / "servers") == 0o700
    assert mode(machine.home / "prefix") == 0o755
    # The way to it is pytest's, and closed.
    found = next((machine.home / "prefix" / "environments").glob("*/lib/python3*/site-packages"))
    names = [path.name for path in found.iterdir() if (path / "__init__.py").exists()]
    read = subprocess.run(
        [sys.executable, "-I", "-c", "import os, sys; os.setuid(54321); [open(p).read() for p in sys.argv[1:]]"]
        + [f"{name}/__init__.py" for name in names],
        cwd=found,
        check=False,
        capture_output=True,
    )
    assert names and read.returncode == 0, read.stderr


@pytest.mark.usefixtures("real_machine")
@pytest.mark.tried(KIND, "What a server writes under the umask 000: its log and its sockets are the caller's alone")
def test_what_is_started_writes_for_the_caller_alone(tmp_path: Path) -> None:
    script = (
        "import os, sys, time\n"
        "from provision.cli import app\n"
        "from provision.cli import common\n"
        "def answer(*_, **__):\n"
        "    host = common.local_host()\n"
        f"    host.start([sys.executable, '-c', \"open('{tmp_path}/written', 'w'); import os; os.mkdir('{tmp_path}/made')\"],"
        f" log='{tmp_path}/server.log')\n"
        "    return 0\n"
        "app._answer = answer\n"
        "os.umask(0)\n"
        "app.run([])\n"
        "assert os.umask(0) == 0\n"
        f"deadline = time.monotonic() + 20\n"
        f"while not os.path.exists('{tmp_path}/made') and time.monotonic() < deadline: time.sleep(0.05)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])
    assert {mode(tmp_path / name) for name in ("server.log", "written")} == {0o600}
    assert mode(tmp_path / "made") == 0o700


@pytest.mark.usefixtures("real_machine")
@pytest.mark.tried("shared prefix", "A cache of uv's that every user may write: nothing is installed from it")
@pytest.mark.parametrize("named", ["variable", "the user's file", "a file"])
def test_a_cache_that_others_write_is_refused(tmp_path: Path, named: str) -> None:
    cache, own, other = tmp_path / "cache", tmp_path / ".config/uv/uv.toml", tmp_path / "other.toml"
    cache.mkdir()
    cache.chmod(0o777)
    own.parent.mkdir(parents=True)
    if named != "variable":
        (own if "user" in named else other).write_text(f'cache-dir = "{cache}"\n')
    more = {"variable": {"UV_CACHE_DIR": str(cache)}, "a file": {"UV_CONFIG_FILE": str(other)}}.get(named, {})
    host = LocalHost({"PATH": os.environ["PATH"], "HOME": str(tmp_path), **more})
    with pytest.raises(UntrustedPath) as refused:
        uv.run(host, "venv", str(tmp_path / "made"))
    assert "UV_CACHE_DIR" in str(refused.value.hint) and not (tmp_path / "made").exists()
