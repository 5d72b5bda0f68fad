"""Checks of credentials, by their shape and the modes of their files; their values are never shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from provision.checks.base import Context, check, error, info, warning
from provision.login import store
from provision.login.keys import HUB, NGC, Key, Service, describe
from provision.report import Finding
from provision.steps.model_files import locate

_check = partial(check, "credentials")
_OTHERS = 0o077
_LOGIN_NGC = f"`sgprov login ngc`, with a key from {NGC.where}"
_LOGIN_HF = f"`sgprov login hf`, with a token from {HUB.where}"
# Whose models ask for a licence to be accepted first.
_GATED = ("meta-llama/", "google/gemma", "mistralai/", "CohereForAI/", "CohereLabs/", "black-forest-labs/")


def _needs_login(context: Context) -> bool:
    image = context.decision.image if context.decision else None
    return bool(image and image.login) or any(one.image and one.image.login for one in context.candidates)


@_check(
    "credential-ngc",
    "There is a key for NVIDIA's registry",
    looks_at="NGC_API_KEY (its shape only) and the logins in ~/.docker/config.json",
    why="the image is behind a login: without it the pull ends with 401 after everything else was done",
    remedy=_LOGIN_NGC,
    # A recording holds no secrets, not even whether there were any.
    applies=lambda context: _needs_login(context) and not context.view.recorded,
)
def credential_ngc(context: Context) -> Iterator[Finding]:
    if _secret(context, NGC) is None and store.find(context.view, "nvcr.io") is None:
        yield error("no key for nvcr.io: NGC_API_KEY is not set and Docker has no login", _LOGIN_NGC)


@_check(
    "credential-ngc-shape",
    "The NGC key looks like one",
    looks_at=f"the shape of NGC_API_KEY: {NGC.looks}",
    why="a key that was cut while pasting, or has quotes or a line break in it, is refused with 401 like a wrong one",
    remedy="`export NGC_API_KEY=…` again, without quotes in the value; `sgprov login ngc` says whether it is known",
)
def credential_ngc_shape(context: Context) -> Iterator[Finding]:
    key = _secret(context, NGC)
    if key is not None and not NGC.shape.fullmatch(key.value):
        say = error if _needs_login(context) else warning
        yield say(f"{key.source} does not look like a key: {describe(key)}", f"`export {key.source}=…` again")


@_check(
    "credential-hf",
    "There is a token for a gated model",
    looks_at="HF_TOKEN and the token file, where the model is one that asks for a licence and is not on this host",
    why="a gated model answers 401 when the server wants to load it",
    remedy=f"accept the licence on the model's page, then {_LOGIN_HF}",
    applies=lambda context: (context.serve.model or "").startswith(_GATED) and not context.view.recorded,
)
def credential_hf(context: Context) -> Iterator[Finding]:
    model, places = context.serve.model or "", context.places
    if locate(context.view, model, models=places.models, huggingface=places.huggingface):
        return
    if _secret(context, HUB) is None and context.view.stat(store.token_path(context.view)) is None:
        yield warning(f"`{model}` is gated and there is no Hugging Face token", f"accept its licence, then {_LOGIN_HF}")


@_check(
    "credential-hf-shape",
    "The Hugging Face token looks like one",
    looks_at=f"the shape of HF_TOKEN: {HUB.looks}",
    why="a wrong token is worse than none: public models, too, answer 401 with it",
    remedy="`unset HF_TOKEN`, or `sgprov login hf` again",
)
def credential_hf_shape(context: Context) -> Iterator[Finding]:
    key = _secret(context, HUB)
    if key is not None and not HUB.shape.fullmatch(key.value):
        yield warning(
            f"{key.source} does not look like a token: {describe(key)}",
            f"`unset {key.source}`, or `sgprov login hf` again",
        )


@_check(
    "credential-files",
    "Files with credentials are readable by their owner only",
    looks_at="the modes of ~/.docker/config.json (with logins in it), of Hugging Face's token, and of ~/.netrc",
    why="on a shared host everybody else can read the key",
    remedy="`chmod 600 FILE`",
)
def credential_files(context: Context) -> Iterator[Finding]:
    paths = [store.token_path(context.view), f"{context.home}/.netrc"]
    if _docker_logins(context):
        paths.append(store.config_path(context.view))
    for path in paths:
        found = context.view.stat(path)
        if found and found.mode & _OTHERS:
            yield warning(f"`{path}` (mode {found.mode:o}) is open to other users", f"`chmod 600 {path}`")


@_check(
    "credential-docker-plain",
    "How Docker keeps its logins",
    looks_at="whether ~/.docker/config.json holds them itself or names a credential store",
    why="without a store they lie there in base64, which is no protection",
    remedy="`credsStore` in ~/.docker/config.json, with docker-credential-pass or -secretservice",
)
def credential_docker_plain(context: Context) -> Iterator[Finding]:
    if plain := sorted(registry for registry, held in _docker_logins(context).items() if held):
        yield info(f"Docker keeps the logins of {', '.join(plain)} unencrypted in {store.config_path(context.view)}")


def _secret(context: Context, service: Service) -> Key | None:
    found = ((name, context.credential(name)) for name in service.variables)
    return next((Key(value, name) for name, value in found if value), None)


def _docker_logins(context: Context) -> dict[str, bool]:
    """Registries that Docker has a login for, and whether the file itself holds it."""
    try:
        given: Any = json.loads(context.view.read(store.config_path(context.view)) or "{}")
        auths = given.get("auths") or {}
        return {str(name): bool(entry.get("auth")) for name, entry in auths.items()}
    except (ValueError, AttributeError, RecursionError):
        return {}


CHECKS = (
    *(credential_ngc, credential_ngc_shape, credential_hf, credential_hf_shape),
    *(credential_files, credential_docker_plain),
)
