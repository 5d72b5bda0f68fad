"""The Dockerfile of a lock: by hash, labelled, and not as root."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from provision.catalog.load import Catalog
from provision.containers import dockerfile
from provision.containers.dockerfile import Recipe
from provision.errors import UsageError
from provision.locks.lockfile import Lock


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    path = tmp_path / "s.cp312.x86_64.txt"
    path.write_text("alpha==1.0 \\\n    --hash=sha256:" + "0" * 64 + "\n")
    return Recipe(lock=Lock(path, "s", "3.12", "x86_64"), base="ubuntu:24.04", version="0.1.0")


def test_installed_by_hash_in_a_stage_that_stays_behind(recipe: Recipe) -> None:
    text = dockerfile.render(recipe)
    first, second = text.split("\n\n")
    assert first.startswith("FROM ubuntu:24.04 AS install") and second.startswith("FROM ubuntu:24.04\n")
    assert "--require-hashes --only-binary :all: /build/requirements.txt" in first
    assert "uv --no-config venv --no-python-downloads --python 3.12 /opt/engine" in first
    assert "COPY --from=install /opt/engine /opt/engine" in second
    assert 'LABEL sgprov.stage="install"' in first and "sgprov.stage" not in second
    assert "uv" not in second.replace("VIRTUAL_ENV", "")
    assert second.rstrip().endswith("USER 10001:10001")


def test_labelled_with_the_digest_of_its_lock(recipe: Recipe) -> None:
    assert f'LABEL sgprov.lock-digest="sha256:{recipe.lock.digest}"' in dockerfile.render(recipe)


def test_without_a_network(recipe: Recipe) -> None:
    offline = Recipe(lock=recipe.lock, base=recipe.base, version="0", offline=True)
    text = dockerfile.render(offline)
    assert "--no-index --find-links /build/wheels" in text and "ARG" not in text


def test_the_variant_has_a_version_for_each_part() -> None:
    parts = dockerfile.components("efa", Catalog().components)
    assert [part.name for part in parts] == ["EFA installer", "GDRCopy", "NCCL"]
    assert all(part.version in part.run.format(version=part.version) for part in parts)
    assert all(re.match(r"\d+\.\d+", part.version) for part in parts)
    # A download that fails must fail the build: in a pipe the shell would only see its last word.
    assert not any("| tar" in part.run for part in parts)
    with pytest.raises(UsageError, match="there is no variant `rocm`"):
        dockerfile.components("rocm", parts)


@pytest.mark.parametrize("base", ["", "a b", "-f", "a\nRUN x"])
def test_a_base_is_a_name(base: str) -> None:
    with pytest.raises(UsageError):
        dockerfile.check_base(base)
