"""Using a bundle: verified first, unpacked only where its wheels are needed, or taken as a folder that tar made."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from provision.bundle import archive, model
from provision.bundle.archive import Tell, nobody
from provision.bundle.fetch import sha256_of
from provision.bundle.model import Manifest
from provision.errors import CheckFailed, UsageError
from provision.host import RESERVE_BYTES, Host, HostView

_BLOCK_BYTES = 1 << 20
_GB = 1e9


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
    """The bundle at `path` (a file, one of its parts, or the folder that tar made of it), every byte hashed.

    Raises `CheckFailed` where a byte differs, something is missing, added, or named so that it would be written
    elsewhere; `UnsupportedHost` where it is for another architecture than `arch`.
    """
    if path.is_dir():
        return _verify_folder(path, arch, tell)
    with archive.opened(path) as stream:
        sealed = archive.check_seal(stream, path, tell)
        manifest, tar = archive.read_manifest(stream, sealed, path)
        if arch:
            model.check_arch(manifest, arch)
        for _ in archive.members(tar, manifest):
            # The names; the seal has answered for the contents.
            pass
    return Bundle(path=path, manifest=manifest, digest=sealed)


def unpack(host: Host, bundle: Bundle, prefix: str, tell: Tell = nobody) -> Path:
    """Its files in a folder under the prefix; what an interrupted call left whole is kept. Raises `CheckFailed`."""
    if bundle.folder:
        return bundle.folder
    place = bundle.place(prefix)
    _check_space(host, bundle, place)
    done = 0
    with archive.opened(bundle.path) as stream:
        _, tar = archive.read_manifest(stream, bundle.digest, bundle.path)
        for entry, content in archive.members(tar, bundle.manifest):
            target = place / entry.path
            if not target.is_file() or target.stat().st_size != entry.size or sha256_of(target) != entry.sha256:
                target.parent.mkdir(parents=True, exist_ok=True)
                digest = hashlib.sha256()
                with target.open("wb") as written:
                    while block := content.read(_BLOCK_BYTES):
                        written.write(block)
                        digest.update(block)
                if digest.hexdigest() != entry.sha256:
                    raise CheckFailed(f"`{entry.path}` of the bundle is not what its manifest says")
            done += entry.size
            tell(done, bundle.manifest.size)
    return place


def downloads_list(prefix: str) -> str:
    """The file that makes uv take its Python from the bundle."""
    return f"{prefix}/python-of-bundle.json"


def list_python(host: Host, bundle: Bundle, folder: Path, prefix: str) -> None:
    """Write that file, where the bundle holds an interpreter."""
    packed = bundle.manifest.interpreter
    if packed is None:
        return
    entry = next(entry for entry in bundle.manifest.files if entry.path == packed.path)
    major, minor, patch = (int(number) for number in packed.version.split("."))
    row = {
        "name": "cpython",
        "arch": {"family": bundle.manifest.arch, "variant": None},
        "os": "linux",
        "libc": "gnu",
        "major": major,
        "minor": minor,
        "patch": patch,
        "prerelease": "",
        "url": (folder / packed.path).absolute().as_uri(),
        "sha256": entry.sha256,
        "variant": None,
        "build": None,
    }
    rows = {f"cpython-{packed.version}-linux-{bundle.manifest.arch}-gnu": row}
    host.write(downloads_list(prefix), json.dumps(rows))


def _verify_folder(path: Path, arch: str | None, tell: Tell) -> Bundle:
    folder = path / model.TOP if (path / model.TOP).is_dir() else path
    try:
        head = (folder / model.MANIFEST).read_bytes()
        sealed = (folder / model.SEAL).read_text().split()[-1]
    except (OSError, IndexError, UnicodeDecodeError):
        raise UsageError(f"`{path}` is not an unpacked bundle", hint="`tar -xf FILE` unpacks one") from None
    if hashlib.sha256(head).hexdigest() != sealed:
        raise CheckFailed(f"the manifest in `{folder}` is not the one that was sealed")
    manifest = model.parse(head)
    if arch:
        model.check_arch(manifest, arch)
    done = 0
    for entry in manifest.files:
        file = folder / entry.path
        if file.is_symlink() or not file.is_file() or sha256_of(file) != entry.sha256:
            state = "was changed or damaged" if file.exists() else "is missing"
            raise CheckFailed(f"`{file}` {state}", hint="unpack the bundle again, or copy it again")
        done += entry.size
        tell(done, manifest.size)
    listed = {entry.path for entry in manifest.files} | {model.MANIFEST, model.SEAL}
    added = [
        found.relative_to(folder).as_posix()
        for found in folder.rglob("*")
        if not found.is_dir() and found.relative_to(folder).as_posix() not in listed
    ]
    if added:
        raise CheckFailed(f"`{folder}` holds what its manifest does not list: {', '.join(sorted(added)[:3])}")
    return Bundle(path=path, manifest=manifest, digest=sealed, folder=folder.absolute())


def _check_space(view: HostView, bundle: Bundle, place: Path) -> None:
    disk = view.disk(str(place))
    there = sum(file.stat().st_size for file in place.rglob("*") if file.is_file()) if place.exists() else 0
    needed = bundle.manifest.size - there + RESERVE_BYTES
    if disk and disk.free < needed:
        raise CheckFailed(
            f"the bundle needs {needed / _GB:.1f} GB at `{place.parent}`, {disk.free / _GB:.1f} GB are free",
            hint="unpack it on another disk with tar, and give the folder instead of the file",
        )
