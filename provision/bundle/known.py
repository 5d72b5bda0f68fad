"""What a bundle may hold: the wheels that a lock of this sgprov pins, and a Python whose hash it knows.

A bundle's own hashes say that it is as it was made, not by whom. So nothing of it is unpacked, installed or started
that this sgprov does not know by hash; which is also what keeps a wheel that unpacks to terabytes away from the disk.
"""

from __future__ import annotations

from provision import __version__
from provision.bundle import model
from provision.bundle.model import Manifest
from provision.catalog.shipped import folder
from provision.errors import CheckFailed, UsageError
from provision.locks import own, pythons
from provision.locks.lockfile import Lock, available
from provision.locks.pythons import KnownPython

_NOTHING = "nothing of the bundle was used"


def lock_of(manifest: Manifest) -> Lock | None:
    """The lock of this sgprov that the bundle was made from, or None where this sgprov pins something else."""
    locks = available(folder("lockfiles"), manifest.stack) if manifest.stack else ()
    wanted = (manifest.lock, manifest.python, manifest.arch, manifest.lock_digest)
    return next((lock for lock in locks if (lock.name, lock.python, lock.arch, lock.digest) == wanted), None)


def check(manifest: Manifest) -> None:
    """Raises `CheckFailed` where it holds other files than its lock pins. Another sgprov's lock is not this one's to
    judge: nothing is taken from such a bundle (`require`).
    """
    if manifest.sgprov == __version__:
        _check_tool(manifest)
    lock = lock_of(manifest)
    if lock is not None:
        _check_wheels(manifest, lock)
        if manifest.interpreter:
            python_of(manifest)


def require(manifest: Manifest) -> Lock:
    """The lock of the bundle. Raises `UsageError` where this sgprov pins other wheels."""
    lock = lock_of(manifest)
    if lock is None:
        raise UsageError(
            f"the bundle holds `{manifest.lock}` as sgprov {manifest.sgprov} pins it; this one pins other wheels",
            hint="install the sgprov of the bundle: `sh install.sh` in it",
        )
    return lock


def python_of(manifest: Manifest) -> KnownPython:
    """The Python in the bundle. Raises `CheckFailed` where it is not the one that sgprov knows by its hash."""
    packed = manifest.interpreter
    entry = manifest.entry(packed.path) if packed else None
    for row in pythons.known():
        if (
            packed
            and entry
            and (row.version, row.arch, row.sha256) == (packed.version, manifest.arch, entry.sha256)
            and row.minor == manifest.python
        ):
            return row
    raise CheckFailed(
        f"the Python in the bundle has no hash that sgprov knows: `{packed.path if packed else ''}`",
        hint="it was not used; make the bundle again with `sgprov bundle create --interpreter`",
    )


def _check_tool(manifest: Manifest) -> None:
    """sgprov's own wheel cannot be known by what it holds; all that it needs can."""
    pinned = own.digests()
    for entry in manifest.files:
        place, _, name = entry.path.rpartition("/")
        is_ours = place == model.TOOL and name.endswith(".whl") and not name.startswith("sgprov-")
        if is_ours and entry.sha256 not in pinned:
            raise CheckFailed(f"`{entry.path}` of the bundle is not a wheel that sgprov's own lock pins", hint=_NOTHING)


def _check_wheels(manifest: Manifest, lock: Lock) -> None:
    wheels = {entry.path: entry.sha256 for entry in manifest.files if entry.path.startswith(f"{model.WHEELS}/")}
    pinned = {digest: pin.name for pin in lock.requirements for digest in pin.sha256}
    for path, digest in wheels.items():
        if digest not in pinned:
            raise CheckFailed(f"`{path}` of the bundle is not a wheel that `{lock.name}` pins", hint=_NOTHING)
    missing = {pin.name for pin in lock.requirements} - {pinned[digest] for digest in wheels.values()}
    if missing:
        raise CheckFailed(f"the bundle lacks {len(missing)} wheels of `{lock.name}`: {', '.join(sorted(missing)[:3])}")
