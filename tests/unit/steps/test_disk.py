"""The disk is measured before the first byte is fetched."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import GIB, FakeHost, answer

from provision.environments import uv
from provision.environments.layout import staging_of
from provision.errors import CheckFailed
from provision.locks.lockfile import Lock
from provision.steps.disk import check_disk, check_links
from provision.steps.environment import Environment, estimate

PREFIX = "/srv/p"


@pytest.fixture
def lock(tmp_path: Path) -> Lock:
    path = tmp_path / "engine-1.cp310.x86_64.txt"
    path.write_text(f"torch==2.9.1 --hash=sha256:{'0' * 64}\n")
    sizes = f"{path.name}:\n  download_bytes: 5000000000\n  installed_bytes: 9500000000\n  wheels: 1\n  unknown: []\n"
    (tmp_path / "sizes.yml").write_text(sizes)
    return Lock(path, "engine-1", "3.10", "x86_64")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    monkeypatch.setattr(uv, "program", lambda: "uv")
    return FakeHost(answers={"uv cache dir": answer("/home/me/.cache/uv\n")})


def check(host: FakeHost, lock: Lock, interpreter: str | None = None) -> str | None:
    finding = check_disk(host, prefix=PREFIX, lock=lock, interpreter=interpreter)
    return finding.text if finding else None


def test_hard_links_are_on_the_disk_once(host: FakeHost, lock: Lock) -> None:
    host.disks = {"/": 11 * 10**9}
    assert check(host, lock) is None
    host.disks = {"/": 10 * 10**9}
    assert check(host, lock) == f"`{lock.name}` needs 10.5 GB on the disk of `{PREFIX}`, 10.0 GB are free"


def test_copies_are_on_the_disk_twice(host: FakeHost, lock: Lock) -> None:
    host.variables["UV_LINK_MODE"] = "copy"
    host.disks = {"/": 19 * 10**9}
    assert "needs 20.0 GB" in (check(host, lock) or "")


def test_two_file_systems_are_each_asked(host: FakeHost, lock: Lock) -> None:
    host.disks = {"/": 100 * GIB, "/home": 5 * 10**9}
    assert check(host, lock) == f"`{lock.name}` needs 10.5 GB on the disk of `/home/me/.cache/uv`, 5.0 GB are free"
    warning = check_links(host, prefix=PREFIX)
    assert warning and "different file systems" in warning.text
    host.disks = {"/": 100 * GIB}
    assert check(host, lock) is None and check_links(host, prefix=PREFIX) is None


def test_what_is_cached_needs_no_space(host: FakeHost, lock: Lock) -> None:
    host.disks = {"/": 2 * 10**9}
    dry = "uv pip sync --dry-run --offline"
    host.answers[dry] = answer(err="Resolved 1 package\nWould download 1 package\n")
    assert check(host, lock, "/usr/bin/python3.10") is not None
    host.answers[dry] = answer(err="Resolved 1 package\nWould install 1 package\n")
    assert check(host, lock, "/usr/bin/python3.10") is None
    assert check(host, lock) is not None


def test_an_interrupted_install_may_go_on(host: FakeHost, lock: Lock) -> None:
    host.disks = {"/": 2 * 10**9}
    host.files[f"{staging_of(Environment(prefix=PREFIX, lock=lock).path)}/.sgprov/made"] = ""
    assert check(host, lock) is None


def test_unknown_sizes_and_silent_disks_are_not_guessed(host: FakeHost, lock: Lock) -> None:
    host.disks = {}
    assert check(host, lock) is None
    (lock.path.parent / "sizes.yml").unlink()
    host.disks = {"/": 0}
    assert check(host, lock) is None


def test_the_step_stops_before_anything_is_changed(host: FakeHost, lock: Lock) -> None:
    host.disks = {"/": 10**9}
    host.answers["/usr/bin/python3.10"] = answer("3.10.12 CPython x86_64")
    step = Environment(prefix=PREFIX, lock=lock, interpreter="/usr/bin/python3.10")
    with pytest.raises(CheckFailed, match=r"needs 10\.5 GB") as caught:
        step.apply(host, lambda _: None)
    assert not host.commands and caught.value.exit_status == 4 and caught.value.findings


def test_the_estimate_says_bytes_and_time(lock: Lock) -> None:
    words = "5.0 GB to download, 9.5 GB on disk; 7 min at 100 Mbit/s, 40 s at 1 Gbit/s"
    assert Environment(prefix=PREFIX, lock=lock).estimate() == words
    assert estimate(10**8) == "0.1 GB to download; 8 s at 100 Mbit/s, 1 s at 1 Gbit/s"
