"""A Python that fits, or the exact words that lead to one."""

from __future__ import annotations

import pytest
from fakes import FakeHost, answer

from provision.environments import interpreters
from provision.errors import WrongPython
from provision.steps.interpreter import Interpreter

OLD = "/usr/bin/python3.10"


def machine(system: str = "ubuntu", version: str = "22.04") -> FakeHost:
    return FakeHost(
        {"/etc/os-release": f'NAME="X"\nID={system}\nVERSION_ID="{version}"\n'},
        {
            OLD: answer("3.10.12 CPython x86_64\n"),
            "/usr/bin/python3.12": answer("3.12.3 CPython x86_64\n"),
            "/usr/bin/pypy3": answer("3.10.12 PyPy x86_64\n"),
            "/usr/bin/broken": answer("", rc=1),
        },
    )


@pytest.mark.parametrize(
    ("system", "version", "expected"),
    [
        (
            "ubuntu",
            "22.04",
            "`sudo apt-get update && sudo apt-get install -y python3.10 python3.10-venv python3.10-dev`",
        ),
        (
            "ubuntu",
            "24.04",
            (
                "`sudo add-apt-repository -y ppa:deadsnakes/ppa && sudo apt-get update && "
                "sudo apt-get install -y python3.10 python3.10-venv python3.10-dev`"
            ),
        ),
        ("arch", "1", "install Python 3.10 with its headers"),
    ],
)
def test_remedy(system: str, version: str, expected: str) -> None:
    assert interpreters.remedy(machine(system, version), "3.10") == expected


def test_an_archive_that_has_no_other_python_leads_to_a_mirror() -> None:
    words = interpreters.remedy(machine("debian", "12"), "3.10")
    assert words.startswith("debian 12 has Python 3.11 only") and "UV_PYTHON_INSTALL_MIRROR" in words


def test_one_that_fits_needs_nothing() -> None:
    step = Interpreter(python="3.10", prefix="/p", path=OLD)
    host = machine()
    assert step.satisfied(host) and not host.commands


@pytest.mark.parametrize("path", ["/usr/bin/python3.12", "/usr/bin/pypy3"])
def test_another_is_refused(path: str) -> None:
    step = Interpreter(python="3.10", prefix="/p", path=path)
    assert not step.satisfied(machine())
    with pytest.raises(WrongPython, match=f"`{path}` is .*, the stack has wheels for 3.10 only") as caught:
        step.apply(machine(), lambda _: None)
    assert caught.value.exit_status == 3 and "python3.10-venv" in (caught.value.hint or "")


@pytest.mark.parametrize("path", ["/usr/bin/broken", "/nowhere/python"])
def test_what_does_not_answer_is_refused(path: str) -> None:
    with pytest.raises(WrongPython, match="not a Python that runs"):
        Interpreter(python="3.10", prefix="/p", path=path).apply(machine(), lambda _: None)


def test_none_and_no_way_to_fetch_one() -> None:
    host = machine("debian", "12")
    with pytest.raises(WrongPython, match="which the stack needs") as caught:
        Interpreter(python="3.10", prefix="/p").apply(host, lambda _: None)
    assert host.commands[0][1:-1] == ("python", "install", "--no-bin", "3.10")
    assert host.given[0]["UV_PYTHON_INSTALL_DIR"] == "/p/python"
    assert caught.value.exit_status == 3 and "UV_PYTHON_INSTALL_MIRROR" in (caught.value.hint or "")


def test_downloads_that_the_user_forbade_are_not_tried() -> None:
    host = machine()
    host.variables["UV_PYTHON_DOWNLOADS"] = "never"
    with pytest.raises(WrongPython, match="UV_PYTHON_DOWNLOADS=never"):
        Interpreter(python="3.10", prefix="/p").apply(host, lambda _: None)
    assert not host.commands


def test_the_newest_that_uv_put_there_is_used() -> None:
    host = machine()
    for patch in ("3.10.9", "3.10.13"):
        path = f"/p/python/cpython-{patch}-linux-x86_64-gnu/bin/python3.10"
        host.files[path] = ""
        host.answers[path] = answer(f"{patch} CPython x86_64")
    found = interpreters.managed(host, "/p", "3.10")
    assert found and found.version == "3.10.13"
