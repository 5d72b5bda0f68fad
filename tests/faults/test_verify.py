"""What can become of the files of an environment: `verify` tells, and `bootstrap` and `repair` end clean."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import marshal
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from faults.boxes import Box

from provision.environments import Verification, is_changed, note_drift, verify
from provision.environments.layout import STAMP, staging_of
from provision.environments.manifest import FILE
from provision.steps import repairing

pytestmark = [pytest.mark.usefixtures("real_machine"), pytest.mark.fault]
KIND = "changed environment"
Change = Callable[[Path], None]


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def site(path: Path) -> Path:
    return next(path.glob("lib/python*/site-packages"))


def rewrite(file: Path, content: bytes) -> None:
    """In place, as an editor or a bad disk does it: the file in uv's cache is the same."""
    with file.open("r+b") as stream:
        stream.truncate()
        stream.write(content)


def edited(path: Path) -> None:
    rewrite(site(path) / "alpha/__init__.py", b"VERSION = '6.6'\n")


def edited_with_its_record(path: Path) -> None:
    edited(path)
    content = (site(path) / "alpha/__init__.py").read_bytes()
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    record = site(path) / "alpha-1.0.dist-info/RECORD"
    lines = [line for line in record.read_text().splitlines() if not line.startswith("alpha/__init__.py")]
    record.write_text("\n".join([*lines, f"alpha/__init__.py,sha256={digest},{len(content)}"]) + "\n")


def record_emptied(path: Path) -> None:
    rewrite(site(path) / "alpha-1.0.dist-info/RECORD", b"")


def record_of_garbage(path: Path) -> None:
    rewrite(site(path) / "alpha-1.0.dist-info/RECORD", b"\x00\xff,,,\n" * 50)


def record_cut_short(path: Path) -> None:
    record = site(path) / "alpha-1.0.dist-info/RECORD"
    rewrite(record, record.read_bytes()[:40])


def record_gone(path: Path) -> None:
    (site(path) / "alpha-1.0.dist-info/RECORD").unlink()


def file_gone(path: Path) -> None:
    (site(path) / "beta_x/data.bin").unlink()


def package_gone_with_its_folder_there(path: Path) -> None:
    shutil.rmtree(site(path) / "alpha")


def package_gone(path: Path) -> None:
    for folder in site(path).glob("alpha*"):
        shutil.rmtree(folder)


def file_emptied(path: Path) -> None:
    rewrite(site(path) / "alpha/data.bin", b"")


def mode_changed(path: Path) -> None:
    (site(path) / "alpha/__init__.py").chmod(0o755)


def module_added(path: Path) -> None:
    (site(path) / "alpha/more.py").write_text("print('hello')\n")


def top_level_added(path: Path) -> None:
    (site(path) / "torch.py").write_text("print('hello')\n")


def pth_added(path: Path) -> None:
    (site(path) / "evil.pth").write_text("import os\n")


def sitecustomize_added(path: Path) -> None:
    (site(path) / "sitecustomize.py").write_text("import os\n")


def bytecode_alone_added(path: Path) -> None:
    (site(path) / "more.pyc").write_bytes(b"x")


def bytecode_made_up(path: Path) -> None:
    source = site(path) / "alpha/__init__.py"
    status = source.stat()
    head = importlib.util.MAGIC_NUMBER + (0).to_bytes(4, "little")
    head += int(status.st_mtime).to_bytes(4, "little") + status.st_size.to_bytes(4, "little")
    cached = Path(importlib.util.cache_from_source(str(source)))
    cached.parent.mkdir()
    cached.write_bytes(head + marshal.dumps(compile("import os", str(source), "exec")))


def bytecode_of_garbage(path: Path) -> None:
    bytecode_made_up(path)
    cached = Path(importlib.util.cache_from_source(str(site(path) / "alpha/__init__.py")))
    cached.write_bytes(cached.read_bytes()[:16] + os.urandom(400))


def distribution_added(path: Path) -> None:
    folder = site(path) / "foreign-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Name: foreign\n")
    (folder / "RECORD").write_text("foreign-1.0.dist-info/METADATA,,\n")


def python_replaced(path: Path) -> None:
    (path / "bin/python").unlink()
    (path / "bin/python").write_text("#!/bin/sh\n")
    (path / "bin/python").chmod(0o755)


def python_led_elsewhere(path: Path) -> None:
    (path / "bin/python").unlink()
    (path / "bin/python").symlink_to("/bin/true")


def pyvenv_changed(path: Path) -> None:
    file = path / "pyvenv.cfg"
    file.write_text(file.read_text().replace("= false", "= true"))


def script_added(path: Path) -> None:
    (path / "bin/nvidia-smi").write_text("#!/bin/sh\n")


def link_to_equal_content(path: Path) -> None:
    file = site(path) / "alpha/data.bin"
    copy = path.parent / "copy.bin"
    shutil.copy2(file, copy)
    file.unlink()
    file.symlink_to(copy)


