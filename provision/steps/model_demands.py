"""What a model must be to be served by an engine: told from its files, minutes before the engine would say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from provision.catalog.engines import ArchitectureRow, engine
from provision.catalog.rows import Serve
from provision.errors import CheckFailed, StepFailed
from provision.host import HostView
from provision.report import Finding, Severity
from provision.steps import model_files

# With this argument the engine reads other values than those of the model's `config.json`.
_OVERRIDE = "--json-model-override-args"
_NO = {"", "0", "false", "no", "off"}


@dataclass(frozen=True, kw_only=True)
class Demands:
    """What is asked of a model. `load_format` dummy is for a server that fills the weights itself.

    `allow_pickle` is what the user says to weights that can run code when they are loaded. `served` are the only
    architectures that are served on the device, None for all; `context_length` the one that was asked for, where the
    engine refuses a longer one than the model's, and `longer_context` the variable with which it does not.
    `chat_template` is whether it has one from elsewhere.
    """

    load_format: str | None = None
    allow_pickle: bool = False
    served: ArchitectureRow | None = None
    context_length: int | None = None
    longer_context: str | None = None
    chat_template: bool = False

    @property
    def weights(self) -> bool:
        return self.load_format != "dummy"

    @property
    def of_configuration(self) -> bool:
        """Whether the model's `config.json` alone may be against it."""
        return self.served is not None or self.context_length is not None

    def check(self, view: HostView, directory: str, *, hint: str | None = None) -> None:
        """Raise `StepFailed` where the model is not whole, `CheckFailed` where it is not to be loaded or served."""
        if found := model_files.problems(view, directory, weights=self.weights):
            raise StepFailed("\n".join(found), hint=hint)
        self.check_configuration(view, directory)
        if not self.weights or self.allow_pickle:
            return
        if pickles := model_files.pickled(view, directory, load_format=self.load_format):
            raise refused(directory, pickles)

    def check_configuration(self, view: HostView, directory: str) -> None:
        """Raise `CheckFailed` for an architecture or a context length that the engine does not serve."""
        config = model_files.configuration(view, directory)
        names = [name for name in config.get("architectures") or () if isinstance(name, str)]
        if self.served and names and not set(names) & set(self.served.architectures):
            raise CheckFailed(
                f"`{directory}` is a {names[0]}; on the `{self.served.device}` device the engine serves only "
                f"{' and '.join(self.served.architectures)}",
                hint=f"{self.served.why}; use one such as `{self.served.such_as}`, or the built-in model",
            )
        self.check_context(view, f"`{directory}`", model_files.context_length(config))

    def check_context(self, view: HostView, model: str, longest: int | None) -> None:
        """Raise `CheckFailed` for a context that is longer than the model's."""
        allowed = self.longer_context and (view.variable(self.longer_context) or "").lower() not in _NO
        if self.context_length and longest and self.context_length > longest and not allowed:
            raise CheckFailed(
                f"a context of {self.context_length} tokens is longer than the {longest} that {model} was made for",
                hint=f"`--context-length {longest}`, or less",
            )

    def met(self, view: HostView, directory: str) -> bool:
        """Whether `check` has nothing to say."""
        try:
            self.check(view, directory)
        except (StepFailed, CheckFailed):
            return False
        return True

    def findings(self, view: HostView, directory: str) -> tuple[Finding, ...]:
        """What is worth to be known of a model that is served nevertheless."""
        if self.chat_template or model_files.has_chat_template(view, directory) is not False:
            return ()
        return (
            Finding(
                check="model-chat",
                severity=Severity.WARNING,
                text=f"`{directory}` has no chat template: it serves `/v1/completions` but not chats",
                fix=("`sgprov bootstrap --chat-template FILE` gives it one",),
            ),
        )


# A whole model, and nothing beyond that.
NONE_MORE = Demands()


def refused(model: str, pickles: Sequence[str]) -> CheckFailed:
    """The error of a model whose weights nobody allowed to be loaded."""
    return CheckFailed(
        f"the weights of `{model}` are pickle files, which can run any code: {', '.join(pickles[:3])}",
        hint="use a copy with safetensors, or pass `--allow-pickle` if you trust who made it",
    )


def demands_of(serve: Serve, name: str | None, version: str | None, *, allow_pickle: bool = False) -> Demands:
    """What the engine `name` asks of a model that is served with those settings."""
    row = engine(name) if name else None
    overridden = any(word.partition("=")[0] == _OVERRIDE for word in serve.extra)
    limits: dict[str, Any] = {}
    if row and version and not overridden:
        rows = row.rows(row.architectures, version)
        limits["served"] = next((one for one in rows if one.device == serve.device), None)
        if row.longer_context:
            asked = handed(serve, "--context-length")
            limits["context_length"] = int(asked) if asked and asked.isdigit() else serve.context_length
            limits["longer_context"] = row.longer_context
    template = serve.chat_template or handed(serve, "--chat-template")
    return Demands(
        load_format=load_format(serve), allow_pickle=allow_pickle, chat_template=template is not None, **limits
    )


def load_format(serve: Serve) -> str | None:
    """As the engine will have it."""
    return handed(serve, "--load-format") or serve.load_format


def handed(serve: Serve, argument: str) -> str | None:
    """The value of an argument among those that are handed to the engine, of which the last one counts."""
    words = [word for one in serve.extra for word in one.split("=", 1)]
    return next((value for name, value in reversed(tuple(pairwise(words))) if name == argument), None)
