"""The step that writes the built-in model, so that the real engine has something to serve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from provision.host import Host, HostView
from provision.serving import tiny_model
from provision.steps.base import Progress
from provision.steps.model_demands import NONE_MORE, Demands


@dataclass(frozen=True, kw_only=True)
class TinyModel:
    """The built-in model is in the directory `path`, as this version of sgprov writes it."""

    path: str
    demands: Demands = NONE_MORE

    looks_only = False

    @property
    def id(self) -> str:
        return "model"

    def preview(self) -> str:
        return f"write the built-in model into `{self.path}`"

    def check(self, view: HostView) -> None:
        self.demands.check_context(view, "the built-in model", tiny_model.CONTEXT_LENGTH)

    def satisfied(self, host: HostView) -> bool:
        return tiny_model.is_written(host, self.path)

    def apply(self, host: Host, tell: Callable[[Progress], None]) -> str:
        self.check(host)
        tell(Progress(text=self.preview()))
        tiny_model.write(host, self.path)
        return f"the built-in model is in `{self.path}`"
