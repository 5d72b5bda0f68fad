"""The step that sees the stack's Python start inside the image, before gigabytes are installed for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from packaging.version import Version

from provision.containers.run import confined
from provision.environments import interpreters, layout, uv
from provision.errors import StepFailed
from provision.host import Host, HostView
from provision.steps.base import Progress

_START_S = 60.0
# What engines and their wheels load, none of which a wheel may bring: modules of Python with a library of the system
# behind them, and the libraries that the manylinux standard leaves to the system.
_SCRIPT = """
import os, sys
print("%d.%d" % sys.version_info[:2], os.confstr("CS_GNU_LIBC_VERSION").split()[-1])
for name in ("_bz2", "_ctypes", "_hashlib", "_lzma", "_sqlite3", "_ssl", "zlib"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        pass
    except ImportError as error:
        print(str(error).partition(":")[0])
try:
    from ctypes import CDLL
except ImportError:
    sys.exit()
for name in ("libstdc++.so.6", "libgcc_s.so.1", "libz.so.1"):
    try:
        CDLL(name)
    except OSError:
        print(name)
"""


@dataclass(frozen=True, kw_only=True)
class StartsInside:
    """Python `python` ("3.12") runs in `image`, which has the libraries that the stack leaves to the system.

    `environment` is its directory, `interpreter` what it is made from if it is not there yet; None for the one under
    `prefix`. `user` is who the container runs as, `glibc` the oldest C library that the stack's wheels run with.
    """

    program: str
    image: str
    python: str
    prefix: str
    environment: str
    glibc: str
    interpreter: str | None = None
    user: str | None = None

    looks_only = True

    @property
    def id(self) -> str:
        return "inside"

    def preview(self) -> str:
        return f"see that Python {self.python} starts inside `{self.image}`"

    def satisfied(self, host: HostView) -> bool:  # noqa: ARG002  # an image and a Python can change: it is asked again
        return False

    def apply(self, host: Host, tell: Callable[[Progress], None]) -> str:
        tell(Progress(text=self.preview()))
        path = self._interpreter(host)
        if path is None:
            raise StepFailed(f"there is no Python {self.python} for `{self.image}`: the step `interpreter` gives one")
        outcome = host.query(list(self._argv(host, path)), timeout_s=_START_S)
        # Such as `3.12 2.36`, then a line for each library that is not there.
        first, *lacking = outcome.out.splitlines() or [""]
        python, _, glibc = first.partition(" ")
        if not outcome.ok or not glibc:
            said = (outcome.err.strip() or outcome.out.strip() or outcome.ending).splitlines()[-1]
            if "permission denied" in said.lower():
                raise StepFailed(
                    f"the user that `{self.image}` runs as may not read the Python at `{path}`",
                    hint="have Python and prefix where it may read (not under /root), or an image that runs as root",
                )
            raise self._refused(host, f"the Python at `{path}` does not start in `{self.image}`: {said}")
        if python != self.python:
            raise self._refused(host, f"`{path}` is Python {python} in `{self.image}`, the stack needs {self.python}")
        if Version(glibc) < Version(self.glibc):
            raise StepFailed(
                f"`{self.image}` has glibc {glibc}, the stack's wheels need {self.glibc}", hint="take a newer image"
            )
        if lacking:
            names = ", ".join(dict.fromkeys(lacking))
            raise self._refused(host, f"`{self.image}` has not what the Python at `{path}` loads: {names}")
        return f"Python {python} starts in `{self.image}` (glibc {glibc})"

    def _interpreter(self, view: HostView) -> str | None:
        kept = layout.interpreter_of(view, self.environment)
        if kept:
            return kept
        found = interpreters.find(view, prefix=self.prefix, python=self.python, path=self.interpreter)
        return found.path if found else None

    def _argv(self, view: HostView, path: str) -> Iterator[str]:
        real, base = interpreters.real_path(view, path), interpreters.base_of(view, path)
        yield from (self.program, "run", "--rm", "--pull", "never", "--network", "none", *confined())
        if self.user:
            yield from ("--user", self.user)
        if base:
            yield from ("--mount", f"type=bind,source={base},target={base},readonly")
        yield from ("--entrypoint", real, self.image, "-I", "-S", "-c", _SCRIPT)

    def _refused(self, host: HostView, text: str) -> StepFailed:
        own = f"`{uv.program()} python install {self.python}` gives a Python that brings its own"
        if layout.interpreter_of(host, self.environment):
            own += "; the environment that is there keeps the one it was made with, so name another `--prefix` then"
        return StepFailed(text, hint=f"put what is missing into an image of your own, or: {own}")
