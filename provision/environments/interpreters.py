"""A Python for a stack: one that is here and fits, or one that uv fetches, or the exact command that gives one."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from packaging.version import Version

from provision.catalog.archives import archive_of
from provision.environments import uv
from provision.errors import WrongPython
from provision.host import Host, HostView

# Where packages of the system put their files beside those of all others.
_SYSTEM = ("/", "/usr", "/usr/local")
_QUESTION = "import platform as p, sys; print(p.python_version(), p.python_implementation(), p.machine())"


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """A Python that answered. `version` is full ("3.10.13")."""

    path: str
    version: str
    implementation: str = "CPython"

    def fits(self, python: str) -> bool:
        """Whether it is a CPython of the minor version `python` ("3.10")."""
        return self.implementation == "CPython" and self.version.startswith(f"{python}.")


def look(view: HostView, path: str) -> Interpreter | None:
    """Ask the interpreter at `path` (or called so) what it is; None where there is none or it does not answer."""
    outcome = view.query([path, "-I", "-c", _QUESTION])
    words = outcome.out.split()
    if not outcome.ok or len(words) < 2:  # noqa: PLR2004  # version, implementation
        return None
    return Interpreter(path=path, version=words[0], implementation=words[1])


def managed(view: HostView, prefix: str, python: str) -> Interpreter | None:
    """The newest interpreter of that minor version that uv put under the prefix, or None.

    Raises `UntrustedPath` for one that another user could have put there.
    """
    pattern = f"{glob.escape(prefix)}/python/cpython-{python}.*/bin/python{python}"
    paths = view.glob(pattern)
    for path in paths:
        # It is run to be asked.
        view.require_trusted(path)
    found = [it for path in paths if (it := look(view, path)) is not None and it.fits(python)]
    return max(found, key=lambda it: Version(it.version), default=None)


def find(view: HostView, *, prefix: str, python: str, path: str | None) -> Interpreter | None:
    """The interpreter to use: the one at `path` where one was named, else one under the prefix.

    Raises `WrongPython` where the named one is of another version.
    """
    if path is None:
        return managed(view, prefix, python)
    interpreter = look(view, path)
    if interpreter is not None and not interpreter.fits(python):
        raise WrongPython(
            f"`{path}` is {interpreter.implementation} {interpreter.version}, the stack has wheels for {python} only",
            hint=f"leave `--python` out, or name a Python {python}: {remedy(view, python)}",
        )
    return interpreter


def real_path(view: HostView, path: str) -> str:
    """Where an interpreter lies, with links followed."""
    return view.query(["readlink", "--canonicalize", path]).out.strip() or path


def base_of(view: HostView, path: str) -> str | None:
    """The directory that an interpreter was installed in, with all that it brings.

    None for one that is spread over the system's own directories, which cannot be taken elsewhere by themselves.
    """
    base = str(PurePosixPath(real_path(view, path)).parents[1])
    return None if base in _SYSTEM else base


def fetch(host: Host, *, prefix: str, python: str) -> None:
    """Let uv fetch a Python into the prefix. Its mirror variables are honoured; nothing outside is linked."""
    uv.fetch(
        host,
        *("python", "install", "--no-bin", python),
        variables={"UV_PYTHON_INSTALL_DIR": str(Path(prefix, "python").absolute())},
        timeout_s=1800,
    )


def remedy(view: HostView, python: str) -> str:
    """How this operating system gets that Python: the exact command, or that its archive has none."""
    name, version = parse_os_release(view.read("/etc/os-release") or "")
    archive = archive_of(name, version)
    sudo = "" if view.query(["id", "-u"]).out.strip() == "0" else "sudo "
    install = f"{sudo}apt-get update && {sudo}apt-get install -y python{python} python{python}-venv python{python}-dev"
    if archive is None:
        return f"install Python {python} with its headers"
    if archive.python == python:
        return f"`{install}`"
    if archive.extra:
        return f"`{sudo}add-apt-repository -y {archive.extra} && {install}`"
    return (
        f"{name} {version} has Python {archive.python} only; let uv fetch one from a mirror "
        f"(`UV_PYTHON_INSTALL_MIRROR` or `UV_PYTHON_DOWNLOADS_JSON_URL`)"
    )


def parse_os_release(text: str) -> tuple[str, str]:
    """Parse lines such as `ID=ubuntu` and `VERSION_ID="22.04"`."""
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return values.get("ID", "").strip("\"'"), values.get("VERSION_ID", "").strip("\"'")
