"""Bundles that somebody else made: every hash and the seal hold, and only what they say speaks against them."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from fakes import untar
from unit.bundle.test_archive import FILES, entry, manifest

from provision import __version__
from provision.bundle import archive, create, model, reading, use
from provision.bundle.carried import Carried
from provision.bundle.model import Archive, Manifest
from provision.catalog.shipped import folder
from provision.config import Options
from provision.errors import CheckFailed, StepFailed, UsageError
from provision.host.local import LocalHost
from provision.locks.lockfile import Lock, available

pytestmark = pytest.mark.usefixtures("real_machine")
ROOT = Path(__file__).parents[2]
EVIL = b"#!/bin/sh\ntouch /tmp/evil\n"


def render(path: Path, head: bytes, members: list[tuple[tarfile.TarInfo, bytes]], *, behind: bytes = b"") -> Path:
    """A bundle of any bytes as its manifest and any members, sealed as one should be."""
    buffer = io.BytesIO()
    with tarfile.open(mode="w", fileobj=buffer, format=tarfile.GNU_FORMAT) as tar:
        for info, content in [(reading.header(model.MANIFEST, len(head)), head), *members]:
            tar.addfile(info, io.BytesIO(content))
        buffer.write(behind)
        tar.offset += len(behind)
        end = reading.seal(hashlib.sha256(buffer.getvalue()).hexdigest(), hashlib.sha256(head).hexdigest())
        tar.addfile(reading.header(model.SEAL, len(end)), io.BytesIO(end))
    path.write_bytes(buffer.getvalue())
    return path


def plain(files: dict[str, bytes]) -> list[tuple[tarfile.TarInfo, bytes]]:
    return [(reading.header(name, len(content)), content) for name, content in files.items()]


def info(
    name: str, kind: bytes = tarfile.REGTYPE, *, size: int = 0, link: str = "", top: bool = True
) -> tarfile.TarInfo:
    found = tarfile.TarInfo(f"{model.TOP}/{name}" if top else name)
    found.type, found.size, found.linkname = kind, size, link
    return found


def refused(path: Path) -> str:
    """That neither verifying nor joining nor unpacking takes it, and that nothing is written."""
    before = sorted(path.parent.rglob("*"))
    for taken in (use.verify, lambda one: archive.join((one,), one.with_name("joined.tar"))):
        with pytest.raises((CheckFailed, UsageError)) as caught:
            taken(path)
        assert str(caught.value).isprintable(), "nothing that a terminal would obey is shown"
    assert sorted(path.parent.rglob("*")) == before
    return str(caught.value)


def test_one_made_by_hand_is_taken_where_nothing_speaks_against_it(tmp_path: Path) -> None:
    """Otherwise the tries below would prove nothing."""
    path = render(tmp_path / "hand.tar", model.render(manifest()), plain(FILES))
    assert use.verify(path).manifest == manifest()


NAMES = [
    *("../evil", "wheels/../../evil.whl", "/etc/evil", "wheels//evil.whl", "./evil", "wheels/./a.whl", "a\\..\\b"),
    *("wheels/a\n.whl", "wheels/a\x1b[2J.whl", "wheels/a\u202efig.whl", "wheels/\u2066a.whl", "wheels/a\u200b.whl"),
    *("wheels/a\x7f.whl", "wheels/a\x85.whl", "wheels/ü.whl", "wheels/.hidden.whl", "wheels/-rf.whl", "", ".", ".."),
    *("MANIFEST.json", "SEAL", "manifest.json", "tool/evil.sh", "wheels/evil.pth", "python/evil.so", "evil/evil.whl"),
    *("wheels/sub/evil.whl", "tool", "wheels", "install.sh/evil.whl", "wheels/evil.whl ", " wheels/evil.whl"),
    *("wheels/" + "a" * 300 + ".whl", "tool/requirements-3.11.txt.whl/../x", "C:evil", "wheels/\udcff.whl"),
]


@pytest.mark.tried(
    "hostile bundle", "a file with a name that leads out, hides, reads from right to left, or no bundle has"
)
@pytest.mark.parametrize("name", NAMES)
def test_a_name(tmp_path: Path, name: str) -> None:
    head = msgspec.json.encode(manifest({}) and msgspec.structs.replace(manifest({}), files=(entry("@@", EVIL),)))
    escaped = msgspec.json.encode(name) if name.isprintable() or "\udcff" not in name else b'"wheels/\\udcff.whl"'
    path = render(tmp_path / "evil.tar", head.replace(b'"@@"', escaped), plain({}))
    refused(path)


@pytest.mark.tried("hostile bundle", "two files of one name, or of names that differ in case only")
@pytest.mark.parametrize("other", ["wheels/evil.whl", "wheels/EVIL.whl", "wheels/evil.WHL"])
def test_a_name_twice(tmp_path: Path, other: str) -> None:
    files = (entry("wheels/evil.whl", EVIL), entry(other, b"other"))
    head = model.render(msgspec.structs.replace(manifest(), files=files))
    members = [*plain({"wheels/evil.whl": EVIL}), *plain({other: b"other"})]
    refused(render(tmp_path / "evil.tar", head, members))


KINDS = {
    "symbolic link": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
    "FIFO": tarfile.FIFOTYPE,
    "character device": tarfile.CHRTYPE,
    "block device": tarfile.BLKTYPE,
    "directory": tarfile.DIRTYPE,
    "contiguous file": tarfile.CONTTYPE,
    "file with holes": tarfile.GNUTYPE_SPARSE,
    "extended header": tarfile.XHDTYPE,
    "global header": tarfile.XGLTYPE,
    "old file": tarfile.AREGTYPE,
}


@pytest.mark.tried(
    "hostile bundle", "a link, a device, a FIFO, a file with holes or an extended header in place of a file"
)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_plain_file(tmp_path: Path, kind: str) -> None:
    head = model.render(manifest({"wheels/evil.whl": b""}))
    member = info("wheels/evil.whl", KINDS[kind], link="/etc/passwd")
    refused(render(tmp_path / "evil.tar", head, [(member, b"")]))


@pytest.mark.tried("hostile bundle", "a long name, or a size, that would fill the memory of whoever reads it")
@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.REGTYPE])
def test_sizes_without_end(tmp_path: Path, kind: bytes) -> None:
    head = model.render(manifest())
    header = info("wheels/evil.whl", kind, size=1 << 39).tobuf(tarfile.GNU_FORMAT)
    refused(render(tmp_path / "evil.tar", head, [], behind=header))


@pytest.mark.tried("hostile bundle", "a manifest of a size without end, or of a depth without end")
@pytest.mark.parametrize("head", [b"[" * 200_000, b'{"schema":' * 50_000, b"\x00" * (5 << 20), b"\xff\xfe", b""])
def test_a_manifest_without_end(tmp_path: Path, head: bytes) -> None:
    refused(render(tmp_path / "evil.tar", head, []))


MORE: dict[str, Callable[[], list[tuple[tarfile.TarInfo, bytes]]]] = {
    "a second manifest": lambda: plain({**FILES, model.MANIFEST: b"{}"}),
    "a second seal": lambda: plain({**FILES, model.SEAL: b"seal"}),
    "a file behind the last": lambda: plain({**FILES, "wheels/evil.whl": EVIL}),
    "a file before the first": lambda: plain({"wheels/evil.whl": EVIL, **FILES}),
    "a file outside the folder": lambda: [*plain(FILES), (info("evil", size=len(EVIL), top=False), EVIL)],
    "another order": lambda: list(reversed(plain(FILES))),
    "a file less": lambda: plain(FILES)[1:],
    "another content": lambda: plain({**FILES, "tool/uv-1-py3-none-any.whl": b"v" * 700}),
    "a shorter content": lambda: plain({**FILES, "tool/uv-1-py3-none-any.whl": b"u" * 699}),
    "an owner": lambda: [(_owned(header), content) for header, content in plain(FILES)],
    "a mode": lambda: [(_moded(header), content) for header, content in plain(FILES)],
}


def _owned(header: tarfile.TarInfo) -> tarfile.TarInfo:
    header.uid, header.uname = 1000, "\x1b[2Jroot"
    return header


def _moded(header: tarfile.TarInfo) -> tarfile.TarInfo:
    header.mode = 0o4755
    return header


@pytest.mark.tried(
    "hostile bundle", "files that the manifest does not list, a second manifest, another content or order"
)
@pytest.mark.parametrize("what", MORE)
def test_what_the_manifest_does_not_say(tmp_path: Path, what: str) -> None:
    refused(render(tmp_path / "evil.tar", model.render(manifest()), MORE[what]()))


VALUES = {
    "python": [
        '"/tmp/evil"',
        '"3"',
        '"3.11\\n"',
        '"../3.11"',
        '"--help"',
        '"3.11; sh"',
        '["3.11"]',
        '"python3.11"',
        "3.11",
    ],
    "target": ['"../../etc"', '"cpu\\u001b[2J"', '"\\u202ecpu"', '"-t"', '""', '"a b"'],
    "lock": ['"../../../tmp/evil.txt"', '"/tmp/evil.txt"', '"evil\\n"'],
    "lock_digest": ['"0"', '"' + "G" * 64 + '"'],
    "arch": ['"../../.."', '"x86_64\\n"', '"riscv64"', "null"],
    "sgprov": ['"1; sh"', '"\\u001b]0;evil\\u0007"'],
    "stack": ['"[red]evil[/]"', '"$(id)"'],
    "pythons": ['["/tmp/evil"]', '"3.11"', '["3.11\\n"]'],
    "interpreter": [
        '{"path":"wheels/empty-1.0-py3-none-any.whl","version":"3.11.1"}',
        '{"path":"/tmp/x","version":"3.11.1"}',
    ],
    "schema": ['"sgprov.bundle/2"', '"\\u001b[2J"'],
    "extra\u202e": ["1"],
}


@pytest.mark.tried("hostile bundle", "a manifest with a path, an option, markup or control characters as a value")
@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in VALUES.items() for value in values])
def test_a_value(tmp_path: Path, key: str, value: str) -> None:
    raw = msgspec.json.decode(model.render(manifest()), type=dict[str, msgspec.Raw])
    raw[key] = msgspec.Raw(value.encode())
    refused(render(tmp_path / "evil.tar", msgspec.json.encode(raw), plain(FILES)))


# --- what holds by itself, and is not what this sgprov pins


def real_lock() -> Lock:
    return next(lock for lock in available(folder("lockfiles"), "sglang-0.5.23") if lock.arch == "x86_64")


def of_lock(files: dict[str, bytes], **more: object) -> Manifest:
    lock = real_lock()
    made = manifest(files)
    given = {
        "sgprov": __version__,
        "stack": lock.stack,
        "lock": lock.name,
        "lock_digest": lock.digest,
        "python": lock.python,
    }
    return msgspec.structs.replace(made, **{**given, **more})


def carried(path: Path, home: Path) -> Carried:
    host = LocalHost({"PATH": os.environ["PATH"], "HOME": str(home)})
    return Carried.open(host, path, Options(prefix=str(home / "prefix")))


def bomb() -> bytes:
    """A wheel of 700 bytes that says it unpacks to 3 GB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("evil/zeros", bytes(4096))
    raw = bytearray(buffer.getvalue())
    place = raw.index(b"PK\x01\x02") + 24
    raw[place : place + 4] = struct.pack("<I", 3_000_000_000)
    return bytes(raw)


