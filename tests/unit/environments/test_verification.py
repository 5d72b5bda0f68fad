"""The manifest against the files: what was edited, removed or added is named with its package."""

from __future__ import annotations

import os
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import make_wheel, record
from msgspec import structs

from provision.environments import Scan, manifest, stamping, verify
from provision.environments.known_wheels import KnownWheels
from provision.environments.layout import Stamp
from provision.environments.sealing import Comparison, Made, compare
from provision.host.local import LocalHost
from provision.locks.lockfile import Lock

SITE = "lib/python3.10/site-packages"
NAMES = ("alpha", "beta_x")


class Folder:
    """An environment as uv would have put it into `.env.new`, without uv."""

    def __init__(self, root: Path) -> None:
        self.root, self.path, self.staging = root, root / "env", root / ".env.new"
        self.host = LocalHost({"HOME": str(root), "XDG_STATE_HOME": str(root / "state")})
        file = root / "engine-1.cp310.x86_64.txt"
        self.staging.mkdir()
        (self.staging / "bin").mkdir()
        (self.staging / "bin/python").symlink_to("/usr/bin/env")
        (self.staging / "pyvenv.cfg").write_text("home = /usr/bin\n")
        names = frozenset(manifest.walk(str(self.staging)).files)
        self.made = Made(names=names, since_ns=time.time_ns() - 10**9)
        lines = []
        for name in NAMES:
            lines.append(make_wheel(root / "wheels", name, data=b"\x7fELF" * 1000))
            with zipfile.ZipFile(root / "wheels" / f"{name}-1.0-py3-none-any.whl") as wheel:
                wheel.extractall(self.staging / SITE)
        file.write_text("".join(lines))
        self.lock = Lock(file, "engine-1", "3.10", "x86_64")

    def compared(self) -> Comparison:
        return compare(str(self.staging), self.lock, self.made, KnownWheels(self.host), cache=str(self.root / "cache"))

    def stamped(self) -> Path:
        made = self.compared()
        assert (made.wrong, made.strays) == ({}, [])
        stamp = Stamp(
            name="env",
            lock=self.lock.name,
            lock_digest=self.lock.digest,
            python="3.10.1",
            interpreter="/usr/bin/env",
            sgprov="0",
            time="2026-01-01T00:00:00Z",
        )
        paths = (str(self.path), str(self.staging))
        stamping.stamp(self.host, *paths, made, stamp, lock_text=self.lock.text, cache=str(self.root))
        return self.path


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_untouched(folder: Folder) -> None:
    heard: list[Scan] = []
    found = verify(folder.host, str(folder.stamped()), tell=heard.append)
    assert found.ok and (found.packages, found.files) == (2, 11)
    assert heard[-1].done == heard[-1].total == found.bytes > 8000
    assert found.mb_per_s > 0


def test_edited_missing_and_added(folder: Folder) -> None:
    site = folder.stamped() / SITE
    data = site / "alpha/data.bin"
    data.write_bytes(data.read_bytes()[:-1] + b"!")
    (site / "beta_x/__init__.py").unlink()
    os.mkfifo(site / "pipe")
    nobody, alpha, beta = verify(folder.host, str(folder.path)).findings
    assert nobody.data["added"] == [f"{SITE}/pipe"] and "a named pipe" in nobody.text
    assert alpha.data == {"package": "alpha", "edited": [f"{SITE}/alpha/data.bin"], "missing": [], "added": []}
    assert beta.data["missing"] == [f"{SITE}/beta_x/__init__.py"]
    assert beta.fix[0].startswith("`sgprov environments repair ")


def test_a_file_that_two_packages_claim_is_right_as_either_says(folder: Folder) -> None:
    stray = folder.staging / SITE / "build_backend.py"
    for name, content in (("alpha", b"one"), ("beta_x", b"two")):
        with (folder.staging / SITE / f"{name}-1.0.dist-info/RECORD").open("a") as stream:
            stream.write(record({stray.name: content}))
    stray.write_bytes(b"three")
    assert folder.compared().wrong.keys() == {"alpha", "beta-x"}
    stray.write_bytes(b"two")
    path = folder.stamped()
    assert verify(folder.host, str(path)).ok
    (path / SITE / stray.name).write_bytes(b"one")
    assert not verify(folder.host, str(path)).ok, "it was the other one that was installed"


