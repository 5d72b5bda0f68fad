"""`sgprov image`: build an image from a stack's lock, write it to a file, load it elsewhere."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from provision import __version__
from provision.catalog.load import Catalog
from provision.catalog.shipped import folder
from provision.cli import common, render
from provision.cli.output import Shown
from provision.containers import building, dockerfile
from provision.containers.dockerfile import Recipe
from provision.environments import uv
from provision.errors import UsageError
from provision.locks.lockfile import Lock, available

if TYPE_CHECKING:
    from rich.console import Console


@click.group()
def image() -> None:
    """Build an image from a stack's lock, write it to a file, load it elsewhere."""


@image.command()
@click.option("--stack", required=True, metavar="NAME", help="The stack to put into it.")
@click.option("--base", required=True, metavar="IMAGE", help="What to build on, such as ubuntu:22.04.")
@click.option("--tag", metavar="IMAGE", help="What to call it; sgprov/STACK:latest otherwise.")
@click.option("--python", metavar="VERSION", help="The Python that the base has; the newest that is locked otherwise.")
@click.option("--lockfile", metavar="FILE", help="Install this lock instead of the stack's own.")
@click.option("--wheels", metavar="DIR", help="Install from this folder of wheels, without a network.")
@click.option("--variant", metavar="efa", help="Build EFA, GDRCopy and NCCL into it, for AWS.")
@click.option("--show", is_flag=True, help="Print the Dockerfile, build nothing.")
@common.as_json
def build(
    *,
    stack: str,
    base: str,
    tag: str | None,
    python: str | None,
    lockfile: str | None,
    wheels: str | None,
    variant: str | None,
    show: bool,
    as_json: bool,
) -> Shown:
    """Build an image: every wheel by its hash, labelled with the lock's digest, running as nobody in particular.

    The base has to have the Python; for the variant `efa` also CUDA's compilers, git, curl and make.
    """
    dockerfile.check_base(base)
    catalog, host = Catalog(), common.local_host()
    arch = host.query(["uname", "-m"]).out.strip()
    lock = _own_lock(lockfile, stack, python, arch) if lockfile else _lock(catalog, stack, python, arch)
    recipe = Recipe(
        lock=lock,
        base=base,
        version=__version__,
        components=dockerfile.components(variant, catalog.components),
        offline=wheels is not None,
    )
    text, name = dockerfile.render(recipe), tag or f"sgprov/{stack}:latest"
    data = {"image": name, "dockerfile": text, "labels": recipe.labels}
    if show:
        return Shown(command="image", data=data, text=lambda screen: render.line(screen, text))
    here = building.build(
        host,
        recipe,
        tag=name,
        installer=uv.program(),
        wheels=wheels,
        tell=lambda line: render.print_line(line, error=as_json),
    )
    told = f"built {name}: {here.size_bytes / 1e9:.2f} GB, user {here.user}, {here.id}"
    return Shown(
        command="image",
        data={**data, "id": here.id, "bytes": here.size_bytes, "user": here.user},
        text=lambda screen: render.line(screen, told),
        changed=True,
    )


@image.command()
@click.argument("name", metavar="IMAGE")
@click.argument("file", metavar="FILE")
@common.as_json
def save(name: str, file: str, *, as_json: bool) -> Shown:
    """Write an image to a compressed file, as Slurm nodes load it; FILE.json says what is in it."""
    del as_json
    saved = building.save(common.local_host(), name, str(Path(file).expanduser().absolute()))
    told = f"{file}: {saved.bytes / 1e9:.2f} GB, sha256 {saved.sha256}"
    return Shown(
        command="image",
        data={"file": file, **asdict(saved)},
        text=lambda screen: render.line(screen, told),
        changed=True,
    )


@image.command()
@click.argument("file", metavar="FILE")
@common.as_json
def load(file: str, *, as_json: bool) -> Shown:
    """Have the image of a file on this machine, checked against what was saved; nothing is done where it is here."""
    del as_json
    here, changed = building.load(common.local_host(), str(Path(file).expanduser().absolute()))
    told = f"{'loaded' if changed else 'already here:'} {here.id}"

    def show(screen: Console) -> None:
        render.line(screen, told)

    return Shown(command="image", data={"file": file, "id": here.id}, text=show, changed=changed)


def _lock(catalog: Catalog, stack: str, python: str | None, arch: str) -> Lock:
    row = catalog.stack(stack)
    locks = [lock for lock in available(folder("lockfiles"), row.name) if lock.arch == arch]
    fitting = [lock for lock in locks if python in {None, lock.python}]
    if not fitting:
        names = ", ".join(lock.python for lock in locks) or "none"
        raise UsageError(f"`{stack}` has no lock for Python {python or 'at all'} on {arch}", hint=f"it has {names}")
    return fitting[-1]


def _own_lock(file: str, stack: str, python: str | None, arch: str) -> Lock:
    if python is None:
        raise UsageError("a lock of your own does not say its Python", hint="name it with `--python`")
    if not re.fullmatch(r"3\.\d{1,2}", python):
        raise UsageError(f"`{python}` is not the version of a Python", hint="such as `3.12`")
    return Lock(Path(file).expanduser(), stack, python, arch)
