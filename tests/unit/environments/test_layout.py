"""Whether an environment is whole is told from its stamp and one listing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import pytest
from fakes import FakeHost

from provision.environments import layout
from provision.locks.lockfile import Lock

LOCK_TEXT = "".join(
    f"{pin} \\\n    --hash=sha256:{'0' * 64}\n"
    for pin in ("torch==2.9.1", "typing-extensions==4.15.0", "date==2026.10.1")
)
FOLDERS = ("torch-2.9.1", "typing_extensions-4.15.0", "date-2026.10.1")


@pytest.fixture
def lock(tmp_path: Path) -> Lock:
    path = tmp_path / "engine-1.0.cp310.x86_64.txt"
    path.write_text(LOCK_TEXT)
    return Lock(path, "engine-1.0", "3.10", "x86_64")


def stamp(lock: Lock, path: str, **changes: str) -> str:
    whole = layout.Stamp(
        name=path.rsplit("/", 1)[-1],
        lock=lock.name,
        lock_digest=lock.digest,
        python="3.10.13",
        interpreter="/usr/bin/python3.10",
        sgprov="0",
        time="2026-01-01T00:00:00Z",
    )
    return msgspec.json.encode(msgspec.structs.replace(whole, **changes)).decode()


def machine(lock: Lock, path: str, folders: tuple[str, ...] = FOLDERS) -> FakeHost:
    site_packages = f"{path}/lib/python3.10/site-packages"
    return FakeHost(
        {
            f"{path}/.sgprov/stamp.json": stamp(lock, path),
            f"{path}/bin/python": "",
            **{f"{site_packages}/{folder}.dist-info/METADATA": "" for folder in folders},
        }
    )


def test_another_lock_is_another_directory(lock: Lock, tmp_path: Path) -> None:
    path = layout.path_for("/p", lock)
    assert path == f"/p/environments/engine-1.0-cp310-x86_64-{lock.digest[:12]}"
    other = tmp_path / "other.txt"
    other.write_text(LOCK_TEXT.replace("2.9.1", "2.9.2"))
    assert layout.path_for("/p", dataclasses.replace(lock, path=other)) != path


def test_whole(lock: Lock) -> None:
    path = layout.path_for("/p", lock)
    assert layout.is_stamped(machine(lock, path), path, lock)


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (FOLDERS[1:], ("torch==2.9.1",)),
        (("torch-2.9.0", *FOLDERS[1:]), ("torch==2.9.1",)),
        (("torch-2.9.1+cu128", *FOLDERS[1:]), ("torch==2.9.1",)),
        ((), ("torch==2.9.1", "typing-extensions==4.15.0", "date==2026.10.1")),
        (("torch-2.9.1", "typing-extensions-4.15.0", "date-2026.10.01"), ()),
        (("torch-2.9.1", "Typing.Extensions-4.15", "date-2026.10.1", "other-1"), ()),
    ],
)
def test_missing(lock: Lock, folders: tuple[str, ...], expected: tuple[str, ...]) -> None:
    path = layout.path_for("/p", lock)
    host = machine(lock, path, folders)
    assert layout.missing(host, path, lock) == expected
    assert layout.is_stamped(host, path, lock) == (not expected)


def test_not_whole_without_a_stamp_that_says_so(lock: Lock) -> None:
    path = layout.path_for("/p", lock)
    for text in (None, "", "{", "[]", '{"name": 1}', stamp(lock, path, lock_digest="0")):
        host = machine(lock, path)
        del host.files[f"{path}/.sgprov/stamp.json"]
        if text is not None:
            host.files[f"{path}/.sgprov/stamp.json"] = text
        assert not layout.is_stamped(host, path, lock), text


def test_not_whole_without_its_interpreter(lock: Lock) -> None:
    path = layout.path_for("/p", lock)
    host = machine(lock, path)
    del host.files[f"{path}/bin/python"]
    assert not layout.is_stamped(host, path, lock)


def test_list_names_the_newest_first_and_what_was_interrupted_last(lock: Lock) -> None:
    host = FakeHost({"/p/environments/broken/bin/python": ""})
    for name, time in (("old", "2026-01-01T00:00:00Z"), ("new", "2026-02-01T00:00:00Z")):
        host.files[f"/p/environments/{name}/.sgprov/stamp.json"] = stamp(lock, name, time=time)
    host.links = {"/p/current": "environments/old"}
    found = layout.list_environments(host, "/p")
    assert [(one.name, one.current, one.stamp is None) for one in found] == [
        ("new", False, False),
        ("old", True, False),
        ("broken", False, True),
    ]
