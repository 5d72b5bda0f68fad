"""What a bundle says of itself: the manifest, its first member."""

from __future__ import annotations

from pathlib import PurePosixPath

import msgspec

from provision.errors import CheckFailed, UnsupportedHost, UsageError

SCHEMA = "sgprov.bundle/1"
# Everything lies under this folder, so that `tar -x` of a bundle makes one folder and nothing else.
TOP = "sgprov-bundle"
MANIFEST = "MANIFEST.json"
SEAL = "SEAL"
WHEELS = "wheels"
TOOL = "tool"
PYTHON = "python"
SCRIPT = "install.sh"


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a bundle; `path` is relative to its top folder."""

    path: str
    sha256: str
    size: int


class Archive(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The interpreter in a bundle: a tarball with `python/` on top. `version` is full ("3.11.18")."""

    path: str
    version: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`python` is the stack's ("3.11"), `pythons` are those that the wheels of sgprov itself are for.

    A bundle without a `target` holds sgprov alone: what a fleet's hosts get first.
    """

    schema: str
    sgprov: str
    arch: str
    pythons: tuple[str, ...]
    files: tuple[Entry, ...]
    target: str | None = None
    stack: str | None = None
    lock: str | None = None
    lock_digest: str | None = None
    python: str | None = None
    interpreter: Archive | None = None

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.files)


def parse(raw: bytes) -> Manifest:
    """Raises `UsageError` for what is no manifest, `CheckFailed` for one with a name that leads out of its folder."""
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except msgspec.MsgspecError as error:
        raise UsageError(f"the bundle's manifest cannot be read: {error}") from error
    if manifest.schema != SCHEMA:
        raise UsageError(f"the bundle is a `{manifest.schema}`, this sgprov reads `{SCHEMA}`")
    for entry in manifest.files:
        check_name(entry.path)
    return manifest


def render(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def check_name(name: str) -> None:
    """Raises `CheckFailed` for a name that is not a plain relative path: it would be written outside the folder."""
    path = PurePosixPath(name)
    plain = name and str(path) == name and not path.is_absolute() and ".." not in path.parts and "\\" not in name
    if not plain or any(ord(letter) < ord(" ") for letter in name):
        raise CheckFailed(f"the bundle holds a name that leads out of its folder: {name!r}")


def check_arch(manifest: Manifest, arch: str) -> None:
    """Raises `UnsupportedHost` where the bundle is for machines of another architecture."""
    if manifest.arch != arch:
        raise UnsupportedHost(
            f"the bundle is for {manifest.arch}, this machine is {arch}",
            hint=f"make one with `sgprov bundle create --arch {arch}`",
        )
