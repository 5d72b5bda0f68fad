"""A prefix, a cache and wheels made on the spot, for one test: environments by the real uv, without any network."""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path

from fakes import make_wheel

from provision.host.local import LocalHost
from provision.locks.lockfile import Lock
from provision.steps.environment import Environment

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
ROOT = Path(__file__).parents[2]


class Box:
    """`host` is this machine with nothing of the user's uv."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # A name that no other run of these tests has: processes are looked for by it.
        self.prefix = str(folder / f"prefix-{time.time_ns()}")
        self.wheels, self.cache = folder / "wheels", folder / "cache"
        self.variables = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "UV_CACHE_DIR": str(self.cache),
            "UV_CONFIG_FILE": str(folder / "uv.toml"),
        }
        # No variable turns the index off (uv 0.13), its configuration does.
        (folder / "uv.toml").write_text(f'no-index = true\nfind-links = ["{self.wheels}"]\n')
        self.host = LocalHost(self.variables)

    def lock(
        self,
        stack: str = "engine-1",
        *,
        names: tuple[str, ...] = ("alpha", "beta_x"),
        data: int = 50_000,
        shared: bool = False,
    ) -> Lock:
        """With `shared` all wheels bring one and the same file, too."""
        content = random.Random(stack).randbytes(data)  # noqa: S311  # the same in every run
        top = {"build_backend.py": "# a stray"} if shared else {}
        path = self.folder / f"{stack}.cp{PYTHON.replace('.', '')}.x86_64.txt"
        path.write_text("".join(make_wheel(self.wheels, name, data=content, top=top) for name in names))
        return Lock(path, stack, PYTHON, "x86_64")

    def step(self, lock: Lock, *, prefix: str | None = None) -> Environment:
        return Environment(prefix=prefix or self.prefix, lock=lock, interpreter=sys.executable)

    def install(self, lock: Lock, *, prefix: str | None = None) -> str:
        step = self.step(lock, prefix=prefix)
        step.apply(self.host, lambda _: None)
        assert step.satisfied(self.host)
        return step.path

    def content(self, path: Path) -> dict[str, bytes]:
        """Every file of an environment, links as where they lead, less what sgprov notes in it."""
        return {
            str(one.relative_to(path)): str(one.readlink()).encode() if one.is_symlink() else one.read_bytes()
            for one in path.rglob("*")
            if (one.is_symlink() or one.is_file()) and ".sgprov" not in one.relative_to(path).parts
        }
