"""A stack's Python has to start inside the image that it is mounted into, with the libraries that it leaves to it."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from fakes import FakeHost, answer

from provision.environments.layout import Stamp
from provision.errors import StepFailed
from provision.host import Outcome
from provision.steps.inside import StartsInside

PYENV = "/home/ada/.pyenv/versions/3.12.1/bin/python3.12"
STEP = StartsInside(
    program="docker",
    image="debian:12",
    python="3.12",
    prefix="/p",
    environment="/p/environments/e",
    interpreter=PYENV,
    glibc="2.34",
)


def machine(said: Outcome, *, python: str = PYENV) -> FakeHost:
    answers = {
        f"readlink --canonicalize {python}": answer(f"{python}\n"),
        f"{python} -I -c": answer("3.12.1 CPython x86_64"),
        "docker run --rm --pull never --network none": said,
    }
    return FakeHost(answers=answers)


def applied(host: FakeHost, step: StartsInside = STEP) -> str:
    return step.apply(host, lambda _: None)


def refused(host: FakeHost, step: StartsInside = STEP) -> StepFailed:
    with pytest.raises(StepFailed) as caught:
        applied(host, step)
    return caught.value


def test_it_starts() -> None:
    assert applied(machine(answer("3.12 2.36\n"))) == "Python 3.12 starts in `debian:12` (glibc 2.36)"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            answer("3.12 2.36\nlibssl.so.3\nlibcrypto.so.3\nlibssl.so.3\n"),
            f"`debian:12` has not what the Python at `{PYENV}` loads: libssl.so.3, libcrypto.so.3",
        ),
        (
            answer(rc=127, err="docker: Error response\nexec /x: no such file or directory"),
            f"the Python at `{PYENV}` does not start in `debian:12`: exec /x: no such file or directory",
        ),
        (answer("3.11 2.36\n"), f"`{PYENV}` is Python 3.11 in `debian:12`, the stack needs 3.12"),
    ],
)
def test_refused_with_what_helps(said: Outcome, told: str) -> None:
    error = refused(machine(said))
    assert str(error) == told
    assert "uv python install 3.12` gives a Python that brings its own" in (error.hint or "")
    assert "--prefix" not in (error.hint or "")


def test_a_c_library_that_is_too_old() -> None:
    error = refused(machine(answer("3.12 2.31\n")))
    assert (str(error), error.hint) == (
        "`debian:12` has glibc 2.31, the stack's wheels need 2.34",
        "take a newer image",
    )


def test_a_python_that_the_images_user_may_not_read() -> None:
    error = refused(machine(answer(rc=126, err='exec: "/root/p": stat /root/p: permission denied: unknown.')))
    assert str(error) == f"the user that `debian:12` runs as may not read the Python at `{PYENV}`"
    assert "not under /root" in (error.hint or "")


def test_an_environment_that_is_there_is_asked_by_the_python_that_it_keeps() -> None:
    stamp = Stamp(name="e", lock="l", lock_digest="d", python="3.12.1", interpreter="/usr/bin/python3.12", sgprov="0", time="")  # fmt: skip
    host = machine(answer("3.12 2.36\nlibssl.so.3\n"), python="/usr/bin/python3.12")
    host.files["/p/environments/e/.sgprov/stamp.json"] = msgspec.json.encode(stamp).decode()
    host.files["/p/environments/e/bin/python"] = ""
    error = refused(host)
    assert "/usr/bin/python3.12" in str(error) and "name another `--prefix`" in (error.hint or "")


def test_the_systems_own_python_has_to_be_the_images() -> None:
    host, asked = machine(answer("3.12 2.36\n"), python="/usr/bin/python3.12"), list[str]()
    query = host.query

    def listening(argv: list[str], *, timeout_s: float = 10) -> Outcome:
        asked.append(" ".join(argv))
        return query(argv, timeout_s=timeout_s)

    host.query = listening  # type: ignore[method-assign, assignment]
    applied(host, replace(STEP, interpreter="/usr/bin/python3.12"))
    assert "--mount" not in asked[-1], "the image's own /usr is not hidden"
    assert "--entrypoint /usr/bin/python3.12 debian:12" in asked[-1]
