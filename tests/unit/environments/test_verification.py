"""RECORD against the files: what was edited or removed is named with its package."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from fakes import make_wheel, record

from provision.environments import Scan, verify
from provision.host.local import LocalHost

HOST = LocalHost({})


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    site_packages = tmp_path / "lib/python3.10/site-packages"
    for name in ("alpha", "beta_x"):
        make_wheel(tmp_path / "wheels", name, data=b"\x7fELF" * 1000)
        zipfile.ZipFile(tmp_path / "wheels" / f"{name}-1.0-py3-none-any.whl").extractall(site_packages)
    return tmp_path


def test_untouched(environment: Path) -> None:
    heard: list[Scan] = []
    found = verify(HOST, str(environment), tell=heard.append)
    assert found.ok and (found.packages, found.files) == (2, 8)
    assert heard[-1].done == heard[-1].total == found.bytes > 8000
    assert found.mb_per_s > 0


def test_bytecode_and_other_files_are_nobodys_business(environment: Path) -> None:
    (environment / "lib/python3.10/site-packages/alpha/__pycache__").mkdir()
    (environment / "lib/python3.10/site-packages/alpha/__pycache__/x.pyc").write_text("x")
    assert verify(HOST, str(environment)).ok


def test_edited_and_missing(environment: Path) -> None:
    site_packages = environment / "lib/python3.10/site-packages"
    data = site_packages / "alpha/data.bin"
    data.write_bytes(data.read_bytes()[:-1] + b"!")
    (site_packages / "beta_x/__init__.py").unlink()
    alpha, beta = verify(HOST, str(environment)).findings
    assert alpha.text == "`alpha` is not what was installed: 1 edited (`alpha/data.bin`)"
    assert beta.text == "`beta-x` is not what was installed: 1 missing (`beta_x/__init__.py`)"
    assert beta.fix[0].startswith("`sgprov environments repair ")


def test_a_package_without_its_record(environment: Path) -> None:
    (environment / "lib/python3.10/site-packages/alpha-1.0.dist-info/RECORD").unlink()
    (finding,) = verify(HOST, str(environment)).findings
    assert finding.data == {"package": "alpha", "edited": [], "missing": ["RECORD"]}


def test_a_file_that_two_packages_claim_is_right_as_either_says(environment: Path) -> None:
    site_packages = environment / "lib/python3.10/site-packages"
    stray = site_packages / "build_backend.py"
    for name, content in (("alpha", b"one"), ("beta_x", b"two")):
        with (site_packages / f"{name}-1.0.dist-info/RECORD").open("a") as stream:
            stream.write(record({stray.name: content}))
    for content in (b"one", b"two"):
        stray.write_bytes(content)
        assert verify(HOST, str(environment)).ok
    stray.write_bytes(b"three")
    assert [finding.data["package"] for finding in verify(HOST, str(environment)).findings] == ["alpha", "beta-x"]


def test_a_package_that_is_gone_altogether_is_known_from_the_lock(environment: Path) -> None:
    (environment / ".sgprov").mkdir()
    pins = "".join(f"{name}==1.0 --hash=sha256:{'0' * 64}\n" for name in ("alpha", "beta-x", "gamma"))
    (environment / ".sgprov/lock.txt").write_text(pins)
    (finding,) = verify(HOST, str(environment)).findings
    assert finding.data["package"] == "gamma" and finding.data["missing"] == ["all of gamma==1.0"]


def test_where_there_is_nothing_nothing_is_right(tmp_path: Path) -> None:
    (finding,) = verify(HOST, str(tmp_path / "nowhere")).findings
    assert "holds no packages" in finding.text
