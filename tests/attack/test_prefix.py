"""What another user could have put under a prefix is neither believed, nor written to, nor run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from provision import trust
from provision.errors import NotPermitted, StepFailed, UntrustedPath
from provision.host.local import LocalHost

STRANGER = 54321
KIND = "shared prefix"


@pytest.fixture
def host() -> LocalHost:
    return LocalHost({"PATH": os.defpath, "HOME": "/nonexistent"})


def given(path: Path, uid: int = STRANGER) -> Path:
    """The same, as another user's; the tests that need it run as root."""
    os.chown(path, uid, uid, follow_symlinks=False)
    return path


def directory(path: Path, mode: int = 0o755) -> Path:
    path.mkdir()
    path.chmod(mode)
    return path


def names(path: Path) -> list[str]:
    return sorted(each.name for each in path.iterdir())


@pytest.mark.parametrize("mode", [0o777, 0o757, 0o1777, 0o2777, 0o722])
@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.tried(KIND, "A prefix, or a directory above it, that every user may write")
def test_a_directory_that_others_write_is_refused(tmp_path: Path, mode: int, depth: int) -> None:
    open_one = directory(tmp_path / "open", mode)
    prefix = open_one if depth == 0 else directory(open_one / "inner")
    if depth and mode == 0o1777:
        trust.require(str(prefix))  # as under /tmp: others cannot rename or remove it
        return
    with pytest.raises(UntrustedPath) as refused:
        trust.require(str(prefix))
    assert str(open_one) in str(refused.value) and f"{mode:o}" in str(refused.value)
    assert refused.value.hint
    if mode != 0o1777:
        assert f"chmod go-w {open_one}" in refused.value.hint
        open_one.chmod(mode & ~0o022)  # the very command of the hint
        trust.require(str(prefix))


@pytest.mark.attack
@pytest.mark.parametrize("what", ["prefix", "above", "link above", "link"])
@pytest.mark.tried(KIND, "A prefix, a directory above it, or a link to it that belongs to another user")
def test_what_belongs_to_another_user_is_refused(tmp_path: Path, what: str) -> None:
    real = directory(tmp_path / "real")
    path = real / "prefix"
    if what == "prefix":
        given(directory(path))
    elif what == "above":
        given(real)
    else:
        (tmp_path / "link").symlink_to(real)
        given(tmp_path / "link")
        path = tmp_path / "link" / "prefix" if what == "link above" else tmp_path / "link"
    with pytest.raises(UntrustedPath, match="belongs to 54321"):
        trust.require(str(path))


@pytest.mark.attack
@pytest.mark.tried(KIND, "A directory above it that a group of several users may write")
def test_a_group_of_others_is_not_private(tmp_path: Path) -> None:
    shared = directory(tmp_path / "shared")
    os.chown(shared, 0, STRANGER)
    shared.chmod(0o775)
    with pytest.raises(UntrustedPath, match="may be written by others"):
        trust.require(str(shared / "sgprov"))


def test_links_and_dots_are_followed_as_the_kernel_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_one = directory(tmp_path / "open", 0o777)
    directory(open_one / "deep")
    (tmp_path / "link").symlink_to("open/deep")
    for path in (f"{tmp_path}/link", f"{tmp_path}/link/../x", f"{tmp_path}/./open//deep/"):
        with pytest.raises(UntrustedPath):
            trust.require(path)
    directory(tmp_path / "sticky", 0o1777)
    (tmp_path / "sticky" / "here").symlink_to(".")
    for path in ("sticky", "sticky/here", "sticky/here/../sticky", "sticky/x/.."):
        directory(tmp_path / "sticky" / "x") if path.endswith("/..") else None
        with pytest.raises(UntrustedPath, match="open to all"):
            trust.require(f"{tmp_path}/{path}")
    trust.require(f"{tmp_path}/sticky/here/x")
    monkeypatch.chdir(open_one)
    with pytest.raises(UntrustedPath):
        trust.require("deep")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UntrustedPath, match="too many"):
        trust.require(f"{tmp_path}/loop/x")


def a_link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def a_dangling_link(path: Path, victim: Path) -> None:
    path.symlink_to(victim.with_name("made-elsewhere"))


def a_hard_link(path: Path, victim: Path) -> None:
    path.hardlink_to(victim)


def a_pipe(path: Path, _: Path) -> None:
    os.mkfifo(path)


def a_directory(path: Path, _: Path) -> None:
    path.mkdir()


def an_open_file(path: Path, _: Path) -> None:
    path.write_text("planted")
    path.chmod(0o666)


def a_strangers_file(path: Path, _: Path) -> None:
    path.write_text("planted")
    given(path)


PLANTED = [
    *(a_link, a_dangling_link, a_hard_link, a_pipe, a_directory, an_open_file),
    pytest.param(a_strangers_file, marks=pytest.mark.attack),
]
Plant = Callable[[Path, Path], None]


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = directory(tmp_path / "elsewhere", 0o700) / "victim"
    path.write_text("untouched")
    return path


@pytest.mark.parametrize("plant", PLANTED)
@pytest.mark.tried(KIND, "State replaced by a link, hard link, pipe, directory, or a file of another user's: read")
def test_planted_state_is_not_read(tmp_path: Path, host: LocalHost, victim: Path, plant: Plant) -> None:
    plant(tmp_path / "server.json", victim)
    with pytest.raises(UntrustedPath) as refused:
        host.read_state(f"{tmp_path}/server.json")
    assert f"{tmp_path}/server.json" in str(refused.value) and refused.value.hint
    assert "untouched" not in str(refused.value)


