"""Bundles on disks that fill, in copies that break off, and under makers and takers that are killed."""

from __future__ import annotations

import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from attack.test_install_script import unpacked
from faults.stand_in import fill, small_disk
from unit.bundle.test_archive import FILES, host, made, manifest

from provision.bundle import archive, create, model, reading, use
from provision.bundle.model import Manifest
from provision.cli.bundle import _bytes
from provision.errors import CheckFailed, ProvisionError, StepFailed, UsageError

ROOT = Path(__file__).parents[2]
KIND = "half a bundle"
pytestmark = pytest.mark.usefixtures("real_machine")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT RUN: needs root, to mount a file system of its own")
LARGE = {**FILES, **{f"wheels/large{number}-1.0-py3-none-any.whl": bytes([number]) * 3_000_000 for number in range(8)}}


def staged(folder: Path, files: dict[str, bytes] = LARGE) -> tuple[Manifest, Path]:
    for name, content in files.items():
        place = folder / "files" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return manifest(files), folder / "files"


def holds(place: Path, files: dict[str, bytes] = LARGE) -> bool:
    return all((place / name).read_bytes() == content for name, content in files.items())


# --- outputs


OUTPUTS: dict[str, Callable[[Path], Path]] = {
    "a folder that is not there": lambda at: at / "nowhere/x.tar",
    "a folder": lambda at: made_folder(at / "x.tar"),
    "a file in place of a folder": lambda at: written(at / "file") / "x.tar",
    "another file": lambda at: written(at / "x.tar"),
    "another file of that name as a part": lambda at: written(at / "x.tar.part01").with_name("x.tar"),
    "a FIFO": lambda at: piped(at / "x.tar"),
    "a device": lambda at: linked(at / "x.tar", "/dev/full"),
    "a link to nothing": lambda at: linked(at / "x.tar", "nothing"),
}


def made_folder(path: Path) -> Path:
    path.mkdir()
    return path


def written(path: Path) -> Path:
    path.write_bytes(b"a thesis")
    return path


def piped(path: Path) -> Path:
    os.mkfifo(path)
    return path


def linked(path: Path, to: str) -> Path:
    path.symlink_to(to)
    return path


@pytest.mark.tried(
    "wrong output", "`bundle create` and `join` into what is no file of theirs: a folder, another's file, a FIFO"
)
@pytest.mark.parametrize("what", OUTPUTS)
def test_an_output_that_cannot_be_one_is_refused_at_once(tmp_path: Path, what: str) -> None:
    output = OUTPUTS[what](tmp_path)
    before = [(path, path.lstat()) for path in sorted(tmp_path.rglob("*"))]
    with pytest.raises(UsageError) as caught:
        create.create(host(tmp_path), create.Wanted(arch="x86_64"), output)
    assert "-o" in (caught.value.hint or "")
    if what != "another file of that name as a part":
        with pytest.raises(UsageError):
            archive.join((output,), output)
    assert [(path, path.lstat()) for path in sorted(tmp_path.rglob("*"))] == before, "nothing was fetched or touched"


@pytest.mark.tried("wrong output", "an output where an older bundle lies: it stays until the new one is whole")
@pytest.mark.parametrize("part_bytes", [None, 7000])
def test_an_older_bundle_makes_way_for_a_whole_one_only(tmp_path: Path, part_bytes: int | None) -> None:
    old = made(tmp_path, part_bytes=part_bytes)
    listed, files = staged(tmp_path / "new")
    (files / "wheels/large7-1.0-py3-none-any.whl").unlink()
    with pytest.raises(StepFailed):
        archive.write(old, listed, files)
    assert use.verify(old).manifest == manifest(), "what was there is there"
    staged(tmp_path / "new")
    for parts in (None, 5_000_000, 2_000_000):
        archive.write(old, listed, files, part_bytes=parts)
        assert use.verify(old).manifest == listed
        kept = {path.name for path in tmp_path.iterdir()} - {"new", "staging"}
        assert kept == {part.name for part in reading.parts_of(old)}, "and nothing of the one before it"


@pytest.mark.tried("wrong output", "parts of a size that makes millions of them, or none")
@pytest.mark.parametrize("size", ["0", "1", "1K", "-4G", "nan", "inf", "4T", "", "four", "1e9", "999999"])
def test_a_part_size_that_is_none(size: str) -> None:
    with pytest.raises(UsageError):
        _bytes(size)


