"""uv fetches a Python from a mirror that a test makes of an interpreter of this machine: a file, no network."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import tarfile
from pathlib import Path

import pytest

from provision.environments import interpreters
from provision.errors import WrongPython
from provision.host.local import LocalHost
from provision.steps.interpreter import Interpreter

pytestmark = pytest.mark.usefixtures("real_machine")
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
LIBRARY = f"lib/python{VERSION}"


def mirror(folder: Path) -> Path:
    """A tarball with `python/` on top, and the list of downloads that names it. The library is cut to what starts."""
    base = Path(sys.base_prefix)
    if not (base / f"bin/python{VERSION}").exists() or not (base / LIBRARY / "os.py").exists():
        pytest.skip("NOT RUN: this interpreter cannot be packed, it is not in one directory")
    tarball = folder / "python.tar.gz"

    def slim(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        unwanted = ("/site-packages/", "/test/", "/__pycache__", "/config-", "/idlelib/", "/tkinter/")
        return None if any(part in entry.name for part in unwanted) else entry

    # Debian links some files to /etc: uv takes no archive with links that lead out of it.
    with tarfile.open(tarball, "w:gz", compresslevel=1, dereference=True) as archive:
        archive.add(base / f"bin/python{VERSION}", f"python/bin/python{VERSION}")
        for shared in (base / "lib").glob("libpython*.so*"):
            archive.add(shared, f"python/lib/{shared.name}")
        archive.add(base / LIBRARY, f"python/{LIBRARY}", filter=slim)
    family = platform.machine()
    entry = {
        "name": "cpython",
        "arch": {"family": family, "variant": None},
        "os": "linux",
        "libc": "gnu",
        "major": sys.version_info.major,
        "minor": sys.version_info.minor,
        "patch": sys.version_info.micro,
        "prerelease": "",
        "url": tarball.as_uri(),
        "sha256": hashlib.sha256(tarball.read_bytes()).hexdigest(),
        "variant": None,
        "build": None,
    }
    listed = folder / "downloads.json"
    listed.write_text(json.dumps({f"cpython-{platform.python_version()}-linux-{family}-gnu": entry}))
    return listed


def machine(folder: Path, **variables: str) -> LocalHost:
    plain = {"PATH": os.environ["PATH"], "HOME": str(folder), "UV_CACHE_DIR": str(folder / "cache")}
    return LocalHost({**plain, **variables})


def test_fetched_from_a_mirror_into_the_prefix(tmp_path: Path) -> None:
    host = machine(tmp_path, UV_PYTHON_DOWNLOADS_JSON_URL=str(mirror(tmp_path)))
    prefix = str(tmp_path / "prefix")
    step = Interpreter(python=VERSION, prefix=prefix)
    assert not step.satisfied(host)
    note = step.apply(host, lambda _: None)
    assert note.startswith(f"Python {platform.python_version()} at `{prefix}/python/cpython-{VERSION}")
    assert step.satisfied(host)
    found = interpreters.managed(host, prefix, VERSION)
    assert found and found.fits(VERSION)
    assert not (tmp_path / ".local/bin").exists(), "nothing is linked into the user's PATH"


def test_one_that_was_tampered_with_is_refused(tmp_path: Path) -> None:
    listed = mirror(tmp_path)
    text = json.loads(listed.read_text())
    for entry in text.values():
        entry["sha256"] = "0" * 64
    listed.write_text(json.dumps(text))
    host = machine(tmp_path, UV_PYTHON_DOWNLOADS_JSON_URL=str(listed))
    with pytest.raises(WrongPython, match="which the stack needs") as caught:
        Interpreter(python=VERSION, prefix=str(tmp_path / "prefix")).apply(host, lambda _: None)
    assert caught.value.exit_status == 3
    assert interpreters.managed(host, str(tmp_path / "prefix"), VERSION) is None


def test_a_mirror_out_of_reach_leaves_the_remedies(tmp_path: Path) -> None:
    host = machine(tmp_path, UV_PYTHON_INSTALL_MIRROR=(tmp_path / "nowhere").as_uri(), UV_HTTP_RETRIES="0")
    with pytest.raises(WrongPython, match=r"this host has no Python 3\.12") as caught:
        Interpreter(python="3.12", prefix=str(tmp_path / "prefix")).apply(host, lambda _: None)
    assert len(str(caught.value)) < 400
    assert "UV_PYTHON_INSTALL_MIRROR" in (caught.value.hint or "")