@pytest.mark.parametrize("plant", PLANTED)
@pytest.mark.tried(KIND, "A lock or log replaced by one of these: written")
def test_planted_logs_and_locks_are_not_written(tmp_path: Path, host: LocalHost, victim: Path, plant: Plant) -> None:
    plant(tmp_path / "server.log", victim)
    for flags in (os.O_RDWR | os.O_CREAT, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC):
        with pytest.raises(UntrustedPath):
            host.open_state(f"{tmp_path}/server.log", flags)
    with pytest.raises(UntrustedPath):
        host.start(["/bin/true"], log=f"{tmp_path}/server.log")
    assert victim.read_text() == "untouched" and names(victim.parent) == ["victim"]


@pytest.mark.parametrize("plant", PLANTED)
@pytest.mark.tried(KIND, "The same in place of what is written whole: replaced, and never followed")
def test_what_is_planted_is_replaced_and_not_followed(
    tmp_path: Path, host: LocalHost, victim: Path, plant: Plant
) -> None:
    path = tmp_path / "receipt.json"
    plant(path, victim)
    if plant is a_directory:
        with pytest.raises(StepFailed) as failed:
            host.write(str(path), "ours")
        assert f"rm -r {path}" in str(failed.value.hint)
        assert names(tmp_path) == ["elsewhere", "receipt.json"]
    else:
        host.write(str(path), "ours")
        assert path.read_text() == "ours" and path.lstat().st_uid == os.geteuid()
    assert victim.read_text() == "untouched" and names(victim.parent) == ["victim"]


@pytest.mark.attack
@pytest.mark.tried(KIND, "`current` as a link of another user's, or as something else than a link")
def test_only_links_of_ours_are_followed(tmp_path: Path, host: LocalHost) -> None:
    assert host.read_link(f"{tmp_path}/current") is None
    host.link(f"{tmp_path}/current", "environments/a")
    assert host.read_link(f"{tmp_path}/current") == "environments/a"
    given(tmp_path / "current")
    with pytest.raises(UntrustedPath):
        host.read_link(f"{tmp_path}/current")
    host.link(f"{tmp_path}/current", "environments/b")
    assert host.read_link(f"{tmp_path}/current") == "environments/b"
    directory(tmp_path / "previous")
    with pytest.raises(UntrustedPath, match="is a directory"):
        host.read_link(f"{tmp_path}/previous")


@pytest.mark.tried(KIND, "Anything written, made, linked or removed below a directory that others may write")
def test_nothing_is_changed_where_others_may_write(tmp_path: Path, host: LocalHost) -> None:
    open_one = directory(tmp_path / "open", 0o777)
    (open_one / "inner").mkdir()
    (open_one / "inner" / "kept").write_text("kept")
    for change in (
        lambda: host.write(f"{open_one}/inner/new", "x"),
        lambda: host.make_directory(f"{open_one}/inner/new"),
        lambda: host.make_directory(f"{open_one}/inner"),
        lambda: host.link(f"{open_one}/inner/new", "x"),
        lambda: host.remove(f"{open_one}/inner/kept"),
        lambda: host.open_state(f"{open_one}/inner/new", os.O_WRONLY | os.O_CREAT),
    ):
        with pytest.raises(UntrustedPath):
            change()
    assert names(open_one / "inner") == ["kept"]


@pytest.mark.tried(KIND, "A link in place of a tree that is removed, or inside of it")
def test_removing_follows_no_link(tmp_path: Path, host: LocalHost, victim: Path) -> None:
    (tmp_path / "environment").symlink_to(victim.parent)
    host.remove(f"{tmp_path}/environment")
    directory(tmp_path / "environment")
    (tmp_path / "environment" / "inside").symlink_to(victim.parent)
    host.remove(f"{tmp_path}/environment")
    assert victim.read_text() == "untouched" and not (tmp_path / "environment").exists()


def test_state_that_is_there_is_read_and_what_is_not_is_none(tmp_path: Path, host: LocalHost) -> None:
    assert host.read_state(f"{tmp_path}/no/such") is None
    host.write(f"{tmp_path}/a/b/state.json", "{}", mode=0o600)
    assert host.read_state(f"{tmp_path}/a/b/state.json") == "{}"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o755
    (tmp_path / "file").write_text("")
    assert host.read_state(f"{tmp_path}/file/below") is None
    (tmp_path / "huge").write_bytes(b"\0" * (9 << 20))
    with pytest.raises(StepFailed, match="larger"):
        host.read_state(f"{tmp_path}/huge")


@pytest.mark.attack
@pytest.mark.tried(KIND, "State that the caller may not look at is told from none")
def test_not_permitted_is_not_not_there(tmp_path: Path) -> None:
    closed = directory(tmp_path / "closed", 0o700)
    (closed / "state").write_text("secret")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        # A process of its own: the user of this one is pytest's.
        said = "nothing was refused"
        try:
            os.chdir(closed)
            os.setuid(STRANGER)
            trust.require("state/x")
        except (NotPermitted, UntrustedPath) as error:
            said = error.code
        finally:
            os.write(writer, said.encode())
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    assert os.read(reader, 100).decode() in {"not-permitted", "untrusted-path"}
    os.close(reader)