def test_more_parts_than_two_digits_stay_in_order(tmp_path: Path) -> None:
    listed, files = staged(tmp_path)
    path = tmp_path / "x.tar"
    parts = archive.write(path, listed, files, part_bytes=200_000)
    assert len(parts) > 100 and sorted(part.name for part in parts) == [part.name for part in parts], (
        "as `cat` has them"
    )
    assert use.verify(parts[0]).manifest == listed


# --- copies


@pytest.mark.tried(KIND, "a copy that broke off anywhere")
@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999, 0.99999])
def test_a_copy_that_broke_off(tmp_path: Path, share: float) -> None:
    path = made(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckFailed) as caught:
        use.verify(path)
    assert caught.value.hint
    assert not (tmp_path / "prefix").exists()


@pytest.mark.tried(KIND, "a part that is damaged, cut, missing, empty, or of another bundle")
@pytest.mark.parametrize("how", ["damaged", "cut", "missing", "empty", "another's", "twice", "longer"])
@pytest.mark.parametrize("which", [0, 1, -1])
def test_a_part_that_is_wrong(tmp_path: Path, how: str, which: int) -> None:
    parts = reading.parts_of(made(tmp_path, part_bytes=7000))
    part = parts[which]
    content = part.read_bytes()
    other = parts[which - 1].read_bytes()
    changed = {
        "damaged": bytes([content[0] ^ 1]) + content[1:],
        "cut": content[:-1],
        "empty": b"",
        "another's": b"\1" * len(content),
        "twice": other,
        "longer": content + b"\0",
    }
    part.unlink() if how == "missing" else part.write_bytes(changed[how])
    joined = tmp_path / "joined.tar"
    with pytest.raises((CheckFailed, UsageError)) as caught:
        use.verify(next(one for one in parts if one.exists()))
    assert how != "missing" or which == -1 or part.name in str(caught.value), "the one that is missing is named"
    with pytest.raises((CheckFailed, UsageError)):
        archive.join(reading.parts_of(tmp_path / "cpu.tar"), joined)
    assert not joined.exists() and not list(tmp_path.glob(".*.new")), "and no half of it is left"


