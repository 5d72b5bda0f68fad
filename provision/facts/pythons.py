"""The Python interpreters of this host that could carry an environment."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from provision.errors import NotPermitted, ProbeError, UntrustedPath
from provision.facts.model import Python
from provision.facts.sources import PartlyTold
from provision.host import HostView, Outcome

OLDEST_MINOR = 8
# Where interpreters lie besides PATH; `~` is the user's home.
PLACES = (
    "/usr/bin",
    "/usr/local/bin",
    "~/.pyenv/versions/*/bin",
    "~/.local/share/uv/python/*/bin",
    "/opt/conda/bin",
    "/opt/python/*/bin",
)
SCRIPT = str(Path(__file__).with_name("ask_python.py"))
_NAME = re.compile(r"python3\.(\d{1,2})", re.ASCII)
_CELLS = 5


def probe_pythons(view: HostView) -> tuple[Python, ...]:
    """Every CPython since 3.8, by version; each once, however many names lead to it.

    Shims are left out: they are scripts that stand for an interpreter which is found in its own place. One that does
    not start (a removed library, a dead mount) is a problem, and so is one that another user could have put there: it
    is not run. The others still count.
    """
    found: dict[str, Python] = {}
    broken = []
    candidates = []
    for path in _distinct(view, _candidates(view)):
        try:
            view.require_trusted(path)
        except (UntrustedPath, NotPermitted) as error:
            broken.append(f"{error}: it is not run, unless it is named with `--python`")
        else:
            candidates.append(path)
    with ThreadPoolExecutor(max_workers=4) as pool:
        outcomes = list(pool.map(lambda path: view.query(_question(path)), candidates))
    for outcome in outcomes:
        if not outcome.installed:
            continue
        try:
            python = _answer(outcome)
        except ProbeError as error:
            broken.append(str(error))
            continue
        if python:
            found.setdefault(python.path, python)
    pythons = tuple(sorted(found.values(), key=lambda python: (_order(python.version), python.path)))
    if broken:
        raise PartlyTold("; ".join(broken), found=pythons)
    return pythons


def probe_python(view: HostView, path: str) -> Python | None:
    """The interpreter at a path that somebody named, under that name; None where it is no CPython that starts."""
    try:
        found = _answer(view.query(_question(path)))
    except ProbeError:
        return None
    return replace(found, path=path) if found else None


def parse_python(text: str) -> Python | None:
    """Parse, e.g., `cpython<TAB>3.10.13<TAB>/usr/bin/python3.10<TAB>1<TAB>0`: it makes environments, has no headers.

    None for another implementation: wheels are for CPython.
    """
    cells = text.strip().split("\t")
    if len(cells) != _CELLS or not re.match(r"\d{1,2}\.\d{1,3}", cells[1], re.ASCII):
        raise ProbeError(f"an interpreter's answer cannot be read: {text.strip()[:100]!r}")
    if cells[0] != "cpython":
        return None
    path = cells[2]
    return Python(path=path, version=cells[1], venv=cells[3] == "1", headers=cells[4] == "1", source=_source(path))


def _question(path: str) -> list[str]:
    # -I: nothing of the caller's environment; -S: no site packages, whose .pth files may run anything.
    return [path, "-I", "-S", SCRIPT]


def _answer(outcome: Outcome) -> Python | None:
    if not outcome.ok:
        raise ProbeError(f"`{outcome.argv[0]}` {outcome.ending}: {outcome.err.strip()[-200:]}")
    return parse_python(outcome.out)


def _candidates(view: HostView) -> list[str]:
    """Interpreters by name. A directory's `python3` counts only where it has no `python3.N` it would stand for."""
    home = view.variable("HOME") or "/root"
    places = [place.replace("~", home, 1) for place in PLACES]
    if root := view.variable("PYENV_ROOT"):
        places.append(f"{root}/versions/*/bin")
    path = (view.variable("PATH") or "").split(":")
    # With /usr merged, /bin is a second name of /usr/bin.
    directories = [place for place in path if place.startswith("/") and place not in {"/bin", "/sbin"}]
    found: dict[str, None] = {}
    for place in dict.fromkeys(part.rstrip("/") for part in (*directories, *places)):
        if place.endswith("/shims"):
            continue
        names = view.glob(f"{place}/python3*")
        exact = [name for name in names if _NAME.fullmatch(name.rpartition("/")[2])]
        plain = [name for name in names if name.endswith("/python3")]
        for name in exact or plain:
            minor = _NAME.search(name.rpartition("/")[2])
            if minor is None or int(minor[1]) >= OLDEST_MINOR:
                found.setdefault(name)
    return list(found)


def _distinct(view: HostView, candidates: Sequence[str]) -> list[str]:
    """The candidates with links resolved, by one `readlink` for all: an interpreter takes ten times as long to say."""
    if not candidates:
        return []
    outcome = view.query(["readlink", "-f", "--", *candidates])
    resolved = outcome.out.splitlines()
    if not outcome.ok or len(resolved) != len(candidates):
        return list(candidates)
    # A virtual environment's python is a link to the one it was made from: that is the one that counts.
    return list(dict.fromkeys(resolved))


def _source(path: str) -> str:
    for mark, source in (("/.pyenv/", "pyenv"), ("/uv/python/", "uv"), ("conda", "conda"), ("/usr/bin/", "system")):
        if mark in path:
            return source
    return "path"


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d{1,9}", version, re.ASCII)[:3])
