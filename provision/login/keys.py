"""Read a key from where keys may come from, and say of its shape what can be said without showing it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from provision import config, documents
from provision.errors import UsageError
from provision.secrets import know


@dataclass(frozen=True)
class Key:
    """A credential. Its value is in no `repr`, so that no traceback and no log of ours can hold it."""

    value: str = field(repr=False)
    source: str

    def __post_init__(self) -> None:
        know(self.value)


@dataclass(frozen=True, kw_only=True)
class Service:
    """Who a key is for. `user` is what the registry takes literally; None where the user has one of their own."""

    name: str
    registry: str | None
    user: str | None
    variables: tuple[str, ...]
    shape: re.Pattern[str]
    looks: str
    where: str


_FILE_BYTES = 64 * 1024
_ANY = re.compile(r"[\x21-\x7e]+")
# `nvapi-` and what follows; the older keys are base64 of 84 to 86 characters, with or without its padding.
NGC = Service(
    name="ngc",
    registry="nvcr.io",
    user="$oauthtoken",
    variables=("NGC_API_KEY", "NGC_CLI_API_KEY"),
    shape=re.compile(r"nvapi-[\w-]{20,256}|[A-Za-z0-9+/]{84,86}={0,2}"),
    looks="`nvapi-…`, or 84 to 86 characters of base64",
    where="https://org.ngc.nvidia.com/setup/api-keys",
)
HUB = Service(
    name="hf",
    registry=None,
    user=None,
    variables=("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
    shape=re.compile(r"hf_[A-Za-z0-9]{20,128}"),
    looks="`hf_…`",
    where="https://huggingface.co/settings/tokens",
)
# What a key of somebody else's begins with, so that a mix-up is named.
_OTHERS = (
    ("nvapi-", "an NGC key"),
    ("hf_", "a Hugging Face token"),
    ("ghp_", "a GitHub token"),
    ("dckr_pat_", "a Docker Hub token"),
    ("sk-", "an OpenAI key"),
)
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::\d{1,5})?|\[[0-9a-f:]+\](?::\d{1,5})?", re.IGNORECASE)


def service(name: str, *, user: str | None = None) -> Service:
    """`ngc`, `hf`, or a registry by its host. Raises `UsageError` for what cannot be one."""
    if name in {"ngc", "nvcr.io"}:
        return NGC
    if name in {"hf", "huggingface", "huggingface.co"}:
        return HUB
    if not _HOST.fullmatch(name) or not ({".", ":"} & set(name) or name == "localhost"):
        raise UsageError(f"`{name}` is neither `ngc`, `hf` nor the host of a registry", hint="such as `ghcr.io`")
    return Service(
        name=name,
        registry=name,
        user=user,
        variables=("SGPROV_REGISTRY_KEY",),
        shape=_ANY,
        looks="one word",
        where=name,
    )


def from_environment(wanted: Service) -> Key | None:
    """The key in the first of its variables that is set."""
    found = ((name, config.secret(name)) for name in wanted.variables)
    return next((Key(value, name) for name, value in found if value), None)


def from_file(path: str) -> Key:
    """The key that is all there is in a file. Raises `UsageError`, also where others could read it."""
    there = Path(path).expanduser()
    try:
        mode, text = there.stat().st_mode, documents.read_input(there, limit=_FILE_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"the key file `{path}` cannot be read: {reason}") from None
    if mode & 0o077:
        raise UsageError(f"the key file `{path}` (mode {mode & 0o777:o}) is open to others", hint=f"`chmod 600 {path}`")
    return Key(text.strip(), f"`{path}`")


def from_stream(stream: TextIO) -> Key:
    """The key on standard input, one line."""
    return Key(stream.readline(4096).strip(), "standard input")


def check_shape(key: Key, wanted: Service) -> None:
    """Raise `UsageError` for what cannot be a key of that service: cut while pasting, quoted, or somebody else's."""
    if not key.value:
        raise UsageError(f"there is no key in {key.source}", hint=f"get one at {wanted.where}")
    if wanted.shape.fullmatch(key.value):
        return
    other = next((whose for prefix, whose in _OTHERS if key.value.startswith(prefix)), None)
    told = other if other and not _own(key.value, wanted) else describe(key)
    raise UsageError(
        f"what {key.source} holds does not look like a key for {wanted.name}: it is {told}",
        hint=f"a key looks like {wanted.looks}; get one at {wanted.where}",
    )


def _own(value: str, wanted: Service) -> bool:
    return (wanted.name, value[:3]) in {("ngc", "nva"), ("hf", "hf_")}


def describe(key: Key) -> str:
    """What can be said of a credential that does not look like one, without saying it."""
    value = key.value
    told = [f"{len(value)} characters"]
    if value[:1] in "\"'" or value[-1:] in "\"'":
        told.append("with quotes around it")
    if any(character.isspace() for character in value):
        told.append("with blanks in it")
    if "=" in value.rstrip("=")[:32]:
        told.append("with a `=` as of `NAME=value`")
    return ", ".join(told)
