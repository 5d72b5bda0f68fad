"""Prove a key against a container registry: who knows it, who lets it in, and what it may fetch.

The protocol: https://distribution.github.io/distribution/spec/auth/token/ . A registry answers 401 to `/v2/` with how
it wants to be asked: `Basic`, or `Bearer` with the address that changes a key into a token for one image.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from provision.errors import LoginRefused, NoEntitlement, Unreachable
from provision.host.addresses import host_of, is_loopback, may_carry_key
from provision.http_client import Authorization
from provision.login.asking import Answer, ask
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


def prove(wanted: Service, key: Key, *, user: str, image: str | None = None, insecure: bool = False) -> str:
    """What was proved, in a sentence. Raises `LoginRefused`, `NoEntitlement` or `Unreachable`, each with its remedy.

    With `image` also that the key may fetch it: a key that is right can lack the product it is for. `insecure` asks
    a registry of another machine without encryption, too.
    """
    registry = wanted.registry or ""
    name = ImageName.parse(image) if image else None
    root = _root(registry, insecure=insecure)
    challenge = challenge_of(registry, root)
    if challenge is None:
        return f"`{registry}` wants no login"
    basic = Authorization.basic(user, key.value)
    if challenge.realm is None:
        _judge(ask(root, basic, insecure=insecure), wanted, key)
        login: Authorization = basic
    else:
        login = _token(challenge, basic, wanted, key, name, insecure=insecure)
    if name:
        _may_fetch(name, login, wanted, insecure=insecure)
        return f"`{registry}` knows the key, and lets it fetch `{name.repository}:{name.tag}`"
    return f"`{registry}` knows the key"


def challenge_of(registry: str, root: str) -> Challenge | None:
    """What `/v2/` answers without a login; None where none is wanted. Raises `Unreachable` for what is no registry."""
    answer = ask(root)
    if answer.status == _OK:
        return None
    given = answer.headers.get("WWW-Authenticate", "")
    if answer.status != _UNAUTHORIZED or not given.lower().startswith(("basic", "bearer")):
        raise Unreachable(
            f"`{registry}` is no container registry: `/v2/` says {answer.status}",
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
    challenge: Challenge, basic: Authorization, wanted: Service, key: Key, name: ImageName | None, *, insecure: bool
) -> Authorization:
    realm = challenge.realm or ""
    host = host_of(realm)
    # One that is itself of this machine may have its tokens made here; another has no business here.
    here = is_loopback(wanted.registry or "") and is_loopback(realm)
    if not (insecure or here or (may_carry_key(realm) and not is_loopback(realm))):
        raise Unreachable(f"`{wanted.registry}` wants the key sent to `{realm}`, which is not encrypted")
    parameters = {"service": challenge.service} if challenge.service else {}
    if name:
        parameters["scope"] = f"repository:{name.repository}:pull"
    answer = ask(realm, basic, parameters=parameters, insecure=insecure)
    if name and answer.status == _FORBIDDEN:
        raise _not_entitled(name, wanted)
    _judge(answer, wanted, key)
    body = answer.body
    token = (body.get("token") or body.get("access_token")) if isinstance(body, dict) else None
    if not isinstance(token, str):
        raise Unreachable(f"`{host}` answers without a token: it is not the registry's own", hint="a proxy in between?")
    return Authorization.bearer(token)


def _may_fetch(name: ImageName, login: Authorization, wanted: Service, *, insecure: bool) -> None:
    url = f"{_root(name.host, insecure=insecure)}{name.repository}/manifests/{name.tag}"
    answer = ask(url, login, method="HEAD", headers={"Accept": _MANIFESTS}, insecure=insecure)
    if answer.status in {_UNAUTHORIZED, _FORBIDDEN}:
        raise _not_entitled(name, wanted)
    if answer.status == _NOT_FOUND:
        raise NoEntitlement(
            f"`{name.registry}` has no `{name.repository}:{name.tag}`, or does not show it to this key",
            hint="look at the name and the tag, then at what the key's organisation may have",
        )
    if answer.status != _OK:
        raise Unreachable(f"`{name.registry}` says {answer.status} for `{name.repository}:{name.tag}`")


def _judge(answer: Answer, wanted: Service, key: Key) -> None:
    registry = wanted.registry
    if answer.status == _OK:
        return
    if answer.status == _UNAUTHORIZED:
        user = f"the user is literally `{wanted.user}`; " if wanted.user else ""
        raise LoginRefused(
            f"`{registry}` does not know the key of {key.source} (401)",
            hint=f"{user}a key that was deleted or cut while pasting ends like this: get one at {wanted.where}",
        )
    if answer.status == _FORBIDDEN:
        raise LoginRefused(
            f"`{registry}` knows the key of {key.source} and does not let it in (403)",
            hint="its permissions lack this service: make a key with `NGC Catalog`, or ask the organisation's owner",
        )
    raise Unreachable(f"`{registry}` says {answer.status} to a login", hint="try again in a while")


def _not_entitled(name: ImageName, wanted: Service) -> NoEntitlement:
    return NoEntitlement(
        f"the key is right, and `{wanted.registry}` does not let it fetch `{name.repository}:{name.tag}`",
        hint="accept the image's licence on its page, or ask for the subscription it belongs to; then a new key",
    )


def _root(registry: str, *, insecure: bool) -> str:
    # Docker, too, speaks HTTP with registries on this machine only.
    return f"{'http' if insecure or is_loopback(registry) else 'https'}://{registry}/v2/"
