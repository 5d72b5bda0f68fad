"""Interpreters that lie where they are looked for, but for whoever put them there: they are not asked what they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from provision.facts.pythons import probe_pythons
from provision.facts.sources import PartlyTold
from provision.host.local import LocalHost

KIND = "planted program"


@pytest.mark.usefixtures("real_machine")
@pytest.mark.parametrize("where", ["PATH", "pyenv"])
@pytest.mark.parametrize("how", ["everyone's", "a link", pytest.param("a stranger's", marks=pytest.mark.attack)])
@pytest.mark.tried(
    KIND, "A `python3.12` of another user's on the PATH, or in a home that `sudo` kept: `doctor` asks it"
)
def test_an_interpreter_that_others_could_have_put_there_is_not_run(tmp_path: Path, where: str, how: str) -> None:
    folder = tmp_path / ("bin" if where == "PATH" else ".pyenv/versions/3.12.9/bin")
    python = folder / "python3.12"
    folder.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nprintf 'cpython\\t3.12.9\\t{python}\\t1\\t1\\n'\n")
    python.chmod(0o755)
    path = f"{folder}:/usr/bin:/bin" if where == "PATH" else "/usr/bin:/bin"
    host = LocalHost({"PATH": path, "HOME": str(tmp_path)})
    assert str(python) in {one.path for one in probe_pythons(host)}
    (tmp_path / "ran").unlink()
    if how == "a link":
        (tmp_path / "shared").mkdir()
        python.rename(tmp_path / "shared/python")
        (tmp_path / "shared").chmod(0o777)
        python.symlink_to(tmp_path / "shared/python")
    elif how == "everyone's":
        folder.chmod(0o777)
    else:
        os.chown(python, 54321, 54321)
    with pytest.raises(PartlyTold) as told:
        probe_pythons(host)
    assert not (tmp_path / "ran").exists()
    assert isinstance(told.value.found, tuple) and str(python) not in {one.path for one in told.value.found}
