"""What a bundle says of itself: the manifest, its first member."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from msgspec import Meta

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
# A manifest of 300 wheels has 60 KB.
MOST_MANIFEST_BYTES = 4 << 20

# A bundle may come from anybody: every value of its manifest is of a known form before it is used or shown.
Word = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}\Z")]
MinorVersion = Annotated[str, Meta(pattern=r"^3\.[0-9]{1,2}\Z")]
FullVersion = Annotated[str, Meta(pattern=r"^3\.[0-9]{1,2}\.[0-9]{1,3}\Z")]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Bytes = Annotated[int, Meta(ge=0, le=1 << 40)]
Arch = Annotated[str, Meta(pattern=r"^(x86_64|aarch64)\Z")]
# Plain ASCII in a known folder: nothing that climbs, hides, reads from right to left, or is another file for `tar`.
_NAME = re.compile(
    rf"{re.escape(SCRIPT)}"
    rf"|{TOOL}/(requirements-3\.[0-9]{{1,2}}\.txt|[A-Za-z0-9][A-Za-z0-9._+!-]{{0,250}}\.whl)"
    rf"|{WHEELS}/[A-Za-z0-9][A-Za-z0-9._+!-]{{0,250}}\.whl"
    rf"|{PYTHON}/[A-Za-z0-9][A-Za-z0-9._+-]{{0,250}}\.tar\.gz"
)


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a bundle; `path` is relative to its top folder."""

    path: str
    sha256: Sha256
    size: Bytes


class Archive(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The interpreter in a bundle: a tarball with `python/` on top. `version` is full ("3.11.18")."""

    path: str
    version: FullVersion


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`python` is the stack's ("3.11"), `pythons` are those that the wheels of sgprov itself are for.

    A bundle without a `target` holds sgprov alone: what a fleet's hosts get first.
    """

    schema: str
    sgprov: Word
    arch: Arch
    pythons: Annotated[tuple[MinorVersion, ...], Meta(max_length=32)]
    files: Annotated[tuple[Entry, ...], Meta(max_length=20_000)]
    target: Word | None = None
    stack: Word | None = None
    lock: Word | None = None
    lock_digest: Sha256 | None = None
    python: MinorVersion | None = None
    interpreter: Archive | None = None

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.files)

    def entry(self, path: str) -> Entry | None:
        return next((entry for entry in self.files if entry.path == path), None)


def parse(raw: bytes) -> Manifest:
    """Raises `UsageError` for what is no manifest, `CheckFailed` for one with names that no bundle has."""
    try:
        schema = msgspec.json.decode(raw, type=_Schema).schema
        if schema != SCHEMA:
            raise UsageError(f"the bundle is a {schema[:80]!a}, this sgprov reads `{SCHEMA}`")
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"the bundle's manifest cannot be read: {ascii(str(error))[1:-1]}") from error
    _check_names(manifest)
    return manifest


def render(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def check_name(name: str) -> None:
    """Raises `CheckFailed` for a name that no file of a bundle has: most others would be written outside the folder."""
    if not _NAME.fullmatch(name):
        raise CheckFailed(f"the bundle holds a name that leads out of its folder, or that no bundle has: {name!a}")


def check_arch(manifest: Manifest, arch: str) -> None:
    """Raises `UnsupportedHost` where the bundle is for machines of another architecture."""
    if manifest.arch != arch:
        raise UnsupportedHost(
            f"the bundle is for {manifest.arch}, this machine is {arch}",
            hint=f"make one with `sgprov bundle create --arch {arch}`",
        )


class _Schema(msgspec.Struct):
    """What is read first, whatever else a later schema may hold."""

    schema: str


def _check_names(manifest: Manifest) -> None:
    seen: set[str] = set()
    for entry in manifest.files:
        check_name(entry.path)
        # Where a file system does not tell large letters from small, the second would be written over the first.
        if entry.path.casefold() in seen:
            raise CheckFailed(f"the bundle holds `{entry.path}` twice, or a name that differs only in case")
        seen.add(entry.path.casefold())
    packed = manifest.interpreter
    if packed and (manifest.entry(packed.path) is None or not packed.path.startswith(f"{PYTHON}/")):
        raise CheckFailed(f"the bundle has no interpreter at {packed.path!a}")
