"""The table of options: what a flag, a variable or sgprov.yml can ask for, from which all three and their page come."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from provision.errors import UsageError

VARIABLE_PREFIX = "SGPROV_"
# Not four numbers: that would be an address, and a wrong one.
_HOST_NAME = re.compile(r"(?![0-9.]+$)[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_SERVED_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_TYPES = {str: "text", int: "a whole number", float: "a number", tuple: "a list"}


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option: `name` is its key in sgprov.yml, its flag and its variable are made from it.

    `metavar` stands for its value, `help` is the flag's, `default` says what holds where nobody asks, `example` is a
    value as YAML. `between` are the smallest and the largest number, both included. An option without a flag is asked
    for behind `--`. An `explicit` one is taken from no variable, and from no file that nobody named; one that is
    `named_file_only`, because it runs code or says where state lies, from any variable.
    """

    name: str
    metavar: str
    help: str
    default: str
    example: str
    kind: type = str
    short: str | None = None
    has_flag: bool = True
    between: tuple[float, float] | None = None
    explicit: bool = False
    named_file_only: bool = False

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}" if self.has_flag else "--"

    @property
    def variable(self) -> str:
        return f"{VARIABLE_PREFIX}{self.name.upper()}"

    def value(self, given: Any, *, source: str) -> Any:
        """What was given as the option's type. Raises `UsageError` for what cannot be one; `source` is who gave it."""
        if self.name == "python" and isinstance(given, float):
            # YAML's `python: 3.10` arrives as the number 3.1: refused, not guessed.
            raise UsageError(f"`python: {given}` in {source} is a number", hint='quote it: `python: "3.10"`')
        if self.kind is tuple:
            return self._words(given, source=source)
        if self.kind is bool:
            if not isinstance(given, bool):
                raise UsageError(f"`{self.name}` in {source} must be `true` or `false`, not `{given}`")
            return given
        if isinstance(given, str):
            _check_printable(self.name, given, source=source)
        if isinstance(given, bool) or not isinstance(given, (str, int, float)):
            raise UsageError(f"`{self.name}` in {source} must be {_TYPES[self.kind]}, not a {type(given).__name__}")
        try:
            value = self.kind(given)
        except (ValueError, OverflowError):
            raise UsageError(f"`{self.name}` in {source} must be {_TYPES[self.kind]}, not `{given}`") from None
        if self.between and not self.between[0] <= value <= self.between[1]:
            lowest, highest = self.between
            raise UsageError(f"`{self.name}` in {source} must be from {lowest} to {highest}, not {given}")
        _SHAPES.get(self.name, lambda _: None)(value)
        return value

    def _words(self, given: Any, *, source: str) -> tuple[str, ...]:
        if isinstance(given, str):
            # A variable, or a line in the file: words as a shell reads them.
            import shlex  # noqa: PLC0415  # only where there is a line to be read

            try:
                return tuple(shlex.split(given))
            except ValueError as error:
                raise UsageError(f"`{self.name}` in {source} cannot be split into words: {error}") from None
        if not isinstance(given, (list, tuple)):
            raise UsageError(f"`{self.name}` in {source} must be a list, not a {type(given).__name__}")
        for word in given:
            if isinstance(word, bool) or not isinstance(word, (str, int, float)):
                raise UsageError(
                    f"`{self.name}` in {source} holds a {type(word).__name__}", hint="quote each word that is not text"
                )
        return tuple(str(word) for word in given)


def _check_printable(name: str, value: str, *, source: str) -> None:
    """Raise `UsageError` for control characters: in a path or a name they only ever hide what it is."""
    if odd := next((character for character in value if not character.isprintable()), None):
        raise UsageError(f"`{name}` in {source} holds a character that cannot be printed: {odd!a}")


def _check_name(value: str) -> None:
    if not _NAME.fullmatch(value):
        raise UsageError(
            f"`{value}` cannot name a server", hint="use small letters, digits, `.`, `_` and `-`, at most 63 of them"
        )


def _check_served_name(value: str) -> None:
    if not _SERVED_NAME.fullmatch(value):
        raise UsageError(
            f"`{value}` cannot name a model", hint="use letters, digits and `._:/@+-`, at most 200 of them, no spaces"
        )


def _check_chat_template(value: str) -> None:
    if not value.endswith((".jinja", ".json")):
        hint = "a file that ends in `.jinja`, as `chat_template.jinja` of many models on the hub"
        raise UsageError(f"`{value}` is not a chat template", hint=hint)


def _check_revision(value: str) -> None:
    if not _REVISION.fullmatch(value) or ".." in value:
        raise UsageError(f"`{value}` is not a revision", hint="a commit, a tag or a branch of the model on the hub")


def _check_bind(value: str) -> None:
    import ipaddress  # noqa: PLC0415  # only where an address is asked for

    try:
        ipaddress.ip_address(value)
    except ValueError:
        if not _HOST_NAME.fullmatch(value):
            hint = "such as `127.0.0.1`, `0.0.0.0` or `::`"
            raise UsageError(f"`{value}` is not an address to listen on", hint=hint) from None


def _check_python(value: str) -> None:
    if "/" in value and (odd := re.search(r"[\s&|;<>()$`\"'\\*?\[\]{}]", value)):
        hint = "name the interpreter alone, such as `/usr/bin/python3.10`"
        raise UsageError(f"`{value}` is not the path of a Python: it holds {odd[0]!a}", hint=hint)
    if "/" not in value and not re.fullmatch(r"3\.\d{1,2}(\.\d{1,2})?", value):
        raise UsageError(f"`{value}` is not a Python", hint="a version such as `3.10`, or the path of an interpreter")


