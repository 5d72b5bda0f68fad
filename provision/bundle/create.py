"""Making a bundle: fetch by hash what the lock pins and sgprov needs, write the manifest, seal it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from provision import __version__, trust
from provision.bundle import archive, model, own, sources, use
from provision.bundle.fetch import Fetched, fetch, sha256_of
from provision.bundle.logins import logins
from provision.bundle.model import Archive, Entry, Manifest
from provision.bundle.sources import Machine, Source
from provision.catalog.load import Catalog
from provision.environments import locking
from provision.errors import CheckFailed, ProvisionError, StepFailed, UsageError
from provision.host import Host
from provision.locks import pythons, sizes
from provision.locks.lockfile import Lock, available
from provision.locks.pythons import KnownPython

_GB = 1e9
_STAGING = ".staging"
Tell = Callable[[str, int, int | None], None]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the bundle is to hold. `target` and `lock` are None for sgprov alone."""

    arch: str
    target: str | None = None
    lock: Lock | None = None
    glibc: str = sources.TOOL_GLIBC
    pythons: tuple[str, ...] = own.PYTHONS
    interpreter: bool = False


@dataclass(frozen=True, kw_only=True)
class Created:
    """The bundle's files, and what was fetched for it."""

    manifest: Manifest
    paths: tuple[Path, ...]
    fetched: Fetched


def choose(
    catalog: Catalog, locks: Path, *, target: str, stack: str | None, python: str | None, arch: str, here: str
) -> Wanted:
    """The lock for a machine that is not here: the target's preferred stack that has one for this Python and arch.

    Without `python`: the target's, else that of the machine that makes the bundle (`here`), else the newest.
    Raises `UsageError` naming what there is.
    """
    row = catalog.target(target)
    names = [name for name in row.stacks if stack in {None, name}]
    if not names:
        offered = ", ".join(row.stacks) or "containers only, which no bundle holds"
        raise UsageError(
            f"target `{target}` has no stack {f'`{stack}`' if stack else 'of wheels'}", hint=f"it has {offered}"
        )
    if row.python and python and python != row.python:
        raise UsageError(f"target `{target}` needs Python {row.python}", hint="leave `--python` out")
    wished = python or row.python
    for name in names:
        fitting = [lock for lock in available(locks, name) if lock.arch == arch and wished in {None, lock.python}]
        if fitting:
            lock = next((lock for lock in fitting if lock.python == here), fitting[-1])
            return Wanted(arch=arch, target=target, lock=lock, glibc=catalog.stack(name).minimum_glibc)
    there = [lock.name for name in names for lock in available(locks, name)]
    raise UsageError(
        f"target `{target}` has no lock for Python {wished or 'of any version'} on {arch}",
        hint=f"there are {', '.join(there) or 'none'}",
    )


def tool(host: Host, arch: str, path: Path) -> bool:
    """Have the bundle of sgprov alone at `path`; whether it had to be made, because the code or nothing was there."""
    if path.is_file():
        with suppress(ProvisionError):
            manifest = use.verify(path, arch=arch).manifest
            entry = next(entry for entry in manifest.files if entry.path == f"{model.TOOL}/{own.NAME}")
            if manifest.target is None and entry.sha256 == own.wheel_digest():
                return False
    path.parent.mkdir(parents=True, exist_ok=True)
    create(host, Wanted(arch=arch), path)
    return True


def with_interpreter(wanted: Wanted) -> Wanted:
    """The same, with the Python itself."""
    return replace(wanted, interpreter=True)


def create(
    host: Host, wanted: Wanted, path: Path, *, part_bytes: int | None = None, tell: Tell = lambda *_: None
) -> Created:
    """Make the bundle at `path`. What was fetched waits in a folder beside it until the bundle is whole.

    Raises `UsageError` where nothing can be written there, before anything is fetched; `StepFailed` for a full disk.
    """
    archive.check_output(path)
    staging = path.with_name(f"{path.name}{_STAGING}")
    _check_space(host, wanted, staging)
    try:
        _own(staging)
        with locking.alone(host, str(staging)):
            manifest, fetched = _collect(host, wanted, staging, tell)
            paths = archive.write(
                path,
                manifest,
                staging,
                part_bytes=part_bytes,
                tell=lambda done, all_: tell("writing the bundle", done, all_),
            )
            host.remove(str(staging))
    except OSError as error:
        raise StepFailed(f"`{staging}` cannot be written: {error.strerror or error}", hint=archive.ROOM) from error
    return Created(manifest=manifest, paths=paths, fetched=fetched)


def _own(staging: Path) -> None:
    """Make the folder, for this user alone: what is in it becomes part of the bundle."""
    staging.mkdir(mode=0o700, exist_ok=True)
    if staging.is_symlink():
        raise UsageError(f"`{staging}` is a symbolic link", hint=f"`rm {staging}`, or name a file elsewhere with `-o`")
    trust.require(str(staging))


