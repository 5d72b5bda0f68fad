"""Where logins are kept, read from Docker's own file."""

from __future__ import annotations

import json

import pytest
from fakes import FakeHost, answer, info

from provision.errors import CommandFailed
from provision.login import store
from provision.login.keys import Key
from provision.report import Severity

PATH = "/home/ada/.docker/config.json"
KEY = Key("nvapi-" + "k" * 64, "a file")


def machine(config: dict[str, object] | None = None) -> FakeHost:
    host = FakeHost({PATH: json.dumps(config)} if config else {}, {"docker --version": answer(), "chmod": answer()})
    host.variables["HOME"] = "/home/ada"
    return host


@pytest.mark.parametrize(
    ("config", "helper"),
    [
        ({"auths": {"nvcr.io": {"auth": "eA=="}}}, None),
        ({"auths": {"nvcr.io": {}}, "credsStore": "pass"}, "pass"),
        ({"credHelpers": {"nvcr.io": "secretservice"}}, "secretservice"),
    ],
)
def test_found(config: dict[str, object], helper: str | None) -> None:
    kept = store.find(machine(config), "nvcr.io")
    assert kept == store.Kept(path=PATH, helper=helper)
    said = store.finding(kept, "nvcr.io")
    assert said.severity is (Severity.OK if helper else Severity.WARNING)


@pytest.mark.parametrize("config", [None, {"auths": {"ghcr.io": {"auth": "eA=="}}}, {"auths": []}])
def test_not_found(config: dict[str, object] | None) -> None:
    assert store.find(machine(config), "nvcr.io") is None


def test_the_key_goes_through_a_pipe_and_the_file_is_closed_to_others() -> None:
    host = machine({"auths": {"nvcr.io": {"auth": "eA=="}}})
    host.answers["docker login"] = answer("Login Succeeded")
    host.paths[PATH] = info(mode=0o644)
    store.save(host, "nvcr.io", user="$oauthtoken", key=KEY)
    assert host.commands[0] == ("docker", "login", "--username", "$oauthtoken", "--password-stdin", "nvcr.io")
    assert host.stdins[0] == KEY.value
    assert ("chmod", "600", PATH) in host.commands
    assert not any(KEY.value in word for command in host.commands for word in command)


def test_a_login_that_fails_leaves_the_old_one() -> None:
    host = machine({"auths": {"nvcr.io": {"auth": "old"}}})
    host.answers["docker login"] = answer("unauthorized", rc=1)
    with pytest.raises(CommandFailed) as caught:
        store.save(host, "nvcr.io", user="$oauthtoken", key=KEY)
    assert KEY.value not in str(caught.value)
    assert '"old"' in host.files[PATH]