@pytest.mark.tried(
    "hostile bundle", "a wheel that the lock does not pin: another's code, or one that unpacks to gigabytes"
)
@pytest.mark.parametrize("content", [EVIL, bomb()], ids=["another", "bomb"])
def test_a_wheel_that_nobody_pinned(tmp_path: Path, content: bytes) -> None:
    files = {"wheels/torch-2.14.1-cp311-cp311-linux_x86_64.whl": content}
    path = render(tmp_path / "evil.tar", model.render(of_lock(files)), plain(files))
    with pytest.raises(CheckFailed, match="is not a wheel that"):
        carried(path, tmp_path)
    with pytest.raises(CheckFailed, match="is not a wheel that"):
        use.verify(path)
    assert not (tmp_path / "prefix").exists()


@pytest.mark.tried("hostile bundle", "a wheel for sgprov itself that its own lock does not pin: another's, or a bomb")
@pytest.mark.parametrize("content", [EVIL, bomb()], ids=["another", "bomb"])
def test_a_tool_that_nobody_pinned(tmp_path: Path, content: bytes) -> None:
    files = {"tool/click-8.5.1-py3-none-any.whl": content}
    path = render(tmp_path / "evil.tar", model.render(of_lock(files, target=None)), plain(files))
    with pytest.raises(CheckFailed, match="own lock"):
        use.verify(path)