# What an option's value must look like beside its type: each raises `UsageError`.
_SHAPES: Mapping[str, Callable[[Any], None]] = {
    "name": _check_name,
    "served_model_name": _check_served_name,
    "revision": _check_revision,
    "chat_template": _check_chat_template,
    "bind": _check_bind,
    "python": _check_python,
}

OPTIONS = (
    Option(
        name="target",
        short="-t",
        metavar="NAME",
        help="Target to deploy; see `sgprov targets`.",
        default="the target that fits this machine best",
        example="cpu",
    ),
    Option(
        name="prefix",
        metavar="DIR",
        help="Directory for environments, servers and receipts.",
        default="the target's, mostly `~/.local/share/sgprov`",
        example="/srv/sgprov",
        named_file_only=True,
    ),
    Option(
        name="python",
        metavar="VERSION|PATH",
        help="Python to use, such as 3.10 or /usr/bin/python3.10.",
        default="the newest Python of this machine that the stack has wheels for, else one that uv fetches",
        example='"3.12"',
        named_file_only=True,
    ),
    Option(
        name="stack",
        metavar="NAME",
        help="Stack or image of the target to use.",
        default="the first one of the target that fits",
        example="sglang-0.5.23",
    ),
    Option(
        name="image",
        metavar="IMAGE",
        help="Container image to serve from, or to run the target's stack in.",
        default="the target's image if it has one, else no container",
        example="debian:12",
        named_file_only=True,
    ),
    Option(
        name="container_engine",
        metavar="NAME",
        help="Container engine: docker or podman.",
        default="the first one that is usable",
        example="podman",
    ),
    Option(
        name="gpus",
        metavar="0,1",
        help="Indices of the GPUs to use.",
        default="all GPUs",
        example='"0,1"',
    ),
    Option(
        name="model",
        metavar="ID|DIR",
        help="Hugging Face id, directory, or name in the model directory.",
        default="the target's",
        example="Qwen/Qwen3-0.6B",
    ),
    Option(
        name="revision",
        metavar="COMMIT|TAG",
        help="Revision of a hub model; a commit pins it.",
        default="`main`; the receipt says which commit that was",
        example="c1899de289a04d12100db370d81485cdf75e47ca",
    ),
    Option(
        name="allow_pickle",
        kind=bool,
        metavar="",
        help="Load weights that are pickles (.bin, .pt), which can run any code.",
        default="false: only safetensors and GGUF are loaded",
        example="true",
        explicit=True,
    ),
    Option(
        name="served_model_name",
        metavar="NAME",
        help="Name that clients use for the model.",
        default="the name that `model` was given by",
        example="chat",
    ),
    Option(
        name="chat_template",
        metavar="FILE",
        help="Chat template (.jinja) for a model without one.",
        default="the model's own",
        example="/srv/models/chat.jinja",
    ),
    Option(
        name="model_directory",
        metavar="DIR",
        help="Directory that holds models.",
        default="the target's, mostly `models` in the prefix",
        example="/srv/models",
        named_file_only=True,
    ),
    Option(
        name="cache_directory",
        metavar="DIR",
        help="Hugging Face cache, or NIM cache.",
        default="`HF_HOME`, else the target's",
        example="/srv/cache",
        named_file_only=True,
    ),
    Option(
        name="port",
        metavar="N|auto",
        help="Port to serve on; `auto` picks a free one.",
        default="the target's, mostly 30000",
        example="31000",
    ),
    Option(
        name="bind",
        metavar="ADDRESS",
        help="Address to listen on, such as 0.0.0.0.",
        default="the target's, mostly 127.0.0.1",
        example="127.0.0.1",
    ),
    Option(
        name="allow_unauthenticated",
        kind=bool,
        metavar="",
        help="Serve on an open address without a key: whoever reaches it may use, change and stop the server.",
        default="false: a server on an open address asks for a key",
        example="true",
        explicit=True,
    ),
    Option(
        name="insecure",
        kind=bool,
        metavar="",
        help="Fetch from a model hub without encryption (`http://` in HF_ENDPOINT), with the token.",
        default="false: a hub on another machine is asked over `https://` only",
        example="true",
        explicit=True,
    ),
    Option(
        name="name",
        metavar="NAME",
        help="Server name [default: target or NIM name].",
        default="the name of the target, or of the NIM",
        example="chat",
    ),
    Option(
        name="context_length",
        kind=int,
        metavar="TOKENS",
        help="Longest context to serve.",
        default="the target's, else the model's",
        example="8192",
        between=(1, 100_000_000),
    ),
    Option(
        name="mem_fraction",
        kind=float,
        metavar="0-1",
        help="Share of GPU memory for weights and KV cache.",
        default="the target's, else the engine's",
        example="0.85",
        between=(0.01, 1.0),
    ),
    Option(
        name="extra",
        kind=tuple,
        has_flag=False,
        metavar="WORD...",
        help="Arguments after `--` are passed to the engine.",
        default="none",
        example="[--tp-size, 2]",
        named_file_only=True,
    ),
)
OPTION = {option.name: option for option in OPTIONS}
# Flags of `sgprov bootstrap` that say how one run goes, and nothing of the server: no file and no variable holds them.
ONE_RUN = ("free_port", "dry_run", "only", "skip", "no_smoke", "stop", "bundle", "forget", "config", "json")
