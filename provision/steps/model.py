"""The steps that see to the model: one on this host is checked, one on the hub is fetched."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provision import config
from provision.errors import CheckFailed, StepFailed, UsageError
from provision.host import RESERVE_BYTES, Host, HostView
from provision.report import Finding
from provision.secrets import mask
from provision.steps import model_files
from provision.steps.base import Applied, Progress
from provision.steps.model_demands import NONE_MORE, Demands, refused
from provision.steps.model_files import HubCopy

_SCRIPT = Path(__file__).with_name("hub_fetch.py")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}")
_GB = 1e9
# The same weights in formats that the engines do not read when there are safetensors.
_OTHER_FORMATS = (*model_files.PICKLES, "*.gguf", "*.onnx", "*.h5", "*.msgpack", "*.ot", "original/*", "onnx/*")
# What huggingface_hub takes for a yes.
_TRUE = {"1", "ON", "YES", "TRUE"}
_FORMS = "a model is a path on this host, or an id on the hub such as `Qwen/Qwen3-8B`"


@dataclass(frozen=True, kw_only=True)
class LocalModel:
    """The model at `path` is whole, and to be loaded."""

    path: str
    demands: Demands = NONE_MORE

    @property
    def id(self) -> str:
        return "model"

    @property
    def looks_only(self) -> bool:
        return True

    def preview(self) -> str:
        return f"check the model at `{self.path}`"

    def satisfied(self, host: HostView) -> bool:
        return self.demands.met(host, self.path)

    def apply(self, host: Host, tell: Callable[[Progress], None]) -> str:
        tell(Progress(text=self.preview()))
        self.check(host)
        return f"`{self.path}` is whole"

    def findings(self, view: HostView) -> tuple[Finding, ...]:
        """What is worth to be known of it."""
        return self.demands.findings(view, self.path)

    def check(self, view: HostView) -> None:
        self.demands.check(view, self.path, hint="copy the model again, whole; `--model org/name` fetches one")


@dataclass(frozen=True, kw_only=True)
class HubModel:
    """The model of the hub that `copy` describes is on this host.

    `python` is the interpreter of the engine's environment, whose own huggingface_hub fetches. The token is taken
    from the environment variable HF_TOKEN and handed on by name only.
    """

    copy: HubCopy
    python: str
    demands: Demands = NONE_MORE

    @property
    def id(self) -> str:
        return "model"

    @property
    def model(self) -> str:
        return self.copy.model

    @property
    def looks_only(self) -> bool:
        return False

    def preview(self) -> str:
        revision = "" if self.copy.revision == model_files.REVISION else f" at `{self.copy.revision}`"
        return f"fetch `{self.model}`{revision} from the hub into `{self.copy.huggingface}`"

    def path(self, view: HostView) -> str | None:
        """Where it lies, once it is here."""
        return self.copy.path(view)

    def satisfied(self, host: HostView) -> bool:
        # Answered from the disk alone: a host without a way to the hub serves what it has.
        path = self.path(host)
        return path is not None and self.demands.met(host, path)

    def check(self, view: HostView) -> None:
        path = self.path(view)
        if path and not model_files.problems(view, path, weights=self.demands.weights):
            self.demands.check(view, path)
        elif path:
            self.demands.check_configuration(view, path)
        if (view.variable("HF_HUB_OFFLINE") or "").upper() in _TRUE and not self.satisfied(view):
            raise self._explained({"event": "error", "kind": "offline"})

    def apply(self, host: Host, tell: Callable[[Progress], None]) -> Applied:
        path, fetched, was_here = self.path(host), 0, True
        if path is None or model_files.problems(host, path, weights=self.demands.weights):
            if self.demands.of_configuration:
                # A few KB, which may save gigabytes.
                self._fetched(host, tell, only=["config.json"])
                self.demands.check_configuration(host, self.path(host) or "")
            fetched, was_here = self._fetched(host, tell), False
            path = self.path(host)
        if path is None or (found := model_files.problems(host, path, weights=self.demands.weights)):
            detail = "\n".join(found) if path else f"it is not in `{self.copy.huggingface}`"
            raise StepFailed(f"`{self.model}` was fetched and is not a whole model: {detail}")
        self.demands.check(host, path)
        # Of what was here, the plan has said it.
        findings = () if was_here else self.demands.findings(host, path)
        return Applied(note=f"`{self.model}` in `{path}`, {fetched / _GB:.1f} GB fetched", findings=findings)

    def findings(self, view: HostView) -> tuple[Finding, ...]:
        """What is worth to be known of it, once it is here."""
        path = self.path(view)
        return self.demands.findings(view, path) if path else ()

    def _fetched(self, host: Host, tell: Callable[[Progress], None], *, only: list[str] | None = None) -> int:
        events = self._fetch(host, tell, only=only)
        error = next((event for event in events if event["event"] == "error"), None)
        if error:
            raise self._explained(error)
        return next((int(event["bytes"]) for event in events if event["event"] == "done"), 0)

    def _fetch(self, host: Host, tell: Callable[[Progress], None], *, only: list[str] | None) -> list[dict[str, Any]]:
        disk = host.disk(model_files.hub_cache(host, self.copy.huggingface))
        request = {
            "model": self.model,
            "revision": self.copy.revision,
            "free_bytes": max(0, disk.free - RESERVE_BYTES) if disk else 1 << 62,
            "ignore": _OTHER_FORMATS,
            "pickles": model_files.PICKLES,
            # What is filled by the engine is not fetched for its weights; nor is what may not be loaded.
            "allow_pickle": self.demands.allow_pickle,
            "weights": self.demands.weights,
            "only": only,
        }
        events: list[dict[str, Any]] = []

        def heard(line: str) -> None:
            event = _event(line)
            if event is None:
                return
            if event["event"] == "progress":
                tell(Progress(text=f"fetching `{self.model}`", done=event["done"], total=event["total"]))
                return
            events.append(event)
            if event["event"] == "planned":
                text = f"fetching `{self.model}`: {event['files']} files, {event['bytes'] / _GB:.1f} GB"
                tell(Progress(text=text, done=0, total=event["bytes"]))

        host.run([self.python, "-I", str(_SCRIPT), json.dumps(request)], variables=self._variables(), on_line=heard)
        return events

    def _variables(self) -> dict[str, str | None]:
        token = config.secret("HF_TOKEN") or config.secret("HUGGING_FACE_HUB_TOKEN")
        return {
            "HF_HOME": self.copy.huggingface,
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            # A login in ~/.netrc would win over the token.
            "NETRC": os.devnull,
            # Cloud images set it for a package that is not among the engine's, and every download would fail.
            "HF_HUB_ENABLE_HF_TRANSFER": None,
            **({"HF_TOKEN": token} if token else {}),
        }

    def _explained(self, error: dict[str, Any]) -> StepFailed | CheckFailed:
        place = f"{self.copy.models}/{self.model}"
        if error["kind"] == "no-space" and "bytes" in error:
            needed, free = error["bytes"] / _GB, error["free"] / _GB
            return CheckFailed(
                f"`{self.model}` needs {needed:.1f} GB more in `{self.copy.huggingface}`, {free:.1f} GB are free",
                hint="free space there, or name another disk: `--cache-directory`",
            )
        if error["kind"] == "pickle":
            return refused(self.model, [str(name) for name in error["names"]])
        text, hint = _REASONS.get(error["kind"], _REASONS["other"])
        words = {"model": self.model, "revision": self.copy.revision, "place": place, "text": _first_line(error)}
        return StepFailed(text.format(**words), hint=hint.format(**words) or None)


_MIRROR = "set a mirror (`HF_ENDPOINT`) or a proxy (`HTTPS_PROXY`), or copy the model to `{place}`"
# What the script's `kind` of error is to the user: message and hint.
_REASONS = {
    "gated": (
        "`{model}` is gated: the hub does not give it to this user",
        "accept its licence at https://huggingface.co/{model}, then set `HF_TOKEN` to a token that may read it",
    ),
    "not-found": (
        "the hub has no model `{model}`, or it is private",
        "check the name; for a private one set `HF_TOKEN` to a token that may read it",
    ),
    "no-revision": ("`{model}` has no revision `{revision}`", "`main` is the one that every model has"),
    "unreachable": ("the hub is out of reach, and `{model}` is not on this host: {text}", _MIRROR),
    "offline": (
        "`HF_HUB_OFFLINE` is set, and `{model}` is not on this host",
        "unset it, or copy the model to `{place}`",
    ),
    "no-space": ("the disk is full, `{model}` is not whole", "free space, then run the command again: it goes on"),
    "no-library": ("the environment has no huggingface_hub: {text}", "copy the model to `{place}`"),
    "other": ("`{model}` could not be fetched: {text}", ""),
}


def step_for(copy: HubCopy, *, python: str, demands: Demands) -> LocalModel | HubModel:
    """The step for a model by path or by hub id. Raises `UsageError` for what is neither."""
    model = copy.model
    if is_path(model):
        return LocalModel(path=absolute(model), demands=demands)
    if not _HUB_ID.fullmatch(model):
        raise UsageError(f"`{model}` is not a model", hint=_FORMS)
    return HubModel(copy=copy, python=python, demands=demands)


def is_path(model: str) -> bool:
    """Whether it was asked for by a path, not by its id on the hub."""
    return model.startswith(("/", "./", "../", "~"))


def absolute(model: str) -> str:
    """The path of a model that was asked for by one."""
    return str(Path(model).expanduser().absolute())


def _event(line: str) -> dict[str, Any] | None:
    """A line of the script; the libraries it uses print others."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None


def _first_line(error: dict[str, Any]) -> str:
    return mask(str(error.get("text") or "").strip().split("\n")[0])
