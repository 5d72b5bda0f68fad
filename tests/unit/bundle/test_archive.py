"""A bundle's file: sealed, split, joined, and refused for one byte, a climbing name or the wrong architecture."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest
from fakes import untar
from hypothesis import given
from hypothesis import strategies as st

from provision.bundle import archive, model, reading, use
from provision.bundle.model import Entry, Manifest
from provision.errors import CheckFailed, UnsupportedHost, UsageError
from provision.host.local import LocalHost

FILES = {
    "install.sh": b"#!/bin/sh\n",
    "tool/uv-1-py3-none-any.whl": b"u" * 700,
    # Longer than a plain tar header holds.
    f"wheels/{'long_' * 24}-1.0-py3-none-any.whl": b"w" * 5000,
    "wheels/empty-1.0-py3-none-any.whl": b"",
}


def entry(path: str, content: bytes) -> Entry:
    return Entry(path=path, sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def manifest(files: dict[str, bytes] = FILES, *, arch: str = "x86_64") -> Manifest:
    return Manifest(
        schema=model.SCHEMA,
        sgprov="0.0.9",
        arch=arch,
        pythons=("3.11",),
        files=tuple(entry(path, content) for path, content in files.items()),
        target="cpu",
    )


def made(folder: Path, *, part_bytes: int | None = None, arch: str = "x86_64") -> Path:
    for name, content in FILES.items():
        place = folder / "staging" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    path = folder / "cpu.tar"
    archive.write(path, manifest(arch=arch), folder / "staging", part_bytes=part_bytes)
    return path


def test_what_was_sealed_is_whole_and_always_the_same(tmp_path: Path) -> None:
    path = made(tmp_path)
    found = use.verify(path, arch="x86_64")
    assert found.manifest == manifest()
    assert path.read_bytes() == made(tmp_path).read_bytes()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["cpu.tar", "staging"], "nothing half-made is left"


@pytest.mark.parametrize("step", [0, 257])
def test_one_byte_that_differs_is_refused_wherever_it_is(tmp_path: Path, step: int) -> None:
    path = made(tmp_path)
    whole = path.read_bytes()
    assert len(whole) % tarfile.RECORDSIZE == 0
    for place in range(step, len(whole), 509):
        changed = bytearray(whole)
        changed[place] ^= 0x20
        path.write_bytes(changed)
        with pytest.raises(CheckFailed):
            use.verify(path)


@given(place=st.integers(0, 10**6), other=st.integers(1, 255))
def test_any_byte(place: int, other: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = made(tmp_path_factory.mktemp("any"))
    changed = bytearray(path.read_bytes())
    changed[place % len(changed)] ^= other
    path.write_bytes(changed)
    with pytest.raises(CheckFailed):
        use.verify(path)


@pytest.mark.parametrize("cut", [1, 512, 10240, 15000])
def test_one_that_was_cut_short_or_went_on_is_refused(tmp_path: Path, cut: int) -> None:
    path = made(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with pytest.raises(CheckFailed):
        use.verify(path)
    path.write_bytes(whole + bytes(cut))
    with pytest.raises(CheckFailed):
        use.verify(path)


def test_what_is_no_bundle_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "wheel.tar").write_bytes(b"PK" * 20000)
    with pytest.raises(CheckFailed, match="does not end as a bundle does"):
        use.verify(tmp_path / "wheel.tar")
    with pytest.raises(UsageError, match="there is no bundle at"):
        use.verify(tmp_path / "nothing.tar")
    with pytest.raises(UsageError, match="is not an unpacked bundle"):
        use.verify(tmp_path)


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path, arch="aarch64")
    assert use.verify(path).manifest.arch == "aarch64"
    with pytest.raises(UnsupportedHost, match="the bundle is for aarch64, this machine is x86_64") as caught:
        use.verify(path, arch="x86_64")
    assert caught.value.exit_status == 3


# --- names that lead out: sealed well, so that only the name speaks against them


def sealed(path: Path, name: str, *, kind: bytes = tarfile.REGTYPE, listed: bool = True) -> None:
    """A bundle made by hand, with a seal that holds, and one member of that name."""
    content = b"evil"
    inside = manifest({name: content} if listed else {})
    head = model.render(inside)
    buffer = io.BytesIO()
    with tarfile.open(mode="w", fileobj=buffer, format=tarfile.GNU_FORMAT) as tar:
        for member, data in ((model.MANIFEST, head), (name, content)):
            header = tarfile.TarInfo(f"{model.TOP}/{member}" if not member.startswith("/") else member)
            header.size, header.mode = len(data), 0o644
            if member == name:
                header.type = kind
                header.linkname = "/etc/passwd" if kind != tarfile.REGTYPE else ""
                header.size = len(data) if kind == tarfile.REGTYPE else 0
            tar.addfile(header, io.BytesIO(data))
        seal = reading.seal(hashlib.sha256(buffer.getvalue()).hexdigest(), hashlib.sha256(head).hexdigest())
        tar.addfile(reading.header(model.SEAL, len(seal)), io.BytesIO(seal))
    path.write_bytes(buffer.getvalue())


def test_a_bundle_made_by_hand_is_taken_if_its_names_are_good(tmp_path: Path) -> None:
    sealed(tmp_path / "hand.tar", "wheels/good.whl")
    assert use.verify(tmp_path / "hand.tar").manifest.size == 4


@pytest.mark.parametrize(
    "name", ["../evil", "wheels/../../evil", "/etc/evil", "wheels//evil", "./evil", "a\\..\\b", "a\nb"]
)
@pytest.mark.parametrize("listed", [True, False])
def test_a_name_that_climbs_out_is_refused(tmp_path: Path, name: str, listed: bool) -> None:
    sealed(tmp_path / "evil.tar", name, listed=listed)
    with pytest.raises(CheckFailed):
        use.verify(tmp_path / "evil.tar")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_what_is_no_plain_file_is_refused(tmp_path: Path, kind: bytes) -> None:
    sealed(tmp_path / "evil.tar", "wheels/good.whl", kind=kind)
    with pytest.raises(CheckFailed, match="does not list"):
        use.verify(tmp_path / "evil.tar")


def test_a_file_that_is_not_listed_is_refused(tmp_path: Path) -> None:
    sealed(tmp_path / "evil.tar", "wheels/more.whl", listed=False)
    with pytest.raises(CheckFailed, match="does not list"):
        use.verify(tmp_path / "evil.tar")


# --- parts


def test_parts_are_of_the_given_size_and_read_as_one(tmp_path: Path) -> None:
    (tmp_path / "cpu.tar.part99").write_text("of an earlier one")
    path = made(tmp_path, part_bytes=7000)
    parts = reading.parts_of(path)
    assert [part.name for part in parts] == [f"cpu.tar.part{number:02d}" for number in range(1, len(parts) + 1)]
    assert [part.stat().st_size for part in parts[:-1]] == [7000] * (len(parts) - 1)
    assert not path.exists()
    for named in (path, parts[0], parts[-1]):
        assert use.verify(named).manifest == manifest()
    joined = tmp_path / "joined.tar"
    archive.join(parts, joined)
    assert use.verify(joined).manifest == manifest()
    other = tmp_path / "other"
    other.mkdir()
    assert joined.read_bytes() == made(other).read_bytes()


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    path = made(tmp_path, part_bytes=7000)
    reading.parts_of(path)[1].unlink()
    with pytest.raises(UsageError, match=r"part `cpu.tar.part02` of the bundle is missing"):
        use.verify(path)


def test_a_missing_last_part_is_noticed(tmp_path: Path) -> None:
    path = made(tmp_path, part_bytes=7000)
    reading.parts_of(path)[-1].unlink()
    with pytest.raises(CheckFailed):
        use.verify(path)


# --- unpacked


def host(folder: Path) -> LocalHost:
    return LocalHost({"PATH": os.environ["PATH"], "HOME": str(folder)})


def test_unpacked_where_it_is_needed_and_gone_on_with_after_an_interruption(tmp_path: Path) -> None:
    bundle = use.verify(made(tmp_path))
    place = use.unpack(host(tmp_path), bundle, str(tmp_path / "prefix"))
    assert {name: (place / name).read_bytes() for name in FILES} == FILES
    first = place / "wheels/empty-1.0-py3-none-any.whl"
    before = (place / "install.sh").stat().st_mtime_ns
    first.write_bytes(b"half")
    assert use.unpack(host(tmp_path), bundle, str(tmp_path / "prefix")) == place
    assert first.read_bytes() == b""
    assert (place / "install.sh").stat().st_mtime_ns == before, "what was whole was kept"


def unpacked(folder: Path) -> Path:
    untar(made(folder), folder / "out")
    return folder / "out" / model.TOP


def test_the_folder_that_tar_made_is_as_good_as_the_file(tmp_path: Path) -> None:
    there = unpacked(tmp_path)
    for named in (there, there.parent):
        found = use.verify(named, arch="x86_64")
        assert (found.folder, found.manifest) == (there, manifest())
    assert found.digest == use.verify(tmp_path / "cpu.tar").digest


@pytest.mark.parametrize("how", ["changed", "missing", "added", "linked", "manifest"])
def test_a_folder_in_which_something_differs_is_refused(tmp_path: Path, how: str) -> None:
    there = unpacked(tmp_path)
    uv = there / "tool/uv-1-py3-none-any.whl"
    if how == "changed":
        uv.write_bytes(b"v" + uv.read_bytes()[1:])
    elif how == "missing":
        uv.unlink()
    elif how == "added":
        (there / "wheels/more.whl").write_text("more")
    elif how == "linked":
        uv.rename(tmp_path / "uv")
        uv.symlink_to(tmp_path / "uv")
    else:
        head = there / model.MANIFEST
        head.write_bytes(head.read_bytes().replace(b'"cpu"', b'"gb10"'))
    with pytest.raises(CheckFailed):
        use.verify(there)


def test_a_full_disk_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = use.verify(made(tmp_path))
    monkeypatch.setattr(use, "RESERVE_BYTES", 10**18)
    with pytest.raises(CheckFailed, match="the bundle needs"):
        use.unpack(host(tmp_path), bundle, str(tmp_path / "prefix"))
    assert not (tmp_path / "prefix").exists()
