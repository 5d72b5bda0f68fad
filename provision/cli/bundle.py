"""`sgprov bundle`: carry a stack to a machine that has no network."""

from __future__ import annotations

import platform
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from provision.bundle import archive, create, known, reading, use
from provision.bundle.model import Manifest
from provision.catalog.load import Catalog
from provision.catalog.shipped import folder
from provision.cli import common, progress, render
from provision.cli.output import Shown
from provision.errors import UsageError
from provision.steps import Progress

if TYPE_CHECKING:
    from rich.console import Console

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
_GB = 1e9
_SMALLEST_PART = 10**6


@click.group()
def bundle() -> None:
    """Carry a stack to a machine that has no network: every wheel of it, uv, and sgprov itself, in one sealed file."""


@bundle.command(name="create")
@click.option("--target", "-t", metavar="NAME", required=True, help="What the machine is to become; `sgprov targets`.")
@click.option("--stack", metavar="NAME", help="Take this stack of the target's, not the preferred one.")
@click.option(
    "--python", metavar="3.N", help="The Python of the machine; this machine's, where the stack has wheels for it."
)
@click.option(
    "--arch", type=click.Choice(["x86_64", "aarch64"]), help="The CPU of the machine; this machine's otherwise."
)
@click.option("--interpreter", is_flag=True, help="Put that Python in as well, as uv fetches it.")
@click.option("--part-size", metavar="SIZE", help="Write parts of this size, such as 4G, instead of one file.")
@click.option("--output", "-o", "output", metavar="FILE", help="The file to make; sgprov-TARGET-ARCH.tar otherwise.")
@common.as_json
def make(
    *,
    target: str,
    stack: str | None,
    python: str | None,
    arch: str | None,
    part_size: str | None,
    output: str | None,
    interpreter: bool,
    as_json: bool,
) -> Shown:
    """Fetch by hash what a target needs, for any machine, and write it to one sealed file or its parts.

    What has arrived is kept: run it again after an interruption. On the machine: `tar -xf FILE`, then
    `sh sgprov-bundle/install.sh`; or, where sgprov is, `sgprov bootstrap --bundle FILE`.
    """
    host = common.local_host()
    arch = arch or platform.machine()
    here = ".".join(platform.python_version_tuple()[:2])
    wanted = create.choose(
        Catalog(), folder("lockfiles"), target=target, stack=stack, python=python, arch=arch, here=here
    )
    wanted = create.with_interpreter(wanted) if interpreter else wanted
    path = Path(output or f"sgprov-{target}-{arch}.tar").absolute()
    with progress.watching(as_json=as_json) as watcher:
        work = progress.Work("bundle")
        watcher.started(work)

        def tell(text: str, done: int, total: int | None) -> None:
            watcher.progress(work, Progress(text=text, done=done or None, total=total))

        made = create.create(host, wanted, path, part_bytes=_bytes(part_size), tell=tell)
    return Shown(
        command="bundle",
        data={
            **_data(made.manifest),
            "paths": [str(one) for one in made.paths],
            "bytes": sum(one.stat().st_size for one in made.paths),
            "fetched_files": made.fetched.files,
            "fetched_bytes": made.fetched.bytes,
        },
        text=lambda screen: _show_made(made, screen),
        changed=True,
    )


@bundle.command()
@click.option("--arch", type=click.Choice(["x86_64", "aarch64"]), help="The CPU of the machines; this one's otherwise.")
@click.option(
    "--output", "-o", "output", metavar="FILE", required=True, help="The file to make, or to keep if it is new."
)
@common.as_json
def tool(arch: str | None, output: str, *, as_json: bool) -> Shown:
    """Make the bundle of sgprov alone, for machines that a fleet's controller then talks to."""
    del as_json
    arch, path = arch or platform.machine(), Path(output).absolute()
    made = create.tool(common.local_host(), arch, path)
    return Shown(
        command="bundle",
        data={"paths": [str(path)], "arch": arch, "bytes": path.stat().st_size},
        text=lambda screen: screen.print(f"{path}: sgprov alone, for {arch}"),
        changed=made,
    )


