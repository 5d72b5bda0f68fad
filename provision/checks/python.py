"""Checks of the Python that a stack is installed for."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from provision.checks.base import Context, check, error, has_lock, info, serves_on_gpus, warning
from provision.environments import interpreters
from provision.facts.model import Python
from provision.report import Finding

_check = partial(check, "python")


@_check(
    "python-version",
    "The stack's Python is here, or can be fetched",
    looks_at="the interpreters on this host, those under the prefix, and UV_PYTHON_DOWNLOADS",
    why="wheels are for one minor version; bootstrap lets uv fetch it where that is allowed",
    remedy="`sudo apt-get install -y python3.12 python3.12-venv python3.12-dev`, of the version named",
    applies=has_lock,
)
def python_version(context: Context) -> Iterator[Finding]:
    decision = context.decision
    if decision is None or decision.python is None or decision.interpreter:
        return
    if interpreters.managed(context.view, context.places.prefix, decision.python):
        return
    remedy = interpreters.remedy(context.view, decision.python)
    if (context.view.variable("UV_PYTHON_DOWNLOADS") or "").lower() == "never":
        yield error(
            f"Python {decision.python} is not here, and `UV_PYTHON_DOWNLOADS=never` keeps uv from fetching it", remedy
        )
    else:
        yield info(f"Python {decision.python} is not here; bootstrap lets uv fetch it", remedy)


@_check(
    "python-headers",
    "The stack's Python has its headers",
    looks_at="include/pythonX.Y/Python.h of the chosen interpreter",
    why="Triton compiles a launcher against them at the first request: `fatal error: Python.h: No such file`",
    remedy="`sudo apt-get install -y python3.12-dev`, of the version named",
    applies=serves_on_gpus,
)
def python_headers(context: Context) -> Iterator[Finding]:
    python = _chosen(context)
    if python and not python.headers:
        minor = ".".join(python.version.split(".")[:2])
        yield error(
            f"{python.path} ({python.version}) has no headers, and Triton compiles against them",
            f"`sudo apt-get install -y python{minor}-dev`, or a Python that uv fetches: `uv python install {minor}`",
        )


@_check(
    "python-venv",
    "The stack's Python can make virtual environments",
    looks_at="the module ensurepip of the chosen interpreter",
    why="`python -m venv` needs it; uv, which sgprov installs with, does not",
    remedy="`sudo apt-get install -y python3-venv`, for what you do by hand",
    applies=has_lock,
)
def python_venv(context: Context) -> Iterator[Finding]:
    python = _chosen(context)
    if python and not python.venv:
        yield info(f"{python.path} has no ensurepip: `python -m venv` fails with it, sgprov works all the same")


@_check(
    "python-externally-managed",
    "What PEP 668 says of the system's Python",
    looks_at="files called EXTERNALLY-MANAGED beside the standard library",
    why="pip refuses to install there, and rightly: sgprov never does, and what you install by hand needs a venv",
    remedy="`python3 -m venv DIR`; never `--break-system-packages`",
)
def python_externally_managed(context: Context) -> Iterator[Finding]:
    if found := context.view.glob("/usr/lib/python3*/EXTERNALLY-MANAGED"):
        versions = ", ".join(path.split("/")[3].removeprefix("python") for path in found)
        yield info(f"the system's Python {versions} is managed by the distribution; sgprov installs nothing into it")


@_check(
    "python-starts",
    "Every interpreter starts",
    looks_at="each python3.N in PATH and in the usual places, started without site packages",
    why="a broken interpreter in PATH is what other tools trip over; it is left out of the decision",
    remedy="reinstall or remove the one that the finding names",
)
def python_starts(context: Context) -> Iterator[Finding]:
    for problem in context.facts.problems:
        if problem.check == "facts.pythons":
            yield warning(problem.text, *(problem.fix or ("reinstall or remove that interpreter",)))


def _chosen(context: Context) -> Python | None:
    path = context.decision.interpreter if context.decision else None
    return next((python for python in context.facts.pythons if python.path == path), None)


CHECKS = (python_version, python_headers, python_venv, python_externally_managed, python_starts)