def _collect(host: Host, wanted: Wanted, staging: Path, tell: Tell) -> tuple[Manifest, Fetched]:
    """Have everything in the folder, and its manifest."""
    scratch = staging / "scratch"
    host.make_directory(str(scratch))
    certificates, known = host.variable("SSL_CERT_FILE"), logins(host)
    total = _weight(wanted)
    tell("asking the index where the wheels are", 0, None)
    tools = own.needed(host, wanted.pythons, wanted.arch, scratch)
    wheels: tuple[Source, ...] = ()
    if wanted.lock:
        machine = Machine(python=wanted.lock.python, arch=wanted.arch, glibc=wanted.glibc)
        wheels = sources.of_pins(host, wanted.lock.requirements, machine, scratch)
    once = {source.name: source for found in tools.values() for source in found}
    fetched = fetch(tuple(once.values()), staging / model.TOOL, certificates=certificates, logins=known)
    fetched += fetch(
        wheels,
        staging / model.WHEELS,
        certificates=certificates,
        logins=known,
        tell=lambda done: tell("fetching wheels", done, total),
    )
    _write_tool(staging, tools)
    keep = {model.WHEELS: {source.name for source in wheels}, model.TOOL: {*once, own.NAME, *_pin_files(wanted)}}
    interpreter = None
    if wanted.interpreter:
        python = pythons.one_for(wanted.lock.python if wanted.lock else wanted.pythons[-1], wanted.arch)
        source = _source_of(host, python)
        tell(f"fetching Python {python.version}", 0, None)
        fetched += fetch((source,), staging / model.PYTHON, certificates=certificates, logins=known)
        interpreter = Archive(path=f"{model.PYTHON}/{source.name}", version=python.version)
    keep[model.PYTHON] = {interpreter.path.rpartition("/")[2]} if interpreter else set()
    shutil.rmtree(scratch)
    manifest = Manifest(
        schema=model.SCHEMA,
        sgprov=__version__,
        arch=wanted.arch,
        pythons=wanted.pythons,
        files=_entries(staging, keep),
        target=wanted.target,
        stack=wanted.lock.stack if wanted.lock else None,
        lock=wanted.lock.name if wanted.lock else None,
        lock_digest=wanted.lock.digest if wanted.lock else None,
        python=wanted.lock.python if wanted.lock else None,
        interpreter=interpreter,
    )
    return manifest, fetched


def _pin_files(wanted: Wanted) -> tuple[str, ...]:
    return tuple(f"requirements-{python}.txt" for python in wanted.pythons)


def _write_tool(staging: Path, tools: dict[str, tuple[sources.Source, ...]]) -> None:
    wheel = own.write_wheel(staging / model.TOOL)
    for python, found in tools.items():
        (staging / model.TOOL / f"requirements-{python}.txt").write_text(own.pins(found, wheel))
    shutil.copyfile(Path(__file__).with_name(model.SCRIPT), staging / model.SCRIPT)


def _entries(staging: Path, keep: dict[str, set[str]]) -> tuple[Entry, ...]:
    """What goes in: the script first, and nothing that an earlier call for another stack left in the staging folder."""
    found = [staging / model.SCRIPT]
    for path in sorted(staging.rglob("*")):
        inside = path.relative_to(staging).parts
        if path.is_file() and len(inside) > 1 and (inside[0] not in keep or path.name in keep[inside[0]]):
            found.append(path)
    return tuple(
        Entry(path=path.relative_to(staging).as_posix(), sha256=sha256_of(path), size=path.stat().st_size)
        for path in found
    )


def _source_of(host: Host, python: KnownPython) -> Source:
    """Where it is: with a mirror, where uv would look for it there."""
    mirror = (host.variable("UV_PYTHON_INSTALL_MIRROR") or pythons.ORIGIN).rstrip("/")
    url = f"{mirror}/{python.path}"
    url = unquote(urlsplit(url).path) if mirror.startswith("file:") else url
    return Source(name=unquote(python.path).rpartition("/")[2], url=url, sha256=python.sha256)


def _weight(wanted: Wanted) -> int | None:
    known = sizes.of(wanted.lock) if wanted.lock else None
    return known.download_bytes if known else None


def _check_space(host: Host, wanted: Wanted, staging: Path) -> None:
    """The wheels lie beside the bundle until it is written: twice their weight."""
    weight, disk = _weight(wanted), host.disk(str(staging))
    there = sum(path.stat().st_size for path in staging.rglob("*") if path.is_file()) if staging.exists() else 0
    if weight and disk and disk.free < (needed := 2 * weight - there):
        raise CheckFailed(
            f"a bundle of `{wanted.lock.name if wanted.lock else ''}` needs {needed / _GB:.1f} GB at "
            f"`{staging.parent}`, {disk.free / _GB:.1f} GB are free",
            hint="name a file on another disk with `-o`",
        )
