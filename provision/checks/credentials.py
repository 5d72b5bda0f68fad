"""Checks of credentials, by their shape and the modes of their files; their values are never shown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from provision.checks.base import Context, check, error, info, warning
from provision.report import Finding
from provision.steps.model_files import locate

_check = partial(check, "credentials")
_OTHERS = 0o077
_NGC_NAMES = ("NGC_API_KEY", "NGC_CLI_API_KEY")
# Keys of today start with `nvapi-`; the older ones are 84 to 86 characters of base64 and its padding.
_NGC = re.compile(r"nvapi-[\w-]{20,256}|[A-Za-z0-9]{80,90}={0,2}")
_HF_NAMES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_HF = re.compile(r"hf_[A-Za-z0-9]{20,128}")
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
    remedy="`docker login nvcr.io -u '$oauthtoken'`, with a key from https://org.ngc.nvidia.com/setup/api-keys",
    # A recording holds no secrets, not even whether there were any.
    applies=lambda context: _needs_login(context) and not context.view.recorded,
)
def credential_ngc(context: Context) -> Iterator[Finding]:
    login = "`docker login nvcr.io -u '$oauthtoken'`, with a key from https://org.ngc.nvidia.com/setup/api-keys"
    value = _secret(context, _NGC_NAMES)
    if value is None and "nvcr.io" not in _docker_logins(context):
        yield error("no key for nvcr.io: NGC_API_KEY is not set and Docker has no login", login)


@_check(
    "credential-ngc-shape",
    "The NGC key looks like one",
    looks_at="the shape of NGC_API_KEY: `nvapi-…`, or 84 to 86 characters of base64",
    why="a key that was cut while pasting, or has quotes or a line break in it, is refused with 401 like a wrong one",
    remedy="`export NGC_API_KEY=…` again, without quotes in the value",
)
def credential_ngc_shape(context: Context) -> Iterator[Finding]:
    value = _secret(context, _NGC_NAMES)
    if value is not None and not _NGC.fullmatch(value):
        say = error if _needs_login(context) else warning
        yield say(f"NGC_API_KEY does not look like a key: {_shape(value)}", "`export NGC_API_KEY=…` again")


@_check(
    "credential-hf",
    "There is a token for a gated model",
    looks_at="HF_TOKEN and the token file, where the model is one that asks for a licence and is not on this host",
    why="a gated model answers 401 when the server wants to load it",
    remedy="accept the licence on the model's page, then `hf auth login`",
    applies=lambda context: (context.serve.model or "").startswith(_GATED) and not context.view.recorded,
)
def credential_hf(context: Context) -> Iterator[Finding]:
    model, places = context.serve.model or "", context.places
    if locate(context.view, model, models=places.models, huggingface=places.huggingface):
        return
    if _secret(context, _HF_NAMES) is None and context.view.stat(_token_file(context)) is None:
        yield warning(
            f"`{model}` is gated and there is no Hugging Face token", "accept its licence, then `hf auth login`"
        )


@_check(
    "credential-hf-shape",
    "The Hugging Face token looks like one",
    looks_at="the shape of HF_TOKEN: `hf_…`",
    why="a wrong token is worse than none: public models, too, answer 401 with it",
    remedy="`unset HF_TOKEN`, or `hf auth login` again",
)
def credential_hf_shape(context: Context) -> Iterator[Finding]:
    value = _secret(context, _HF_NAMES)
    if value is not None and not _HF.fullmatch(value):
        yield warning(
            f"HF_TOKEN does not look like a token: {_shape(value)}", "`unset HF_TOKEN`, or `hf auth login` again"
        )


@_check(
    "credential-files",
    "Files with credentials are readable by their owner only",
    looks_at="the modes of ~/.docker/config.json (with logins in it), of Hugging Face's token, and of ~/.netrc",
    why="on a shared host everybody else can read the key",
    remedy="`chmod 600 FILE`",
)
def credential_files(context: Context) -> Iterator[Finding]:
    paths = [_token_file(context), f"{context.home}/.netrc"]
    if _docker_logins(context):
        paths.append(_docker_file(context))
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
        yield info(f"Docker keeps the logins of {', '.join(plain)} unencrypted in {_docker_file(context)}")


def _secret(context: Context, names: tuple[str, ...]) -> str | None:
    return next((value for name in names if (value := context.credential(name))), None)


def _shape(value: str) -> str:
    """What can be said of a secret without saying it."""
    told = [f"{len(value)} characters"]
    if value != value.strip():
        told.append("with blanks around it")
    if value[:1] in "\"'":
        told.append("with quotes in it")
    return ", ".join(told)


def _token_file(context: Context) -> str:
    named = context.view.variable("HF_TOKEN_PATH")
    return named or f"{context.view.variable('HF_HOME') or f'{context.home}/.cache/huggingface'}/token"


def _docker_file(context: Context) -> str:
    return f"{context.view.variable('DOCKER_CONFIG') or f'{context.home}/.docker'}/config.json"


def _docker_logins(context: Context) -> dict[str, bool]:
    """Registries that Docker has a login for, and whether the file itself holds it."""
    try:
        given: Any = json.loads(context.view.read(_docker_file(context)) or "{}")
        auths = given.get("auths") or {}
        return {str(name): bool(entry.get("auth")) for name, entry in auths.items()}
    except (ValueError, AttributeError, RecursionError):
        return {}


CHECKS = (
    *(credential_ngc, credential_ngc_shape, credential_hf, credential_hf_shape),
    *(credential_files, credential_docker_plain),
)
