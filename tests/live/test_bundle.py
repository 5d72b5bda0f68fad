"""Bundles from the command line: made for other machines, installed by the script where nothing can be fetched."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fakes import untar
from live import small
from live.small import Small
from unit.steps.test_managed_python import mirror

pytestmark = pytest.mark.network


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    made = small.make(tmp_path_factory.mktemp("small"))
    server = made.index.serve()
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def bundle(maker: Small) -> Path:
    path = maker.home / "cpu.tar"
    python = f"3.{sys.version_info.minor}"
    status, found, told = maker.sgprov("bundle", "create", "--target", "cpu", "--python", python, "-o", str(path))
    assert (status, found["paths"]) == (0, [str(path)]), told
    return path


def alone(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A command of a machine that has no route to anywhere: a network namespace with loopback only."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("NOT RUN: a network namespace needs root and `unshare`")
    script = 'ip link set lo up 2>/dev/null; test -z "$(ip route 2>/dev/null)" || exit 99; exec "$@"'
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(folder)}
    wrapped = ["unshare", "--net", "/bin/sh", "-c", script, "sh", *command]
    return subprocess.run(wrapped, env=environment, cwd=folder, capture_output=True, text=True, check=False)


def test_the_script_installs_it_where_there_is_no_route(bundle: Path, tmp_path: Path) -> None:
    untar(bundle, tmp_path)
    ran = alone(tmp_path, "sh", "sgprov-bundle/install.sh", "--no-smoke", "--json")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads(ran.stdout)
    assert (found["ok"], found["target"], found["stack"]) == (True, "cpu", "sglang-0.5.23")
    tool = tmp_path / ".local/share/sgprov/tool/bin/sgprov"
    again = alone(tmp_path, str(tool), "bootstrap", "--bundle", "sgprov-bundle", "--no-smoke", "--json")
    assert json.loads(again.stdout)["changed"] is False
    listed = alone(tmp_path, str(tool), "environments", "verify", "--json")
    assert json.loads(listed.stdout)["ok"] is True


def test_the_script_refuses_what_was_changed(bundle: Path, tmp_path: Path) -> None:
    untar(bundle, tmp_path)
    wheel = next((tmp_path / "sgprov-bundle" / "tool").glob("click-*.whl"))
    wheel.write_bytes(wheel.read_bytes() + b"x")
    ran = alone(tmp_path, "sh", "sgprov-bundle/install.sh", "--no-smoke")
    assert ran.returncode == 4
    assert "was changed or damaged" in ran.stderr
    assert not (tmp_path / ".local/share/sgprov/tool/bin").exists()


def test_made_for_another_cpu_and_refused_here(maker: Small, tmp_path: Path) -> None:
    path = tmp_path / "arm.tar"
    status, found, told = maker.sgprov(
        "bundle", "create", "--target", "cpu", "--python", "3.12", "--arch", "aarch64", "-o", str(path)
    )
    assert (status, found["arch"], found["python"]) == (0, "aarch64", "3.12"), told
    with tarfile.open(path) as tar:
        names = [name.rsplit("/", 1)[-1] for name in tar.getnames()]
    assert any(name.startswith("uv-") and "aarch64" in name for name in names)
    assert not any("x86_64" in name for name in names)
    status, found, _ = maker.sgprov("bootstrap", "--bundle", str(path), "--no-smoke")
    assert (status, found["error"]["code"]) == (3, "unsupported-host")


@contextmanager
def known_python(maker: Small, folder: Path, arch: str = platform.machine()) -> Iterator[dict[str, str]]:
    """This machine's Python as the one that sgprov knows by its hash, and where its mirror is."""
    mirror(folder)
    digest = hashlib.sha256((folder / "python.tar.gz").read_bytes()).hexdigest()
    row = {"version": platform.python_version(), "arch": arch, "path": "python.tar.gz", "sha256": digest}
    listed = maker.root / "lockfiles" / "pythons.yml"
    before = listed.read_text()
    listed.write_text(json.dumps([row]))
    try:
        yield {"UV_PYTHON_INSTALL_MIRROR": folder.as_uri()}
    finally:
        listed.write_text(before)


