"""The step that sees to a Python of the stack's version: enforced, never approximated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from provision.environments import interpreters, uv
from provision.errors import CommandFailed, WrongPython
from provision.host import Host, HostView
from provision.secrets import mask
from provision.steps.base import Progress


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """A CPython of the minor version `python` ("3.10") is there: at `path`, or under `prefix` where uv puts one."""

    python: str
    prefix: str
    path: str | None = None

    @property
    def id(self) -> str:
        return "interpreter"

    looks_only = False

    def preview(self) -> str:
        if self.path:
            return f"use Python {self.python} at `{self.path}`"
        return f"fetch Python {self.python} into `{self.prefix}/python` with uv"

    def satisfied(self, host: HostView) -> bool:
        try:
            return interpreters.find(host, prefix=self.prefix, python=self.python, path=self.path) is not None
        except WrongPython:
            # Said by `apply`, where an error belongs.
            return False

    def check(self, view: HostView) -> None:
        if self.path is None and interpreters.managed(view, self.prefix, self.python) is None:
            self._refuse_fetching(view)

    def apply(self, host: Host, tell: Callable[[Progress], None]) -> str:
        found = interpreters.find(host, prefix=self.prefix, python=self.python, path=self.path)
        if found is None and self.path:
            raise WrongPython(
                f"`{self.path}` is not a Python that runs",
                hint=f"leave `--python` out, or: {interpreters.remedy(host, self.python)}",
            )
        if found is None:
            tell(Progress(text=f"fetching Python {self.python}"))
            self._fetch(host)
            found = interpreters.managed(host, self.prefix, self.python)
        if found is None:
            raise self._nowhere(host, "uv put none where it was told to")
        return f"Python {found.version} at `{found.path}`"

    def _refuse_fetching(self, view: HostView) -> None:
        if (view.variable("UV_PYTHON_DOWNLOADS") or "").lower() == "never":
            raise self._nowhere(view, "`UV_PYTHON_DOWNLOADS=never` keeps uv from fetching one")

    def _fetch(self, host: Host) -> None:
        self._refuse_fetching(host)
        host.make_directory(self.prefix)
        try:
            interpreters.fetch(host, prefix=self.prefix, python=self.python)
        except CommandFailed as error:
            # uv's first line says what it could not do; its causes are in the plain log.
            if isinstance(error, uv.Stalled):
                raise self._nowhere(host, str(error)) from error
            lines = [line.strip() for line in mask(str(error)).splitlines()[1:] if line.strip()]
            raise self._nowhere(
                host, lines[0].removeprefix("error: ") if lines else "uv could not fetch one"
            ) from error

    def _nowhere(self, host: HostView, why: str) -> WrongPython:
        return WrongPython(
            f"this host has no Python {self.python}, which the stack needs: {why}",
            hint=f"{interpreters.remedy(host, self.python)}; or set `UV_PYTHON_INSTALL_MIRROR` and run again",
        )
