"""Prove a key against a container registry: who knows it, who lets it in, and what it may fetch.

The protocol: https://distribution.github.io/distribution/spec/auth/token/ . A registry answers 401 to `/v2/` with how
it wants to be asked: `Basic`, or `Bearer` with the address that changes a key into a token for one image.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import requests

from provision.errors import LoginRefused, NoEntitlement, Unreachable
from provision.host.addresses import is_loopback
from provision.login.asking import Login, ask
from provision.login.keys import Key, Service

_OK, _UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND = 200, 401, 403, 404
_FIELD = re.compile(r'(\w+)="([^"]*)"')
_MANIFESTS = (
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json"
)


@dataclass(frozen=True, kw_only=True)
class ImageName:
    """Parts of `nvcr.io/nim/meta/llama:1.0` or `…@sha256:…`; Docker Hub where no registry is named."""

    registry: str
    repository: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> ImageName:
        name, at, digest = text.partition("@")
        first, slash, rest = name.partition("/")
        if not slash or not ({".", ":"} & set(first) or first == "localhost"):
            first, rest = "docker.io", name if slash else f"library/{name}"
        repository, colon, tag = rest.rpartition(":")
        if not colon:
            repository, tag = rest, "latest"
        return cls(registry=first, repository=repository, tag=digest if at else tag)

    @property
    def host(self) -> str:
        """Where its registry answers: Docker Hub's is called otherwise than it is named."""
        return "registry-1.docker.io" if self.registry == "docker.io" else self.registry


@dataclass(frozen=True, kw_only=True)
class Challenge:
    """How a registry wants to be asked. `realm` is where a key becomes a token; None for a plain login."""

    realm: str | None
    service: str | None = None


def prove(wanted: Service, key: Key, *, user: str, image: str | None = None) -> str:
    """What was proved, in a sentence. Raises `LoginRefused`, `NoEntitlement` or `Unreachable`, each with its remedy.

    With `image` also that the key may fetch it: a key that is right can lack the product it is for.
    """
    registry = wanted.registry or ""
    name = ImageName.parse(image) if image else None
    challenge = challenge_of(registry)
    if challenge is None:
        return f"`{registry}` wants no login"
    basic = requests.auth.HTTPBasicAuth(user, key.value)
    if challenge.realm is None:
        _judge(ask(_root(registry), basic), wanted, key)
        login: requests.auth.AuthBase = basic
    else:
        login = _token(challenge, basic, wanted, key, name)
    if name:
        _may_fetch(name, login, wanted)
        return f"`{registry}` knows the key, and lets it fetch `{name.repository}:{name.tag}`"
    return f"`{registry}` knows the key"


def challenge_of(registry: str) -> Challenge | None:
    """What `/v2/` answers without a login; None where none is wanted. Raises `Unreachable` for what is no registry."""
    answer = ask(_root(registry))
    if answer.status_code == _OK:
        return None
    given = answer.headers.get("WWW-Authenticate", "")
    if answer.status_code != _UNAUTHORIZED or not given.lower().startswith(("basic", "bearer")):
        raise Unreachable(
            f"`{registry}` is no container registry: `/v2/` says {answer.status_code}",
            hint="name the registry's host alone, such as `nvcr.io`",
        )
    return parse_challenge(given)


def parse_challenge(text: str) -> Challenge:
    """Parse, e.g., `Bearer realm="https://nvcr.io/proxy_auth",service="nvcr.io"`, or `Basic realm="Registry"`."""
    fields = dict(_FIELD.findall(text))
    if text.lower().startswith("basic"):
        return Challenge(realm=None)
    return Challenge(realm=fields.get("realm", ""), service=fields.get("service"))


def _token(
    challenge: Challenge, basic: requests.auth.AuthBase, wanted: Service, key: Key, name: ImageName | None
) -> Login:
    realm = challenge.realm or ""
    host = realm.split("/")[2] if realm.count("/") >= 2 else ""  # noqa: PLR2004  # `https://host…`
    if not realm.startswith("https://") and not (realm.startswith("http://") and is_loopback(host)):
        raise Unreachable(f"`{wanted.registry}` wants the key sent to `{realm}`, which is not encrypted")
    parameters = {"service": challenge.service} if challenge.service else {}
    if name:
        parameters["scope"] = f"repository:{name.repository}:pull"
    answer = ask(realm, basic, parameters=parameters)
    if name and answer.status_code == _FORBIDDEN:
        raise _not_entitled(name, wanted)
    _judge(answer, wanted, key)
    try:
        body = answer.json()
    except ValueError:
        body = {}
    token = (body.get("token") or body.get("access_token")) if isinstance(body, dict) else None
    if not isinstance(token, str):
        raise Unreachable(f"`{host}` answers without a token: it is not the registry's own", hint="a proxy in between?")
    return Login.bearer(token)


def _may_fetch(name: ImageName, login: requests.auth.AuthBase, wanted: Service) -> None:
    url = f"{_root(name.host)}{name.repository}/manifests/{name.tag}"
    answer = ask(url, login, method="HEAD", headers={"Accept": _MANIFESTS})
    if answer.status_code in {_UNAUTHORIZED, _FORBIDDEN}:
        raise _not_entitled(name, wanted)
    if answer.status_code == _NOT_FOUND:
        raise NoEntitlement(
            f"`{name.registry}` has no `{name.repository}:{name.tag}`, or does not show it to this key",
            hint="look at the name and the tag, then at what the key's organisation may have",
        )
    if answer.status_code != _OK:
        raise Unreachable(f"`{name.registry}` says {answer.status_code} for `{name.repository}:{name.tag}`")


def _judge(answer: requests.Response, wanted: Service, key: Key) -> None:
    registry = wanted.registry
    if answer.status_code == _OK:
        return
    if answer.status_code == _UNAUTHORIZED:
        user = f"the user is literally `{wanted.user}`; " if wanted.user else ""
        raise LoginRefused(
            f"`{registry}` does not know the key of {key.source} (401)",
            hint=f"{user}a key that was deleted or cut while pasting ends like this: get one at {wanted.where}",
        )
    if answer.status_code == _FORBIDDEN:
        raise LoginRefused(
            f"`{registry}` knows the key of {key.source} and does not let it in (403)",
            hint="its permissions lack this service: make a key with `NGC Catalog`, or ask the organisation's owner",
        )
    raise Unreachable(f"`{registry}` says {answer.status_code} to a login", hint="try again in a while")


def _not_entitled(name: ImageName, wanted: Service) -> NoEntitlement:
    return NoEntitlement(
        f"the key is right, and `{wanted.registry}` does not let it fetch `{name.repository}:{name.tag}`",
        hint="accept the image's licence on its page, or ask for the subscription it belongs to; then a new key",
    )


def _root(registry: str) -> str:
    # Docker, too, speaks HTTP with registries on this machine only.
    return f"{'http' if is_loopback(registry) else 'https'}://{registry}/v2/"
