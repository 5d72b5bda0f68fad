"""A login is seen to before anything is downloaded, and so are the keys that the container will need."""

from __future__ import annotations

import json

import pytest
from fakes import FakeHost, answer

from provision.errors import StepFailed, UsageError
from provision.steps.registry_login import RegistryLogin

KEY = "nvapi-" + "s" * 64
CONFIG = "/home/ada/.docker/config.json"
IMAGE = "nvcr.io/nim/meta/llama:1"
STEP = RegistryLogin(registry="nvcr.io", image=IMAGE, secrets=("NGC_API_KEY",))


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    monkeypatch.delenv("NGC_API_KEY", raising=False)
    monkeypatch.delenv("NGC_CLI_API_KEY", raising=False)
    host = FakeHost({}, {"docker --version": answer(), "docker login": answer("Login Succeeded"), "chmod": answer()})
    host.variables["HOME"] = "/home/ada"
    return host


def logged_in(host: FakeHost) -> None:
    host.files[CONFIG] = json.dumps({"auths": {"nvcr.io": {"auth": "eA=="}}})


def test_a_login_and_the_key_are_enough(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    logged_in(host)
    assert not STEP.satisfied(host), "the container would have no key"
    monkeypatch.setenv("NGC_API_KEY", KEY)
    assert STEP.satisfied(host)


def test_without_the_key_it_says_where_to_get_one(host: FakeHost) -> None:
    with pytest.raises(StepFailed, match="NGC_API_KEY is not set") as caught:
        STEP.apply(host, lambda _: None)
    assert "org.ngc.nvidia.com" in (caught.value.hint or "")


def test_a_key_that_is_none_is_not_sent(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NGC_API_KEY", "nvapi-short")
    with pytest.raises(UsageError, match="does not look like a key"):
        STEP.apply(host, lambda _: None)
    assert not host.commands


def test_proved_then_kept(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NGC_API_KEY", KEY)
    proved: list[object] = []

    def prove(*_: object, user: str, image: str) -> str:
        proved.append((user, image))
        assert not host.commands, "nothing is kept before it is proved"
        return "proved"

    monkeypatch.setattr("provision.login.registry.prove", prove)
    host.on_run = lambda _: logged_in(host)
    applied = STEP.apply(host, lambda _: None)
    assert proved == [("$oauthtoken", IMAGE)]
    assert applied.findings[0].check == "login-store" and KEY not in repr(applied)
