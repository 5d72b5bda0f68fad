"""Using a bundle: verified first, unpacked only where its wheels are needed, or taken as a folder that tar made."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from provision import trust
from provision.bundle import known, model, reading
from provision.bundle.fetch import sha256_of
from provision.bundle.model import Entry, Manifest
from provision.bundle.reading import BLOCK_BYTES, Tell, nobody
from provision.errors import CheckFailed, ProvisionError, StepFailed, UsageError
from provision.host import RESERVE_BYTES, Host, HostView

_GB = 1e9
_AGAIN = "unpack the bundle again, or copy it again"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle that was verified: every byte is as it was sealed. `digest` is the sha256 of its manifest, `folder` is
    set where it lies unpacked already.
    """

    path: Path
    manifest: Manifest
    digest: str
    folder: Path | None = None

    def place(self, prefix: str) -> Path:
        """Where it lies unpacked, or will."""
        return self.folder or Path(prefix, f"bundle-{self.digest[:12]}")


def verify(path: Path, *, arch: str | None = None, tell: Tell = nobody) -> Bundle:
    """The bundle at `path` (a file, one of its parts, or the folder that tar made of it), every byte compared.

    Raises `CheckFailed` where a byte differs, something is missing, added, or named so that it would be written
    elsewhere, or where it holds other wheels than its lock pins or a Python that nobody knows; `UnsupportedHost` where
    it is for another architecture than `arch`.
    """
    if path.is_dir():
        found = _verify_folder(path, arch, tell)
    else:
        with reading.opened(path) as stream:
            manifest, digest = reading.check(stream, path, arch=arch, tell=tell)
        found = Bundle(path=path, manifest=manifest, digest=digest)
    known.check(found.manifest)
    return found


def unpack(host: Host, bundle: Bundle, prefix: str, tell: Tell = nobody) -> Path:
    """Its files in a folder under the prefix; what an interrupted call left whole is kept. Raises `CheckFailed`."""
    if bundle.folder:
        return bundle.folder
    place = bundle.place(prefix)
    _check_space(host, bundle, place)
    try:
        _unpack(bundle, place, tell)
    except OSError as error:
        raise StepFailed(
            f"the bundle cannot be unpacked into `{place}`: {error.strerror or error}",
            hint="free space there and run it again: what is whole is kept; or unpack it on another disk with tar, "
            "and give the folder instead of the file",
        ) from error
    except CheckFailed:
        # What was refused leaves nothing behind.
        host.remove(str(place))
        raise
    return place


def _unpack(bundle: Bundle, place: Path, tell: Tell) -> None:
    done = 0
    with reading.opened(bundle.path) as stream:
        manifest, start = reading.read_manifest(stream, bundle.digest, bundle.path)
        for entry, blocks in reading.contents(stream, manifest, start):
            target = place / entry.path
            _own_folders(place, target.parent)
            if not _is_whole(target, entry):
                _write(target, blocks)
            done += entry.size
            tell(done, manifest.size)


def _own_folders(place: Path, folder: Path) -> None:
    """Make both, as folders and not as links to others."""
    place.parent.mkdir(parents=True, exist_ok=True)
    for one in (place, *((folder,) if folder != place else ())):
        one.mkdir(exist_ok=True)
        if not stat.S_ISDIR(one.lstat().st_mode):
            raise StepFailed(f"`{one}` is not a directory of sgprov's", hint=f"see what it is, then `rm {one}`")
    trust.require(str(folder))


def _is_whole(target: Path, entry: Entry) -> bool:
    try:
        info = target.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(info.st_mode) and info.st_size == entry.size and sha256_of(target) == entry.sha256