@pytest.mark.tried("hostile bundle", "a lock of its own, which pins what the bundle likes")
def test_a_lock_of_its_own(tmp_path: Path) -> None:
    files = {"wheels/evil-1.0-py3-none-any.whl": EVIL}
    path = render(tmp_path / "evil.tar", model.render(of_lock(files, lock_digest="0" * 64)), plain(files))
    with pytest.raises(UsageError, match="this one pins other wheels"):
        carried(path, tmp_path)
    assert not (tmp_path / "prefix").exists()


@pytest.mark.tried("hostile bundle", "a Python that only the bundle's own manifest pins")
@pytest.mark.parametrize("version", ["3.11.18", "3.11.99", "3.12.16"])
def test_a_python_that_nobody_knows(tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("provision.bundle.known._check_wheels", lambda *_: None)
    files = {"python/evil.tar.gz": EVIL}
    packed = Archive(path="python/evil.tar.gz", version=version)
    path = render(tmp_path / "evil.tar", model.render(of_lock(files, interpreter=packed)), plain(files))
    with pytest.raises(CheckFailed, match="has no hash that sgprov knows"):
        carried(path, tmp_path)
    assert not (tmp_path / "prefix").exists(), "what was refused left nothing"


# --- what stands in the place of a file


@pytest.mark.tried("hostile bundle", "a FIFO, a directory or a device as the bundle, a part or a file of its folder")
@pytest.mark.parametrize("where", ["bundle", "part", "folder", "manifest", "seal", "device"])
def test_what_never_ends(tmp_path: Path, where: str) -> None:
    path = tmp_path / "cpu.tar"
    files = tmp_path / "files"
    for name, content in FILES.items():
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).write_bytes(content)
    archive.write(path, manifest(), files, part_bytes=7000 if where == "part" else None)
    named = path
    if where == "bundle":
        path.unlink()
        os.mkfifo(path)
    elif where == "part":
        tmp_path.joinpath("cpu.tar.part02").unlink()
        os.mkfifo(tmp_path / "cpu.tar.part02")
    elif where == "device":
        path.unlink()
        path.symlink_to("/dev/zero")
    else:
        untar(path, tmp_path)
        named = tmp_path / model.TOP
        inside = {"folder": "tool/uv-1-py3-none-any.whl", "manifest": model.MANIFEST, "seal": model.SEAL}[where]
        (named / inside).unlink()
        os.mkfifo(named / inside)
    with pytest.raises((CheckFailed, UsageError)):
        use.verify(named)


