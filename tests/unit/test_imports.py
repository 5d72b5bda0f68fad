"""Imports point down only, so that every part can be read and tested without what stands on it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "provision"
LAYERS = [
    *("errors", "report", "secrets", "output", "trust", "documents", "options", "config"),
    *("host", "http_client"),
    *("facts", "catalog", "locks", "assume", "decision"),
    *("environments", "diagnosis", "containers", "login", "serving"),
    *("remembered", "replaced"),
    *("steps", "plan", "models", "launches", "checks", "runner"),
    *("launch_warnings", "bootstrap", "bundle", "benchmark", "experiments", "slurm", "fleet", "cli"),
]
# `facts` names GPUs by the catalog's table: data that knows nothing of facts.
ALLOWED = {("facts", "catalog"), ("host", "secrets")}
# Who may hold a `Host`: everything else gets a `HostView`, and the type checker refuses a check that changes something.
MAY_CHANGE = {
    *("host", "environments", "containers", "login", "serving", "steps", "runner", "bootstrap"),
    *("bundle", "experiments", "fleet", "slurm", "cli"),
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    """The part of the package that a module belongs to; the package's own `__init__` has none."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[tuple[str, list[str]]]:
    """(module, names) of what is imported when it runs, so not under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom):
            yield node.module or "", [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        yield from imported(node)


def rooms(tree: ast.AST) -> Iterator[str]:
    for module, names in imported(tree):
        if module == "provision":
            yield from (name for name in names if name != "__version__")
        elif module.startswith("provision."):
            yield module.split(".")[1]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    here = room(path)
    if here in {"__init__", "__main__"}:
        return
    assert here in LAYERS, f"{here} has no place in the order"
    for there in rooms(ast.parse(path.read_text())):
        if there != here and (here, there) not in ALLOWED:
            assert LAYERS.index(there) < LAYERS.index(here), f"{path.name} imports {there}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_those_who_change_hold_a_host(path: Path) -> None:
    names = {name for module, names in imported(ast.parse(path.read_text())) for name in names if "host" in module}
    if {"Host", "LocalHost"} & names:
        assert room(path) in MAY_CHANGE, f"{path.name} holds a Host"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_is_two_rooms_in_one(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400