@bundle.command()
@click.argument("path", metavar="FILE|DIR")
@common.as_json
def verify(path: str, *, as_json: bool) -> Shown:
    """Hash every byte of a bundle (a file, its parts, or the folder that tar made of it). Exit 4 where one differs."""
    with progress.bytes_of("verifying", as_json=as_json) as tell:
        found = use.verify(Path(path), tell=tell)
    return Shown(
        command="bundle",
        data={**_data(found.manifest), "digest": found.digest, "known": known.lock_of(found.manifest) is not None},
        text=lambda screen: screen.print(f"{_sentence(found.manifest)}\n{_verified(found.manifest)}"),
    )


@bundle.command()
@click.argument("part", metavar="FILE.part01")
@click.option("--output", "-o", "output", metavar="FILE", help="The file to make; FILE otherwise.")
@common.as_json
def join(part: str, output: str | None, *, as_json: bool) -> Shown:
    """Join the parts of a bundle to one file, and verify it. Not needed: every command takes the first part as well."""
    parts = reading.parts_of(Path(part))
    base = Path(output) if output else Path(part).with_name(Path(part).name.rpartition(".part")[0] or Path(part).name)
    if base in parts:
        raise UsageError(f"`{base}` is one file already")
    with progress.bytes_of("joining and verifying", as_json=as_json) as tell:
        manifest = archive.join(parts, base, tell)
    return Shown(
        command="bundle",
        data={**_data(manifest), "paths": [str(base)], "bytes": base.stat().st_size},
        text=lambda screen: screen.print(f"{base}: {_sentence(manifest)}"),
        changed=True,
    )


def _data(manifest: Manifest) -> dict[str, Any]:
    return {
        "target": manifest.target,
        "stack": manifest.stack,
        "lock": manifest.lock,
        "python": manifest.python,
        "arch": manifest.arch,
        "interpreter": manifest.interpreter.version if manifest.interpreter else None,
        "sgprov": manifest.sgprov,
        "files": len(manifest.files),
        "content_bytes": manifest.size,
    }


def _sentence(manifest: Manifest) -> str:
    what = f"{manifest.target}, `{manifest.lock}`" if manifest.target else "sgprov alone"
    python = f", with Python {manifest.interpreter.version}" if manifest.interpreter else ""
    return f"{what}, for {manifest.arch}{python}: {len(manifest.files)} files, {manifest.size / _GB:.2f} GB"


def _verified(manifest: Manifest) -> str:
    if known.lock_of(manifest):
        return "every file is as the manifest says, and every wheel is one that this sgprov pins"
    return (
        "every file is as the manifest says; whether its wheels are the right ones, only the sgprov that made it knows"
    )


def _show_made(made: create.Created, screen: Console) -> None:
    first, last, count = made.paths[0], made.paths[-1], len(made.paths)
    size = sum(path.stat().st_size for path in made.paths) / _GB
    screen.print(f"{first}  {size:.2f} GB" if count == 1 else f"{count} parts, {size:.2f} GB: {first} to {last.name}")
    render.line(screen, _sentence(made.manifest))
    whole = shlex.quote(first.name.rpartition(".part")[0])
    unpack = f"tar -xf {shlex.quote(first.name)}" if count == 1 else f"cat {whole}.part* | tar -xf -"
    screen.print(f"on the machine: {unpack} && sh sgprov-bundle/install.sh")
    screen.print(f"or, where sgprov is: sgprov bootstrap --bundle {shlex.quote(first.name)}")


def _bytes(size: str | None) -> int | None:
    """Bytes of `4G`, `700M`, `1.5G` (powers of ten); None of None."""
    if size is None:
        return None
    matched = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG]?)B?", size.strip(), re.IGNORECASE)
    count = int(float(matched[1]) * _UNITS[matched[2].upper()]) if matched else 0
    if count < _SMALLEST_PART:
        raise UsageError(f"`{size}` is not a size for parts", hint="at least `1M`; such as `4G` or `700M`")
    return count