@pytest.mark.fault
@needs_root
@pytest.mark.tried(KIND, "parts on a disk that is mounted for reading only")
def test_parts_that_can_only_be_read(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", megabytes=8) as disk:
        parts = reading.parts_of(made(Path(disk), part_bytes=7000))
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        bundle = use.verify(parts[0])
        place = use.unpack(host(tmp_path), bundle, str(tmp_path / "prefix"))
        assert holds(place, FILES)
        assert archive.join(parts, tmp_path / "joined.tar") == manifest()
        with pytest.raises(ProvisionError) as caught:
            archive.join(parts, Path(disk, "joined.tar"))
        assert "-o" in (caught.value.hint or "")


# --- full disks


@pytest.mark.fault
@needs_root
@pytest.mark.tried("full disk", "a bundle that is written, joined or unpacked where there is no room for it")
@pytest.mark.parametrize("work", ["write", "parts", "join", "unpack"])
def test_a_disk_that_fills(tmp_path: Path, work: str, monkeypatch: pytest.MonkeyPatch) -> None:
    listed, files = staged(tmp_path)
    parts = archive.write(tmp_path / "here.tar", listed, files, part_bytes=5_000_000)
    # What is there when it starts says nothing of what is there later.
    monkeypatch.setattr(use, "RESERVE_BYTES", -(10**12))
    bundle = use.verify(parts[0])
    with small_disk(tmp_path / "disk", megabytes=12) as disk:
        there = Path(disk, "x.tar")
        do: dict[str, Callable[[], object]] = {
            "write": lambda: archive.write(there, listed, files),
            "parts": lambda: archive.write(there, listed, files, part_bytes=2_000_000),
            "join": lambda: archive.join(parts, there),
            "unpack": lambda: use.unpack(host(tmp_path), bundle, f"{disk}/prefix"),
        }
        with pytest.raises(StepFailed, match="No space left") as caught:
            do[work]()
        assert caught.value.hint
        if work != "unpack":
            assert list(Path(disk).iterdir()) == [], "no half of it takes the room that is left"
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        do[work]()
        assert holds(Path(bundle.place(f"{disk}/prefix"))) if work == "unpack" else use.verify(there).manifest == listed


@pytest.mark.fault
@needs_root
@pytest.mark.tried("full disk", "a disk without any room left before a bundle is collected beside it")
def test_a_disk_that_is_full(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", megabytes=1) as disk:
        fill(disk)
        with pytest.raises(StepFailed) as caught:
            create.create(host(tmp_path), create.Wanted(arch="x86_64"), Path(disk, "x.tar"))
        assert "Traceback" not in str(caught.value)
        assert not Path(disk, "x.tar").exists()


# --- killed


def moment(seed: int, earliest: float, latest: float) -> float:
    return random.Random(seed).uniform(earliest, latest)  # noqa: S311  # the same in each run


def killed(work: str, after_s: float) -> None:
    code = f"from pathlib import Path\nfrom provision.bundle import archive, reading, use\n{work}"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.fault
@pytest.mark.tried("killed at work", "whoever writes a bundle, at any moment, over an older one, and run again")
@pytest.mark.parametrize("seed", range(8))
def test_killed_while_it_is_written(tmp_path: Path, seed: int) -> None:
    listed, files = staged(tmp_path)
    old = made(tmp_path)
    (tmp_path / "manifest").write_bytes(model.render(listed))
    work = (
        "from provision.bundle import model\n"
        f"listed = model.parse(Path({str(tmp_path / 'manifest')!r}).read_bytes())\n"
        f"while True: archive.write(Path({str(old)!r}), listed, Path({str(files)!r}))\n"
    )
    killed(work, moment(seed, 0.3, 1.2))
    assert use.verify(old).manifest in {manifest(), listed}, "the old one or the new one, and never half"
    archive.write(old, listed, files, part_bytes=9_000_000)
    assert use.verify(old).manifest == listed
    assert not list(tmp_path.glob(".*")), "and nothing of the one that was killed"


@pytest.mark.fault
@pytest.mark.tried("killed at work", "whoever unpacks a bundle, at any moment, and run again")
@pytest.mark.parametrize("seed", range(8))
def test_killed_while_it_is_unpacked(tmp_path: Path, seed: int) -> None:
    listed, files = staged(tmp_path)
    path = tmp_path / "x.tar"
    archive.write(path, listed, files)
    work = (
        "import os\nfrom provision.host.local import LocalHost\n"
        f"bundle = use.verify(Path({str(path)!r}))\n"
        f"use.unpack(LocalHost({{'PATH': os.environ['PATH']}}), bundle, {str(tmp_path / 'prefix')!r})\n"
    )
    killed(work, moment(seed, 0.2, 0.7))
    place = use.unpack(host(tmp_path), use.verify(path), str(tmp_path / "prefix"))
    assert holds(place)
    assert sum(len(names) for _, _, names in os.walk(place)) == len(LARGE), "and nothing besides"


@pytest.mark.fault
@pytest.mark.tried("killed at work", "install.sh, at any moment, and run again")
@pytest.mark.parametrize("seed", range(6))
def test_the_script_killed(tmp_path: Path, seed: int) -> None:
    there, to = unpacked(tmp_path, tool()), tmp_path / "tool"
    command = ["sh", str(there / model.SCRIPT), "--tool-only", "--to", str(to)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    time.sleep(moment(seed, 0.02, 0.9))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    link = to / "bin/sgprov"
    assert not link.exists() or subprocess.run([link], capture_output=True, text=True, check=True).stdout == "whole\n"
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert subprocess.run([link], capture_output=True, text=True, check=True).stdout == "whole\n"
    assert [path.name for path in (to / "versions").iterdir()] == ["ab" * 6]


def tool() -> dict[str, bytes]:
    """sgprov's wheels in small: a `uv` that makes an environment slowly, in two pieces that both have to be there."""
    uv = b"""#!/bin/sh
case "$2" in
  venv) for last; do :; done; mkdir -p "$last/bin"; sleep 0.2 ;;
  pip) for word; do case $word in */bin/python) at=${word%/python} ;; esac; done
    printf '#!/bin/sh\\ncat "%s/rest"\\n' "$at" >"$at/sgprov"; chmod 755 "$at/sgprov"; sleep 0.2; echo whole >"$at/rest" ;;
esac
"""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("uv-1.data/scripts/uv", uv)
    pins = b"sgprov==0.1.0 --hash=sha256:" + b"ab" * 32 + b"\n"
    return {
        **{f"tool/requirements-3.{minor}.txt": pins for minor in range(10, 15)},
        "tool/uv-1-py3-none-any.whl": buffer.getvalue(),
    }


def test_the_digest_of_a_large_bundle_is_that_of_its_bytes(tmp_path: Path) -> None:
    """What the seal says of a bundle is what any other program says of it."""
    listed, files = staged(tmp_path)
    (path,) = archive.write(tmp_path / "x.tar", listed, files)
    with reading.opened(path) as stream:
        seal = reading.read_seal(stream, path)
    assert hashlib.sha256(path.read_bytes()[: seal.start]).hexdigest().encode() in seal.tail
