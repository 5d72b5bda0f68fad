"""Disks that are full, out of inodes, read-only or broken: each change is whole or not made, and says what helps."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from live import small

from provision.cli import app
from provision.errors import ProvisionError
from provision.host import files
from provision.host.local import LocalHost

KIND = "full disk"
Change = Callable[[LocalHost, Path], object]
CHANGES: dict[str, Change] = {
    "write": lambda host, place: host.write(f"{place}/state.json", "new" * 2000),
    "write below": lambda host, place: host.write(f"{place}/a/b/state.json", "new" * 2000),
    "write output": lambda host, place: host.write_output(f"{place}/state.json", "new" * 2000),
    "directory": lambda host, place: host.make_directory(f"{place}/a/b/c"),
    "link": lambda host, place: host.link(f"{place}/current", "environments/b"),
    "lock": lambda host, place: host.open_state(f"{place}/lock", os.O_RDWR | os.O_CREAT),
    "start": lambda host, place: host.start(["/bin/true"], log=f"{place}/logs/server.log"),
    "remove": lambda host, place: host.remove(f"{place}/kept"),
}


@pytest.fixture
def host() -> LocalHost:
    return LocalHost({"PATH": os.defpath})


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A small file system of its own, with something in it."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str) -> Path:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"mode=755,{options}", "tmpfs", str(place)], check=False, capture_output=True
        )
        if done.returncode:
            pytest.skip(f"NOT RUN: a tmpfs cannot be mounted here: {done.stderr.decode().strip()}")
        (place / "state.json").write_text("old")
        (place / "kept").write_text("kept")
        (place / "current").symlink_to("environments/a")
        return place

    yield mount
    subprocess.run(["umount", "--lazy", str(place)], check=False, capture_output=True)


def full(place: Path) -> None:
    with (place / "filler").open("wb", buffering=0) as stream, suppress(OSError):
        while True:
            stream.write(b"\0" * 4096)


def out_of_inodes(place: Path) -> None:
    with suppress(OSError):
        for number in range(10_000):
            (place / f"filler-{number}").touch()


def read_only(place: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)


def state(place: Path) -> dict[str, str]:
    """Everything that is there, but for what fills it."""
    found = [path for path in place.rglob("*") if not path.name.startswith("filler")]
    return {
        str(path.relative_to(place)): str(path.readlink()) if path.is_symlink() else path.read_text()
        for path in found
        if not path.is_dir()
    } | {str(path.relative_to(place)): "directory" for path in found if path.is_dir()}


def outcome(change: str, host: LocalHost, place: Path) -> ProvisionError | None:
    try:
        CHANGES[change](host, place)
    except ProvisionError as error:
        return error
    return None


TROUBLES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "full": ("size=64k", full, "No space left on device"),
    "no inodes": ("size=1m,nr_inodes=12", out_of_inodes, "no inodes left on the file system"),
    "read-only": ("size=64k", read_only, "Read-only file system"),
}
# What needs no room there.
NEEDS_NONE = {"full": {"remove", "lock", "start", "directory", "link"}, "no inodes": {"remove"}, "read-only": set()}


@pytest.mark.fault
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.tried(KIND, "Each change on a disk that is full, out of inodes or read-only: whole or not made, and told")
def test_a_change_is_whole_or_not_made(
    host: LocalHost, mounted: Callable[[str], Path], change: str, trouble: str
) -> None:
    options, cause, told = TROUBLES[trouble]
    place = mounted(options)
    cause(place)
    before = state(place)
    error = outcome(change, host, place)
    if error is None:
        assert change in NEEDS_NONE[trouble]
        return
    assert str(place) in str(error) and told in str(error) and error.hint and error.exit_status == 5
    assert state(place) == before


@pytest.mark.parametrize("change", ["write", "write below", "directory", "link", "lock"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES, errno.ESTALE])
@pytest.mark.parametrize("call", ["mkdir", "open", "fsync", "replace", "rename", "symlink", "chmod", "fchmod"])
@pytest.mark.tried(KIND, "Any system call of a change that fails, for lack of room, a quota, or a broken disk")
def test_any_call_may_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, number: int, call: str
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "state.json").write_text("old")
    (place / "current").symlink_to("environments/a")
    before = state(place)
    real = getattr(os, call)
    failed = []

    def fails(path: object, *rest: object, **more: object) -> object:
        if call == "open" and not int(str(rest[0])) & os.O_CREAT:
            return real(path, *rest, **more)
        failed.append(path)
        raise OSError(number, os.strerror(number), path if isinstance(path, str) else None)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fails)
        error = outcome(change, LocalHost({"PATH": os.defpath}), place)
    if failed:
        assert error is not None and str(place) in str(error) and error.hint and error.exit_status in {4, 5}
        assert state(place) == before


@pytest.mark.fault
@pytest.mark.parametrize(("what", "inodes"), [("prefix", 3), ("prefix", 12), ("prefix", 30), ("cache", 6)])
@pytest.mark.tried(KIND, "A whole bootstrap that runs out of inodes, sooner or later; and again, when there are more")
def test_a_bootstrap_without_inodes_ends_and_goes_on(
    tmp_path: Path, mounted: Callable[[str], Path], what: str, inodes: int
) -> None:
    machine = small.make(tmp_path / "small")
    server = machine.index.serve()
    # Three are taken by what is there.
    disk = mounted(f"size=3g,nr_inodes={inodes + 3}")
    place = {"prefix": tmp_path / "prefix", "cache": tmp_path / "cache"} | {what: disk / what}
    command = ("bootstrap", "--target", "cpu", "--no-smoke", "--prefix", str(place["prefix"]))
    try:
        status, said, err = machine.sgprov(*command, UV_CACHE_DIR=str(place["cache"]))
        assert "Traceback" not in err
        if status != 0:
            failed = next(step for step in said["steps"] if step["error"])
            assert (
                status == 5
                and failed["hint"]
                and re.search(r"No space left|no inodes left|disk is full", failed["error"])
            )
            subprocess.run(["mount", "-o", "remount,nr_inodes=100000", str(disk)], check=True)
            assert machine.sgprov(*command, UV_CACHE_DIR=str(place["cache"]))[0] == 0
        status, said, _ = machine.sgprov(*command, UV_CACHE_DIR=str(place["cache"]))
        assert (status, said["changed"]) == (0, False)
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EMFILE])
@pytest.mark.parametrize("path", ["/srv/x", None])
@pytest.mark.tried(KIND, "The same anywhere in a command: a message with the path and what helps, no traceback")
def test_no_refusal_of_the_system_is_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, path: str | None
) -> None:
    def refused(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(app, "_answer", refused)
    status = app.run(["plan"])
    err = capsys.readouterr().err
    assert status in {4, 5} and "Traceback" not in err and "error:" in err and "hint:" in err
    assert path is None or path in err


def test_a_device_is_never_replaced(tmp_path: Path, host: LocalHost) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("pipe", "null", "."):
        with pytest.raises(ProvisionError):
            host.write_output(f"{tmp_path}/{name}", "x")
    assert (tmp_path / "null").is_symlink() and (tmp_path / "pipe").is_fifo()
    host.write_output(f"{tmp_path}/dangling", "x")
    assert (tmp_path / "dangling").read_text() == "x" and not (tmp_path / "nowhere").exists()


def test_a_remedy_is_said_for_each_refusal() -> None:
    hints = {
        files.failed("written", "/srv/x", OSError(number, os.strerror(number), "/srv/x")).hint
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EISDIR, errno.ENOTDIR, errno.EACCES)
    }
    assert len(hints) == 7