def pipe_instead(path: Path) -> None:
    file = site(path) / "alpha/data.bin"
    file.unlink()
    os.mkfifo(file)


def pipe_added(path: Path) -> None:
    os.mkfifo(site(path) / "alpha/pipe")


def directory_instead(path: Path) -> None:
    file = site(path) / "alpha/data.bin"
    file.unlink()
    file.mkdir()


def library_folder_linked(path: Path) -> None:
    folder = site(path) / "alpha"
    folder.rename(path.parent / "alpha")
    folder.symlink_to(path.parent / "alpha")


def manifest_changed(path: Path) -> None:
    edited(path)
    file = path / FILE
    file.write_bytes(file.read_bytes().replace(b"alpha/__init__.py", b"alpha/__xxxx__.py"))


def manifest_gone(path: Path) -> None:
    (path / FILE).unlink()


CHANGES = [
    *(edited, edited_with_its_record, record_emptied, record_of_garbage, record_cut_short, record_gone, file_gone),
    *(package_gone_with_its_folder_there, package_gone, file_emptied, mode_changed, module_added, top_level_added),
    *(pth_added, sitecustomize_added, bytecode_alone_added, bytecode_made_up, bytecode_of_garbage, distribution_added),
    *(python_replaced, python_led_elsewhere, pyvenv_changed, script_added, link_to_equal_content, pipe_instead),
    *(pipe_added, directory_instead, library_folder_linked, manifest_changed, manifest_gone),
]


@pytest.mark.tried(
    KIND, "a file edited, emptied, removed, added, or replaced by a link, pipe or folder, RECORD included"
)
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_it_is_told_and_the_next_bootstrap_ends_clean(box: Box, change: Change) -> None:
    lock = box.lock()
    path = Path(box.install(lock))
    expected = box.content(path)
    change(path)
    (finding, *_) = told_in_time(box, path).findings
    note_drift(box.host, str(path), [str(finding.data["package"])] if finding.data["package"] else [])
    assert not box.step(lock).satisfied(box.host)
    box.install(lock)
    assert verify(box.host, str(path)).ok and box.content(path) == expected


@pytest.mark.tried(KIND, "the same, and then `environments repair`")
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_repair_ends_clean(box: Box, change: Change) -> None:
    lock = box.lock()
    path = Path(box.install(lock))
    expected = box.content(path)
    change(path)
    packages = tuple(str(one.data["package"]) for one in told_in_time(box, path).findings if one.data["package"])
    with repairing.step(box.host, box.prefix, str(path), packages) as step:
        step.apply(box.host, lambda _: None)
    assert verify(box.host, str(path)).ok and box.content(path) == expected
    assert box.step(lock).satisfied(box.host)


@pytest.mark.tried(KIND, "the same, seen by the next `bootstrap` alone, without reading any file")
@pytest.mark.parametrize(
    "change",
    [
        *(package_gone_with_its_folder_there, package_gone, record_gone, file_gone, module_added, pth_added),
        *(sitecustomize_added, distribution_added, python_replaced, script_added, link_to_equal_content, pipe_added),
        *(directory_instead, library_folder_linked),
    ],
    ids=lambda change: change.__name__,
)
def test_what_is_gone_or_added_is_seen_at_once(box: Box, change: Change) -> None:
    lock = box.lock()
    path = Path(box.install(lock))
    assert not is_changed(box.host, str(path))
    change(path)
    assert not box.step(lock).satisfied(box.host)
    assert is_changed(box.host, str(path)), "doctor sees it, too"
    box.install(lock)
    assert verify(box.host, str(path)).ok


def told_in_time(box: Box, path: Path) -> Verification:
    found: list[Verification] = []
    thread = threading.Thread(target=lambda: found.append(verify(box.host, str(path))), daemon=True)
    thread.start()
    thread.join(30)
    assert found, "it waits for ever"
    assert not found[0].ok
    return found[0]


def test_bytecode_that_its_own_python_left_is_no_difference(box: Box) -> None:
    lock = box.lock()
    path = Path(box.install(lock))
    for options in ([], ["-O"]):
        subprocess.run([path / "bin/python", *options, "-c", "import alpha, beta_x"], env=box.variables, check=True)
    assert len(list(path.rglob("*.pyc"))) == 4
    assert verify(box.host, str(path)).ok and box.step(lock).satisfied(box.host)


@pytest.mark.tried(KIND, "a repair that is killed, then a bootstrap")
def test_after_a_repair_that_was_killed_nothing_edited_counts(box: Box) -> None:
    lock = box.lock()
    path = Path(box.install(lock))
    edited(path)
    note_drift(box.host, str(path), ["alpha"])
    # What a killed repair leaves: an environment beside its place, half made.
    shutil.copytree(path, staging_of(str(path)), symlinks=True)
    (Path(staging_of(str(path))) / STAMP).unlink()
    assert not box.step(lock).satisfied(box.host)
    box.install(lock)
    assert verify(box.host, str(path)).ok
    assert not Path(staging_of(str(path))).exists()