def test_a_wrong_memory_of_a_wheel_heals_though_another_brings_one_of_its_files(folder: Folder) -> None:
    """Fetched anew in this run, it is its wheel's; the file that both bring was linked from the other's older entry."""
    site = folder.staging / SITE
    for name in ("alpha", "beta_x"):
        with (site / f"{name}-1.0.dist-info/RECORD").open("a") as stream:
            stream.write(record({"build_backend.py": b"both"}))
    (site / "build_backend.py").write_bytes(b"both")
    os.utime(site / "build_backend.py", (10**9, 10**9))
    for number, path in enumerate(sorted(site.rglob("*.*"))):
        if path.is_file():
            (folder.root / f"cached-{number}").hardlink_to(path)
    assert folder.compared().wrong == {}
    wheels, pin = KnownWheels(folder.host), folder.lock.requirements[0]
    known = wheels.get(pin, SITE)
    assert known and pin.name == "alpha"
    wheels.put(pin, SITE, structs.replace(known, record="0" * 64, origin="0" * 64))
    assert folder.compared().wrong == {}
    assert wheels.get(pin, SITE) == known


def test_what_is_known_of_a_wheel_under_one_python_says_nothing_under_another(folder: Folder) -> None:
    """Its RECORD is the same, and its files are in another directory."""
    assert folder.compared().wrong == {}
    (folder.staging / "lib/python3.10").rename(folder.staging / "lib/python3.13")
    found = folder.compared()
    assert (found.wrong, found.strays) == ({}, [])
    assert all("python3.13" in file.path for package in found.manifest.packages for file in package.files)


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda site: (site / "alpha/data.bin").write_bytes(b"\x7fELX" * 1000), {"alpha"}),
        (lambda site: (site / "alpha/data.bin").write_bytes(b"short"), {"alpha"}),
        (lambda site: (site / "alpha/data.bin").unlink(), {"alpha"}),
        (lambda site: (site / "alpha-1.0.dist-info/RECORD").write_bytes(b"\xff,"), {"alpha"}),
        (lambda site: (site / "alpha-1.0.dist-info").rename(site / "alpha-2.0.dist-info"), {"alpha"}),
        (lambda site: (site / "evil.pth").write_text("import os"), set()),
        (lambda site: (site / "evil.py").symlink_to("/etc/hostname"), set()),
    ],
)
def test_what_is_not_as_in_its_wheel_is_not_stamped(
    folder: Folder, change: Callable[[Path], object], wrong: set[str]
) -> None:
    change(folder.staging / SITE)
    found = folder.compared()
    assert found.wrong.keys() == wrong
    assert wrong or found.strays


def test_what_was_read_once_is_not_read_again(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = folder.root / "cache/archive-v0/x"
    for path in sorted((folder.staging / SITE).rglob("*")):
        if path.is_file():
            there = cached / path.relative_to(folder.staging / SITE)
            there.parent.mkdir(parents=True, exist_ok=True)
            there.hardlink_to(path)
    made = replace(folder.made, since_ns=time.time_ns() + 10**12)
    read: list[str] = []
    real = manifest.sha256_of

    def noted(path: str) -> str | None:
        read.append(path)
        return real(path)

    monkeypatch.setattr(manifest, "sha256_of", noted)

    def compared() -> int:
        read.clear()
        found = compare(str(folder.staging), folder.lock, made, KnownWheels(folder.host), cache=str(folder.root))
        assert (found.wrong, found.strays) == ({}, [])
        return len([path for path in read if path.endswith(".bin")])

    assert [compared(), compared()] == [2, 0], "of an older entry everything is read, and then it is known"
    for data in (folder.staging / SITE).glob("*/data.bin"):
        os.utime(data)
    assert [compared(), compared()] == [2, 0], "what looks otherwise is read once"
    for data in (folder.staging / SITE).glob("*/data.bin"):
        os.utime(data)
    made = replace(folder.made, since_ns=time.time_ns() - 10**10)
    assert compared() == 0, "uv has unpacked it in this run"


def test_where_there_is_nothing_nothing_is_right(tmp_path: Path) -> None:
    (finding,) = verify(LocalHost({}), str(tmp_path / "nowhere")).findings
    assert "is not known" in finding.text and not finding.data["package"]