def _write(target: Path, blocks: Iterator[bytes]) -> None:
    target.unlink(missing_ok=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    try:
        with os.fdopen(descriptor, "wb") as written:
            for block in blocks:
                written.write(block)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def downloads_list(prefix: str) -> str:
    """The file that makes uv take its Python from the bundle."""
    return f"{prefix}/python-of-bundle.json"


def list_python(host: Host, bundle: Bundle, folder: Path, prefix: str) -> None:
    """Write that file, where the bundle holds an interpreter: with the hash that sgprov knows, not the bundle's."""
    packed = bundle.manifest.interpreter
    if packed is None:
        return
    python = known.python_of(bundle.manifest)
    major, minor, patch = (int(number) for number in python.version.split("."))
    row = {
        "name": "cpython",
        "arch": {"family": python.arch, "variant": None},
        "os": "linux",
        "libc": "gnu",
        "major": major,
        "minor": minor,
        "patch": patch,
        "prerelease": "",
        "url": (folder / packed.path).absolute().as_uri(),
        "sha256": python.sha256,
        "variant": None,
        "build": None,
    }
    rows = {f"cpython-{python.version}-linux-{python.arch}-gnu": row}
    host.write(downloads_list(prefix), json.dumps(rows))


def _verify_folder(path: Path, arch: str | None, tell: Tell) -> Bundle:
    folder = path / model.TOP if (path / model.TOP).is_dir() else path
    head, sealed = _head_of(folder, path)
    if hashlib.sha256(head).hexdigest() != sealed:
        raise CheckFailed(f"the manifest in `{folder}` is not the one that was sealed")
    manifest = model.parse(head)
    if arch:
        model.check_arch(manifest, arch)
    _check_listed(folder, manifest)
    done = 0
    for entry in manifest.files:
        _check_file(folder / entry.path, entry)
        done += entry.size
        tell(done, manifest.size)
    return Bundle(path=path, manifest=manifest, digest=sealed, folder=folder.absolute())


def _head_of(folder: Path, path: Path) -> tuple[bytes, str]:
    """The manifest of an unpacked bundle as it lies there, and the sha256 that its seal says of it."""
    try:
        head = _plain(folder / model.MANIFEST, model.MOST_MANIFEST_BYTES)
        sealed = _plain(folder / model.SEAL, BLOCK_BYTES).decode().split()[-1]
    except (OSError, IndexError, UnicodeDecodeError):
        raise UsageError(f"`{path}` is not an unpacked bundle", hint="`tar -xf FILE` unpacks one") from None
    return head, sealed


def _plain(file: Path, most: int) -> bytes:
    with reading.open_plain(file, os.O_NOFOLLOW) as stream:
        return stream.read(most)


def _check_listed(folder: Path, manifest: Manifest) -> None:
    """Raises `CheckFailed` for anything in the folder that the manifest does not list: files, links, directories."""
    files = {entry.path for entry in manifest.files} | {model.MANIFEST, model.SEAL}
    folders = {name.rpartition("/")[0] for name in files}
    added = []
    for place, directories, names in os.walk(folder):
        inside = Path(place).relative_to(folder)
        # A link to a directory is a directory to `os.walk`, and to nobody who checks what is in it.
        added += [
            (inside / name).as_posix()
            for name in directories
            if (inside / name).as_posix() not in folders or Path(place, name).is_symlink()
        ]
        added += [(inside / name).as_posix() for name in names if (inside / name).as_posix() not in files]
    if added:
        raise CheckFailed(
            f"`{folder}` holds what its manifest does not list: {', '.join(ascii(name) for name in sorted(added)[:3])}"
        )


def _check_file(file: Path, entry: Entry) -> None:
    digest, size = hashlib.sha256(), 0
    try:
        with reading.open_plain(file, os.O_NOFOLLOW) as stream:
            while block := stream.read(BLOCK_BYTES):
                digest.update(block)
                size += len(block)
    except FileNotFoundError:
        raise CheckFailed(f"`{file}` is missing", hint=_AGAIN) from None
    except (OSError, ProvisionError) as error:
        raise CheckFailed(f"`{file}` is not the regular file that the bundle has", hint=_AGAIN) from error
    if size != entry.size or digest.hexdigest() != entry.sha256:
        raise CheckFailed(f"`{file}` was changed or damaged", hint=_AGAIN)


def _check_space(view: HostView, bundle: Bundle, place: Path) -> None:
    disk = view.disk(str(place))
    there = sum(file.stat().st_size for file in place.rglob("*") if file.is_file()) if place.exists() else 0
    needed = bundle.manifest.size - there + RESERVE_BYTES
    if disk and disk.free < needed:
        raise CheckFailed(
            f"the bundle needs {needed / _GB:.1f} GB at `{place.parent}`, {disk.free / _GB:.1f} GB are free",
            hint="unpack it on another disk with tar, and give the folder instead of the file",
        )
