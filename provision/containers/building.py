"""Build an image from a lock, write it to a compressed file, and load such a file on another machine."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from provision import documents
from provision.containers import dockerfile, engine, images
from provision.containers.dockerfile import Recipe
from provision.containers.images import Here
from provision.containers.names import checked_reference
from provision.errors import CheckFailed, CommandFailed, StepFailed, UsageError
from provision.host import Host, Outcome, files
from provision.secrets import mask

_BUILD_S = 4 * 3600.0
_SAVE_S = 4 * 3600.0
_GB = 1e9
_BLOCK = 1024 * 1024
# What the builder's own settings may say of where wheels come from.
_SOURCES = ("UV_DEFAULT_INDEX", "UV_FIND_LINKS")


@dataclass(frozen=True, kw_only=True)
class Saved:
    """An image as a file; beside it lies `FILE.json` with the same."""

    image: str
    id: str
    sha256: str
    bytes: int


def build(
    host: Host,
    recipe: Recipe,
    *,
    tag: str,
    installer: str,
    wheels: str | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Here:
    """Build the image and see that it is what was asked for. Raises `StepFailed`, `CommandFailed`, `UsageError`."""
    with _context(recipe, installer=installer, wheels=wheels) as context:
        # A build that fails is to leave no container behind either.
        argv = ["docker", "build", "--force-rm", "--tag", checked_reference(tag)]
        for name in _SOURCES if wheels is None else ():
            if value := host.variable(name):
                if mask(value) != value:
                    raise UsageError(
                        f"`{name}` holds a login, which would stay in the history of the build",
                        hint="build from a folder of wheels: `--wheels DIR`",
                    )
                argv += ["--build-arg", name]
        _docker(host, [*argv, str(context)], timeout_s=_BUILD_S, tell=tell)
    here = images.find(host, "docker", tag)
    if here is None:
        raise StepFailed(f"`docker build` ended well, and `{tag}` is not here")
    if here.user.partition(":")[0] in {"", "0", "root"}:
        raise StepFailed(f"`{tag}` runs as root")
    return here


@contextmanager
def _context(recipe: Recipe, *, installer: str, wheels: str | None) -> Iterator[Path]:
    """A folder with what the Dockerfile copies, and nothing else of this machine."""
    with tempfile.TemporaryDirectory(prefix="sgprov-build-") as name:
        folder = Path(name)
        (folder / "Dockerfile").write_text(dockerfile.render(recipe), encoding="utf-8")
        shutil.copy(recipe.lock.path, folder / dockerfile.LOCK)
        shutil.copy(installer, folder / dockerfile.INSTALLER)
        if wheels is not None:
            _copy_wheels(Path(wheels), folder / dockerfile.WHEELS)
        yield folder


def _copy_wheels(wheels: Path, target: Path) -> None:
    found = sorted(wheels.glob("*.whl"))
    if not found:
        raise UsageError(f"there are no wheels in `{wheels}`")
    try:
        target.mkdir()
        for wheel in found:
            with documents.open_input(wheel) as stream, (target / wheel.name).open("xb") as copy:
                shutil.copyfileobj(stream, copy, _BLOCK)
    except OSError as error:
        raise files.failed("written", str(target), error) from error


def save(host: Host, image: str, path: str) -> Saved:
    """Write an image to a compressed file that `docker load` reads, whole or not at all."""
    here = images.find(host, "docker", image)
    if here is None:
        raise UsageError(f"there is no image `{image}` here", hint="`docker images` lists them")
    disk = host.disk(path)
    # The packed file and the one it is made from lie there together.
    needed = int(here.size_bytes * 1.6)
    if disk and disk.free < needed:
        raise CheckFailed(f"`{path}` needs {needed / _GB:.1f} GB, {disk.free / _GB:.1f} GB are free on {disk.mount}")
    raw, packed = f"{path}.{here.id[-12:]}.tar", f"{path}.{here.id[-12:]}.tar.gz"
    try:
        _docker(host, ["docker", "save", "--output", raw, image], timeout_s=_SAVE_S)
        host.run(["gzip", "--fast", "--force", "--no-name", raw], timeout_s=_SAVE_S)
        saved = Saved(image=image, id=here.id, sha256=_digest(packed), bytes=Path(packed).stat().st_size)
        Path(packed).replace(path)
    finally:
        host.remove(raw)
        host.remove(packed)
    host.write_output(f"{path}.json", json.dumps(saved.__dict__, indent=2) + "\n")
    return saved


def load(host: Host, path: str) -> tuple[Here, bool]:
    """Have the image of a file here, checked against what was saved; whether it had to be loaded."""
    # Docker would read a pipe or a device without end.
    if not Path(path).is_file():
        raise UsageError(f"there is no file `{path}`", hint="`sgprov image save IMAGE FILE` writes one")
    told = _told(host.read(f"{path}.json"))
    if told and (here := images.find(host, "docker", told.image)) and here.id == told.id:
        return here, False
    if told and (found := _digest(path)) != told.sha256:
        raise CheckFailed(
            f"`{path}` is not what was saved: sha256 {found[:12]}…, not {told.sha256[:12]}…", hint="copy it again"
        )
    outcome = _docker(host, ["docker", "load", "--input", path], timeout_s=_SAVE_S)
    # Such as `Loaded image: sgprov/sglang:0.5.23`.
    name = told.image if told else outcome.out.rpartition(": ")[2].strip()
    here = images.find(host, "docker", name)
    if here is None or (told and here.id != told.id):
        raise StepFailed(f"`docker load` ended well, and `{name}` is not what was saved")
    return here, True


def _docker(host: Host, argv: Sequence[str], *, timeout_s: float, tell: Callable[[str], None] | None = None) -> Outcome:
    try:
        return host.run(argv, timeout_s=timeout_s, on_line=tell)
    except CommandFailed as error:
        raise engine.meant(error, program="docker") from error


def _told(text: str | None) -> Saved | None:
    try:
        return Saved(**json.loads(text)) if text else None
    except (ValueError, TypeError, RecursionError):
        return None


def _digest(path: str) -> str:
    found = hashlib.sha256()
    with documents.open_input(path) as stream:
        while block := stream.read(_BLOCK):
            found.update(block)
    return found.hexdigest()
