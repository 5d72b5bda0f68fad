"""sgprov itself as a wheel, made from the code that runs now, and the wheels it needs.

Not built from a checkout: an installed sgprov has none, and a host is to run exactly what its controller runs.
"""

from __future__ import annotations

import base64
import hashlib
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path, PurePosixPath

from provision import __version__
from provision.bundle.sources import TOOL_GLIBC, Machine, Source, of_hashes
from provision.catalog.shipped import folder
from provision.host import Host
from provision.locks.own import pinned

PROJECT = "sgprov"
NAME = f"{PROJECT}-{__version__}-py3-none-any.whl"
# Every CPython that may be the one a host has.
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
_SHIPPED = ("lockfiles", "playbooks")
# The earliest time that a zip archive can hold: the same code makes the same bytes.
_WHEN = (1980, 1, 1, 0, 0, 0)


def write_wheel(directory: Path) -> Path:
    """Write sgprov's own wheel there. The same code always makes the same file."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / NAME
    record = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in _members():
            archive.writestr(_entry(name), content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(content)}\n")
        listed = f"{_information()}/RECORD"
        archive.writestr(_entry(listed), "".join([*record, f"{listed},,\n"]))
    return path


def wheel_digest() -> str:
    """The sha256 that `write_wheel` would give: hosts that have it need no other."""
    with tempfile.TemporaryDirectory(prefix="sgprov-") as folder_:
        return hashlib.sha256(write_wheel(Path(folder_)).read_bytes()).hexdigest()


def needed(host: Host, pythons: Sequence[str], arch: str, scratch: Path) -> dict[str, tuple[Source, ...]]:
    """Python version to the wheels that sgprov needs under it, uv among them: those of its own lock, by hash."""
    return {
        python: of_hashes(host, pinned(python, arch), Machine(python=python, arch=arch, glibc=TOOL_GLIBC), scratch)
        for python in pythons
    }


def pins(sources: Sequence[Source], own: Path) -> str:
    """The hashed requirements that install sgprov from these wheels."""
    names = sorted([(source.name, source.sha256) for source in sources])
    names.append((own.name, hashlib.sha256(own.read_bytes()).hexdigest()))
    return "".join(f"{_pin(name)} --hash=sha256:{digest}\n" for name, digest in names)


def _pin(file_name: str) -> str:
    name, version = file_name.split("-")[:2]
    return f"{name.replace('_', '-')}=={version}"


def _members() -> Iterator[tuple[str, bytes]]:
    package = Path(__file__).parents[1]
    for path in sorted(package.rglob("*")):
        inside = path.relative_to(package)
        if path.is_file() and "__pycache__" not in inside.parts and "_shipped" not in inside.parts:
            yield f"{package.name}/{inside.as_posix()}", path.read_bytes()
    for name in _SHIPPED:
        root = folder(name)
        for path in sorted(root.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                there = PurePosixPath(package.name, "_shipped", name, path.relative_to(root).as_posix())
                yield str(there), path.read_bytes()
    distribution = metadata.distribution(PROJECT)
    yield f"{_information()}/METADATA", (distribution.read_text("METADATA") or "").encode()
    yield (
        f"{_information()}/WHEEL",
        b"Wheel-Version: 1.0\nGenerator: sgprov\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    )
    yield f"{_information()}/entry_points.txt", b"[console_scripts]\nsgprov = provision.cli:main\n"


def _information() -> str:
    return f"{PROJECT}-{__version__}.dist-info"


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _WHEN)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry
