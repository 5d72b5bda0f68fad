"""401, 403, no entitlement and unreachable are four answers, each with its remedy."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest
from fakes import FakeHost
from unit.login.stand_in_registry import GOOD_KEY, NARROW_KEY, USER, StandIn, running

from provision.errors import LoginRefused, NoEntitlement, ProvisionError, Unreachable
from provision.http_client import Authorization
from provision.login import hub, registry
from provision.login.keys import NGC, Key
from provision.login.registry import Challenge, ImageName, parse_challenge

pytestmark = pytest.mark.usefixtures("real_machine")


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with running() as found:
        yield found


def prove(stand_in: StandIn, key: str, image: str | None = None) -> str:
    wanted = replace(NGC, registry=stand_in.host)
    named = f"{stand_in.host}/{image}" if image else None
    return registry.prove(wanted, Key(key, "NGC_API_KEY"), user=USER, image=named)


def test_the_right_key(stand_in: StandIn) -> None:
    assert prove(stand_in, GOOD_KEY) == f"`{stand_in.host}` knows the key"
    assert "lets it fetch `nim/meta/llama:1.0`" in prove(stand_in, GOOD_KEY, "nim/meta/llama:1.0")
    assert not any(GOOD_KEY in path for path in stand_in.seen), "a key is in no address"


@pytest.mark.parametrize(
    ("key", "image", "kind", "told"),
    [
        ("nvapi-" + "w" * 64, None, LoginRefused, "does not know the key of NGC_API_KEY (401)"),
        (NARROW_KEY, None, LoginRefused, "does not let it in (403)"),
        (GOOD_KEY, "nim/qwen/qwen3:1", NoEntitlement, "the key is right"),
        (GOOD_KEY, "nim/meta/llama:absent", NoEntitlement, "has no `nim/meta/llama:absent`"),
    ],
)
def test_what_goes_wrong(stand_in: StandIn, key: str, image: str | None, kind: type[ProvisionError], told: str) -> None:
    with pytest.raises(kind) as caught:
        prove(stand_in, key, image)
    assert told in str(caught.value) and caught.value.hint
    assert key not in f"{caught.value!r} {caught.value.hint}"
    assert caught.value.exit_status == 4


def test_nobody_there() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(Unreachable, match="refused the connection"):
        prove(StandIn(host=host), GOOD_KEY)


def test_challenges() -> None:
    text = 'Bearer realm="https://nvcr.io/proxy_auth",service="nvcr.io",scope="repository:nim:pull"'
    assert parse_challenge(text) == Challenge(realm="https://nvcr.io/proxy_auth", service="nvcr.io")
    assert parse_challenge('Basic realm="Registry Realm"') == Challenge(realm=None)


def test_a_key_is_not_sent_in_the_clear() -> None:
    with pytest.raises(Unreachable, match="not encrypted"):
        ask_for_token("http://example.org/token", insecure=False)


def ask_for_token(realm: str, *, insecure: bool) -> None:
    basic = Authorization.basic(USER, GOOD_KEY)
    registry._token(Challenge(realm=realm), basic, NGC, Key(GOOD_KEY, "x"), None, insecure=insecure)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("nvcr.io/nim/meta/llama:1.0", ("nvcr.io", "nim/meta/llama", "1.0")),
        ("lmsysorg/sglang:latest-cu130", ("docker.io", "lmsysorg/sglang", "latest-cu130")),
        ("debian", ("docker.io", "library/debian", "latest")),
        ("127.0.0.1:5000/a@sha256:ff", ("127.0.0.1:5000", "a", "sha256:ff")),
        ("localhost/a", ("localhost", "a", "latest")),
    ],
)
def test_names_of_images(text: str, parts: tuple[str, str, str]) -> None:
    name = ImageName.parse(text)
    assert (name.registry, name.repository, name.tag) == parts


def test_a_token_for_the_hub(stand_in: StandIn) -> None:
    host = FakeHost()
    host.variables = {"HF_ENDPOINT": f"http://{stand_in.host}", "HOME": "/home/ada"}
    key = Key("hf_" + "a" * 34, "HF_TOKEN")
    assert "as `ada`" in hub.prove(host, key)
    assert hub.save(host, key) == "/home/ada/.cache/huggingface/token"
    assert host.files["/home/ada/.cache/huggingface/token"] == key.value
    with pytest.raises(LoginRefused, match=r"does not know the token of HF_TOKEN \(401\)"):
        hub.prove(host, Key("hf_" + "b" * 34, "HF_TOKEN"))
    assert hub.forget(host) and not hub.forget(host)