def test_the_interpreter_comes_along_where_it_is_asked_for(maker: Small, tmp_path: Path) -> None:
    path, python = tmp_path / "cpu.tar", f"3.{sys.version_info.minor}"
    arguments = ("bundle", "create", "--target", "cpu", "--python", python, "--interpreter", "-o", str(path))
    with known_python(maker, tmp_path) as variables:
        status, found, told = maker.sgprov(*arguments, **variables)
    assert status == 0 and found["interpreter"] == platform.python_version(), told
    untar(path, tmp_path)
    inside = tmp_path / "sgprov-bundle" / "python"
    with tarfile.open(next(inside.iterdir())) as packed:
        assert f"python/bin/python{python}" in packed.getnames()
    # A machine without any Python: the script's own search finds none, and takes the bundle's.
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in (
        "sh",
        "sed",
        "sha256sum",
        "head",
        "cut",
        "mkdir",
        "rm",
        "ln",
        "mv",
        "tar",
        "gzip",
        "ls",
        "dirname",
        "getconf",
        "uname",
    ):
        if found_at := shutil.which(name):
            (bare / name).symlink_to(found_at)
    (tmp_path / "home").mkdir()
    ran = subprocess.run(
        ["/bin/sh", str(tmp_path / "sgprov-bundle/install.sh"), "--no-smoke", "--json"],
        env={"PATH": str(bare), "HOME": str(tmp_path / "home")},
        cwd=tmp_path / "home",
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    tool = tmp_path / "home/.local/share/sgprov/tool"
    assert Path(os.path.realpath(next(tool.glob("versions/*/bin/python")))).is_relative_to(tool), (
        "it runs on the bundle's"
    )


def test_an_index_that_wants_a_login(maker: Small, tmp_path: Path) -> None:
    server = maker.index.serve(login="me:a-good-word")
    address = f"127.0.0.1:{server.server_port}/"
    path = tmp_path / "cpu.tar"
    create = ("bundle", "create", "--target", "cpu", "--python", f"3.{sys.version_info.minor}", "-o", str(path))
    try:
        status, found, told = maker.sgprov(*create, UV_INDEX=f"http://me:a-good-word@{address}")
        assert status == 0, told
        assert b"a-good-word" not in path.read_bytes()
        path.unlink()
        named = {"UV_INDEX_OURS_USERNAME": "me", "UV_INDEX_OURS_PASSWORD": "a-good-word"}
        status, found, told = maker.sgprov(*create, UV_INDEX=f"ours=http://{address}", **named)
        assert status == 0, told
        status, found, told = maker.sgprov(*create, UV_INDEX=f"http://me:a-bad-word@{address}")
        assert status == 5 and "401" in found["error"]["text"], told
        assert "a-bad-word" not in json.dumps(found) + told
    finally:
        server.shutdown()
        server.server_close()


def test_an_interpreter_for_another_cpu_comes_along(maker: Small, tmp_path: Path) -> None:
    """What is packed is another machine's program: it is only carried, never started."""
    path, python = tmp_path / "arm.tar", f"3.{sys.version_info.minor}"
    arguments = ("--target", "cpu", "--python", python, "--arch", "aarch64", "--interpreter", "-o", str(path))
    with known_python(maker, tmp_path, arch="aarch64") as variables:
        status, found, told = maker.sgprov("bundle", "create", *arguments, **variables)
        assert (status, found.get("arch"), found.get("interpreter")) == (0, "aarch64", platform.python_version()), told
        # And where the mirror has another file under that name, nothing is made.
        path.unlink()
        (tmp_path / "python.tar.gz").write_bytes(b"another")
        status, found, told = maker.sgprov("bundle", "create", *arguments, **variables)
        assert status == 5 and "is not what was locked" in found["error"]["text"], told
        assert not path.exists()


def test_parts_from_the_command_line(maker: Small, bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "cpu.tar"
    arguments = ("--target", "cpu", "--python", f"3.{sys.version_info.minor}", "--part-size", "9M", "-o", str(path))
    status, found, told = maker.sgprov("bundle", "create", *arguments)
    assert status == 0 and len(found["paths"]) > 2, told
    status, found, _ = maker.sgprov("bundle", "join", found["paths"][0])
    assert (status, found["paths"]) == (0, [str(path)])
    assert path.read_bytes() == bundle.read_bytes()
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    assert maker.sgprov("bundle", "verify", str(path))[0] == 4
    status, found, _ = maker.sgprov("bootstrap", "--bundle", str(path), "--no-smoke", "--prefix", str(tmp_path / "p"))
    assert status == 4 and not (tmp_path / "p").exists()