@pytest.mark.tried("hostile bundle", "an unpacked bundle with a linked folder, a file more, or a FIFO in it")
@pytest.mark.parametrize("how", ["linked folder", "linked file", "hidden", "directory", "fifo", "bytecode", "socket"])
def test_a_folder_with_more_in_it(tmp_path: Path, how: str) -> None:
    files = tmp_path / "files"
    for name, content in FILES.items():
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).write_bytes(content)
    archive.write(tmp_path / "cpu.tar", manifest(), files)
    untar(tmp_path / "cpu.tar", tmp_path)
    there = tmp_path / model.TOP
    if how == "linked folder":
        (there / "wheels").rename(tmp_path / "wheels")
        (there / "wheels").symlink_to(tmp_path / "wheels")
    elif how == "linked file":
        (there / "wheels/more.whl").symlink_to("/etc/passwd")
    elif how == "directory":
        (there / "wheels/more").mkdir()
    elif how == "fifo":
        os.mkfifo(there / "wheels/more.whl")
    elif how == "socket":
        os.mknod(there / "wheels/more.whl", 0o600 | 0o140000)
    else:
        (there / {"hidden": ".pth", "bytecode": "tool/evil.pyc"}[how]).write_bytes(EVIL)
    with pytest.raises(CheckFailed):
        use.verify(there)


@pytest.mark.tried("shared directory", "a link in the place where a bundle is unpacked, written or collected")
@pytest.mark.parametrize("where", ["place", "folder", "file", "new", "staging", "output"])
def test_a_link_in_the_way(tmp_path: Path, where: str) -> None:
    path, victim = tmp_path / "cpu.tar", tmp_path / "victim"
    files, prefix = tmp_path / "files", tmp_path / "prefix"
    for name, content in FILES.items():
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).write_bytes(content)
    victim.mkdir()
    (victim / "file").write_text("mine")
    host = LocalHost({"PATH": os.environ["PATH"], "HOME": str(tmp_path)})
    if where in {"new", "staging", "output"}:
        name = {"new": ".cpu.tar.new", "staging": "cpu.tar.staging", "output": "cpu.tar"}[where]
        (tmp_path / name).symlink_to(victim if where == "staging" else victim / "file")
        if where == "new":
            archive.write(path, manifest(), files)
            assert use.verify(path).manifest == manifest()
        else:
            with pytest.raises(UsageError):
                create.create(host, create.Wanted(arch="x86_64"), path)
    else:
        archive.write(path, manifest(), files)
        bundle = use.verify(path)
        place = bundle.place(str(prefix))
        place.parent.mkdir()
        if where == "place":
            place.symlink_to(victim)
        elif where == "folder":
            place.mkdir()
            (place / "tool").symlink_to(victim)
        else:
            (place / "tool").mkdir(parents=True)
            (place / "tool/uv-1-py3-none-any.whl").symlink_to(victim / "file")
        with suppress(StepFailed):
            use.unpack(host, bundle, str(prefix))
    assert [one.name for one in victim.iterdir()] == ["file"] and (victim / "file").read_text() == "mine"
