"""Render the Dockerfile of a stack from its lock; pure. Every wheel by its hash, and nobody in it is root."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from provision.catalog.rows import Component
from provision.containers.names import checked_reference
from provision.errors import UsageError
from provision.locks.lockfile import Lock

ENGINE = "/opt/engine"
# What the stage that installs is labelled with.
STAGE = 'sgprov.stage="install"'
_HOME = "/home/sgprov"
# Not root, and no user that a base image is likely to have.
USER = 10001
# What the build's context holds beside the Dockerfile.
LOCK, INSTALLER, WHEELS = "requirements.txt", "uv", "wheels"
# The wheels' own NCCL is loaded by their own path; this one only where something asks for it.
_EFA_LIBRARIES = "/opt/amazon/efa/lib:/opt/amazon/ofi-nccl/lib:/opt/nccl/lib:/opt/gdrcopy/lib"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What an image is made of. `components` are built into it before the stack; `offline` installs from `wheels/`."""

    lock: Lock
    base: str
    version: str
    components: tuple[Component, ...] = ()
    offline: bool = False

    @property
    def labels(self) -> dict[str, str]:
        """What anyone who has the image can ask it (`docker image inspect`)."""
        return {
            "org.opencontainers.image.title": self.lock.stack,
            "org.opencontainers.image.base.name": self.base,
            "sgprov.version": self.version,
            "sgprov.lock": self.lock.name,
            "sgprov.lock-digest": f"sha256:{self.lock.digest}",
            **{f"sgprov.{one.name.lower().replace(' ', '-')}": one.version for one in self.components},
        }


def render(recipe: Recipe) -> str:
    """The Dockerfile: one stage that installs, and the image, which holds neither installer nor wheels."""
    return "\n".join([*_install(recipe), "", *_image(recipe), ""])


def _install(recipe: Recipe) -> Iterator[str]:
    lock = recipe.lock
    yield f"FROM {recipe.base} AS install"
    # Without BuildKit this stage stays behind as an image without a name: by its label it is found.
    yield f"LABEL {STAGE}"
    yield f"COPY {INSTALLER} /usr/local/bin/uv"
    yield f"COPY {LOCK} /build/{LOCK}"
    if recipe.offline:
        yield f"COPY {WHEELS} /build/{WHEELS}"
    else:
        # Where wheels come from is the builder's own setting; these stay in this stage, which nobody gets.
        yield "ARG UV_DEFAULT_INDEX"
        yield "ARG UV_FIND_LINKS"
    source = ["--no-index", "--find-links", f"/build/{WHEELS}"] if recipe.offline else []
    # No downloads: a Python that the base has not got would lie outside of what is copied.
    yield f"RUN uv --no-config venv --no-python-downloads --python {lock.python} {ENGINE}"
    sync = [
        *("uv", "--no-config", "pip", "sync", "--python", f"{ENGINE}/bin/python", "--no-cache", "--link-mode", "copy"),
        *("--require-hashes", "--only-binary", ":all:", *source, f"/build/{LOCK}"),
    ]
    yield f"RUN {' '.join(sync)}"


def _image(recipe: Recipe) -> Iterator[str]:
    yield f"FROM {recipe.base}"
    for name, value in recipe.labels.items():
        yield f"LABEL {name}={json.dumps(value)}"
    for component in recipe.components:
        yield f"# {component.name} {component.version}: {component.source}"
        yield f"RUN {component.run.format(version=component.version)}"
    yield f"COPY --from=install {ENGINE} {ENGINE}"
    yield f"RUN mkdir -p {_HOME} && chown {USER}:{USER} {_HOME}"
    yield f'ENV PATH="{ENGINE}/bin:$PATH" VIRTUAL_ENV="{ENGINE}" HOME="{_HOME}" PYTHONUNBUFFERED="1"'
    if recipe.components:
        yield f'ENV LD_LIBRARY_PATH="{_EFA_LIBRARIES}:$LD_LIBRARY_PATH" FI_PROVIDER="efa" NCCL_DEBUG="WARN"'
    yield f"WORKDIR {_HOME}"
    yield f"USER {USER}:{USER}"


def check_base(base: str) -> None:
    """Raise `UsageError` for what would be more than the name of an image in a Dockerfile."""
    checked_reference(base)


def components(variant: str | None, rows: Sequence[Component]) -> tuple[Component, ...]:
    """What a variant adds. Raises `UsageError` for one that there is not."""
    if variant is None:
        return ()
    if variant != "efa":
        raise UsageError(f"there is no variant `{variant}`", hint="the variants are `efa`")
    return tuple(rows)
