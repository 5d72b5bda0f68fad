"""The script of a bundle that was damaged, or made by somebody else, beside versions that are installed."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from attack.test_bundle import EVIL, bomb
from unit.bundle.test_archive import manifest

from provision.bundle import model, reading

pytestmark = pytest.mark.usefixtures("real_machine")
ROOT = Path(__file__).parents[2]


def unpacked(folder_: Path, files: dict[str, bytes], head: Callable[[bytes], bytes] = lambda head: head) -> Path:
    """A bundle as tar leaves it, with the real script, and a seal that holds for whatever the manifest became."""
    there = folder_ / model.TOP
    every = {model.SCRIPT: (ROOT / "provision/bundle/install.sh").read_bytes(), **files}
    for name, content in every.items():
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_bytes(content)
    raw = head(model.render(manifest(every)))
    (there / model.MANIFEST).write_bytes(raw)
    (there / model.SEAL).write_bytes(reading.seal("0" * 64, hashlib.sha256(raw).hexdigest()))
    return there


def installed(there: Path, to: Path) -> subprocess.CompletedProcess[str]:
    command = ["sh", str(there / model.SCRIPT), "--tool-only", "--to", str(to)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


TOOL = {
    **{f"tool/requirements-3.{n}.txt": b"sgprov==0.1.0 --hash=sha256:" + b"ab" * 32 + b"\n" for n in range(10, 15)},
    "tool/uv-1-py3-none-any.whl": bomb(),
}
UV = "tool/uv-1-py3-none-any.whl"
PINS = [name for name in TOOL if "requirements" in name]


def put(content: bytes, *names: str) -> Callable[[Path], None]:
    def change(there: Path) -> None:
        for name in names:
            (there / name).parent.mkdir(exist_ok=True)
            (there / name).write_bytes(content)

    return change


def in_place(how: str, *names: str) -> Callable[[Path], None]:
    def change(there: Path) -> None:
        for name in names:
            (there / name).rename(there.parent / f"moved-{Path(name).name}")
            if how == "fifo":
                os.mkfifo(there / name)
            elif how == "link":
                (there / name).symlink_to(there.parent / f"moved-{Path(name).name}")

    return change


def cut(there: Path) -> None:
    (there / model.MANIFEST).write_bytes((there / model.MANIFEST).read_bytes()[:200])


def emptied_with_a_seal(there: Path) -> None:
    put(b"", model.MANIFEST)(there)
    put(reading.seal("0" * 64, hashlib.sha256(b"").hexdigest()), model.SEAL)(there)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "manifest emptied": put(b"", model.MANIFEST),
    "manifest cut": cut,
    "manifest gone": in_place("gone", model.MANIFEST),
    "manifest another's": put(b'{"files": []}', model.MANIFEST),
    "manifest a FIFO": in_place("fifo", model.MANIFEST),
    "manifest a link": in_place("link", model.MANIFEST),
    "seal emptied": put(b"", model.SEAL),
    "seal gone": in_place("gone", model.SEAL),
    "seal a FIFO": in_place("fifo", model.SEAL),
    "manifest emptied, with a seal for that": emptied_with_a_seal,
    "requirements emptied": put(b"", *PINS),
    "requirements gone": in_place("gone", *PINS),
    "requirements a FIFO": in_place("fifo", *PINS),
    "requirements climbing": put(b"sgprov==1 --hash=sha256:../../..////\n", *PINS),
    "tool gone": in_place("gone", "tool"),
    "a wheel changed": put(b"v", UV),
    "a wheel a FIFO": in_place("fifo", UV),
    "a wheel a link": in_place("link", UV),
    "a wheel more": put(EVIL, "tool/evil-1-py3-none-any.whl"),
    "a hidden file more": put(EVIL, "tool/.evil.whl"),
    "a Python more": put(EVIL, "python/evil.tar.gz"),
    "a bomb": lambda _: None,
}


@pytest.mark.tried("hostile bundle", "install.sh of a damaged or changed bundle, beside versions that are installed")
@pytest.mark.parametrize("how", DAMAGE)
def test_the_script_deletes_nothing_and_refuses(tmp_path: Path, how: str) -> None:
    there, to = unpacked(tmp_path, TOOL), tmp_path / "tool"
    for version in ("aaaaaaaaaaaa", "bbbbbbbbbbbb"):
        (to / "versions" / version / "bin").mkdir(parents=True)
        (to / "versions" / version / "bin/sgprov").write_text("#!/bin/sh\n")
    (to / "bin").mkdir()
    (to / "bin/sgprov").symlink_to("../versions/aaaaaaaaaaaa/bin/sgprov")
    before = sorted(one for one in to.rglob("*"))
    DAMAGE[how](there)
    ran = installed(there, to)
    assert ran.returncode == 4, ran.stderr
    assert ran.stderr.startswith("error: ")
    assert [one for one in before if not os.path.lexists(one)] == []
    assert str((to / "bin/sgprov").readlink()) == "../versions/aaaaaaaaaaaa/bin/sgprov"


@pytest.mark.tried("hostile bundle", "requirements, sealed well, that name a version with a path or nothing in it")
@pytest.mark.parametrize("digest", ["", "../../../../etc", "0" * 11, "g" * 64, "*" * 64, "0" * 63, "A" * 64, "a b"])
def test_the_script_takes_a_version_of_twelve_digits_only(tmp_path: Path, digest: str) -> None:
    line = f"sgprov==0.1.0 --hash=sha256:{digest}\n".encode()
    there, to = unpacked(tmp_path, {"tool/requirements-3.11.txt": line}), tmp_path / "tool"
    (to / "versions/aaaaaaaaaaaa").mkdir(parents=True)
    ran = installed(there, to)
    assert (ran.returncode, (to / "versions/aaaaaaaaaaaa").is_dir()) == (4, True), ran.stderr


@pytest.mark.tried("shared directory", "install.sh into a directory that others can write, or a link to another")
@pytest.mark.parametrize("how", ["others", "group", "link", "version", "linked version", "bin", "program"])
def test_the_script_runs_nothing_from_where_others_write(tmp_path: Path, how: str) -> None:
    there, to = unpacked(tmp_path, TOOL), tmp_path / "tool"
    planted = to / "versions" / ("ab" * 6)
    planted.mkdir(parents=True)
    (planted / "complete").touch()
    if how in {"others", "group"}:
        to.chmod(0o777 if how == "others" else 0o775)
    elif how == "link":
        to.rename(tmp_path / "elsewhere")
        to.symlink_to(tmp_path / "elsewhere")
    elif how == "version":
        planted.chmod(0o777)
    elif how == "linked version":
        planted.rename(tmp_path / "elsewhere")
        planted.symlink_to(tmp_path / "elsewhere")
    elif how == "program":
        (to / "bin/sgprov").mkdir(parents=True)
    else:
        (to / "bin").mkdir()
        (to / "bin").chmod(0o777)
    ran = installed(there, to)
    assert ran.returncode == 5 and not (to / "bin/sgprov").is_symlink(), ran.stderr
    assert how != "program" or list((to / "bin/sgprov").iterdir()) == []


@pytest.mark.tried("shared directory", "install.sh below a directory that others own or can write, also through a link")
@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("how", ["others", "group", pytest.param("a stranger's", marks=pytest.mark.attack)])
def test_the_script_asks_who_can_exchange_its_directory(tmp_path: Path, how: str, linked: bool) -> None:
    there, above = unpacked(tmp_path, TOOL), tmp_path / "above"
    planted = above / "a b" / "tool" / "versions" / ("ab" * 6)
    planted.mkdir(parents=True)
    (planted / "complete").touch()
    (tmp_path / "link").symlink_to(above / "a b")
    to = (tmp_path / "link" if linked else above / "a b") / "tool"
    above.chmod({"others": 0o757, "group": 0o775}.get(how, 0o755))
    if how == "group":
        os.chown(above, -1, next((group for group in os.getgroups() if group != os.getgid()), 12345))
    elif how == "a stranger's":
        os.chown(above, 54321, 54321)
    ran = installed(there, to)
    assert ran.returncode == 5 and str(above) in ran.stderr, ran.stderr
    assert not (to / "bin").exists()
    above.chmod(0o1777)
    if how != "a stranger's":
        assert installed(there, to).returncode == 0, "as below `/tmp`"


def test_the_script_is_content_with_a_version_that_is_complete(tmp_path: Path) -> None:
    """Otherwise the tries above would prove nothing: they stop before Python and uv are asked."""
    there, to = unpacked(tmp_path, TOOL), tmp_path / "tool"
    planted = to / "versions" / ("ab" * 6)
    planted.mkdir(parents=True)
    (planted / "complete").touch()
    ran = installed(there, to)
    assert (ran.returncode, str((to / "bin/sgprov").readlink())) == (0, f"../versions/{planted.name}/bin/sgprov"), (
        ran.stderr
    )
