"""What looks like a key, and what is told of one that does not; never the key itself."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from provision.errors import UsageError
from provision.login import keys
from provision.login.keys import HUB, NGC, Key

NEW = "nvapi-" + "aB3_-" * 13
OLD = "Zm9vYmFy" * 11
GOOD = [NEW, "nvapi-" + "x" * 64, OLD[:84], OLD[:85] + "=", OLD[:86], OLD[:86] + "==", OLD[:84] + "=="]


@pytest.mark.parametrize("value", GOOD)
def test_both_generations_of_ngc_keys(value: str) -> None:
    keys.check_shape(Key(value, "NGC_API_KEY"), NGC)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("", "there is no key in NGC_API_KEY"),
        (f'"{NEW}"', "with quotes around it"),
        (f"{NEW} {NEW}", "with blanks in it"),
        (f"NGC_API_KEY={NEW}", "with a `=`"),
        ("hf_" + "a" * 34, "a Hugging Face token"),
        (NEW[:15], "15 characters"),
        (OLD[:60], "60 characters"),
    ],
)
def test_what_is_none_is_described_and_not_shown(value: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        keys.check_shape(Key(value, "NGC_API_KEY"), NGC)
    assert told in str(caught.value)
    assert not value or value not in str(caught.value) + (caught.value.hint or "")


def test_a_key_is_in_no_representation() -> None:
    assert NEW not in repr(Key(NEW, "a file")) + str(Key(NEW, "a file"))


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(f"{NEW}\n")
    path.chmod(0o644)
    with pytest.raises(UsageError, match=re.escape("(mode 644) is open to others")):
        keys.from_file(str(path))
    path.chmod(0o600)
    assert keys.from_file(str(path)).value == NEW
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        keys.from_file(str(tmp_path / "none"))


def test_standard_input_gives_its_first_line() -> None:
    assert keys.from_stream(io.StringIO(f"{NEW}\nmore\n")).value == NEW


def test_the_first_variable_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NGC_API_KEY", raising=False)
    monkeypatch.delenv("NGC_CLI_API_KEY", raising=False)
    assert keys.from_environment(NGC) is None
    monkeypatch.setenv("NGC_CLI_API_KEY", NEW)
    found = keys.from_environment(NGC)
    assert found and (found.value, found.source) == (NEW, "NGC_CLI_API_KEY")


def test_services() -> None:
    assert keys.service("ngc") is NGC and keys.service("nvcr.io") is NGC
    assert NGC.user == "$oauthtoken"
    assert keys.service("hf") is HUB
    assert keys.service("127.0.0.1:5000", user="me").registry == "127.0.0.1:5000"
    for wrong in ("ngcc", "https://nvcr.io", "nvcr.io/nim", ""):
        with pytest.raises(UsageError):
            keys.service(wrong)
