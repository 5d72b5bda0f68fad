"""Which model is served: what was asked for, where it lies, and the one that stands in for a target's own."""

from __future__ import annotations

from dataclasses import replace

from msgspec import structs

from provision.config import Options
from provision.decision import Decision
from provision.errors import UsageError
from provision.host import HostView
from provision.login import hub
from provision.plan import BUILTIN_MODEL, Plan
from provision.report import Finding, Severity
from provision.steps.model import HubModel, LocalModel, is_path
from provision.steps.model_files import REVISION, locate


def at_hand(view: HostView, decision: Decision) -> Decision:
    """The decision with a model that can be had: where the target's own has to be put there by somebody, and nobody
    did, the one that its row names in place of that is fetched, and said.
    """
    target, places = decision.target, decision.places
    own, stand_in = target.serve.model, target.model_to_fetch
    if own is None or stand_in is None or decision.serve.model != own:
        return decision
    if locate(view, own, models=places.models, huggingface=places.huggingface) or view.stat(f"{places.models}/{own}"):
        return decision
    said = Finding(
        check="model-there",
        severity=Severity.INFO,
        text=f"no model at `{places.models}/{own}`; `{stand_in}` will be downloaded from the hub",
        fix=(f"`sgprov bootstrap --target {target.name} --model ID|DIR` selects another model",),
    )
    # How the other is quantized says nothing of this one.
    serve = structs.replace(decision.serve, model=stand_in, quantization=None)
    return replace(decision, serve=serve, findings=(*decision.findings, said))


def resolve(view: HostView, decision: Decision) -> str | None:
    """The model as a step takes it: the built-in one, a path, or a hub id; a copy under the models' directory first."""
    model, models = decision.serve.model, decision.places.models
    if decision.image and decision.image.model:
        return None
    if model is None or model == BUILTIN_MODEL or is_path(model):
        return model
    if model.startswith("builtin:"):
        raise UsageError(f"there is no model `{model}`", hint=f"the built-in one is `{BUILTIN_MODEL}`")
    if "/" not in model or view.stat(f"{models}/{model}") is not None:
        return f"{models}/{model}"
    return model


def check(view: HostView, decision: Decision, model: str | None, wishes: Options, *, assumed: bool) -> None:
    """Raise `UsageError` for wishes that do not go with the model, or a hub without encryption."""
    if not wishes.insecure:
        _check_hub(view, decision, model)
    if wishes.revision and not _of_hub(model):
        hint = "name one with `--model ORG/NAME`, or leave it out"
        raise UsageError("`--revision` is for a model of the hub", hint=hint)
    template = decision.serve.chat_template
    if template and not assumed and ((there := view.stat(template)) is None or there.is_directory):
        raise UsageError(
            f"there is no file `{template}`", hint="`--chat-template` requires the path of a `.jinja` file"
        )


def findings(view: HostView, plan: Plan) -> tuple[Finding, ...]:
    """What is worth to be known of a model that is here."""
    step = next((step for step in plan.steps if isinstance(step, LocalModel | HubModel)), None)
    return step.findings(view) if step else ()


def _check_hub(view: HostView, decision: Decision, model: str | None) -> None:
    """Raise `UsageError` where the model is to come from a hub without encryption."""
    places = decision.places
    if model is None or not _of_hub(model):
        return
    revision = decision.serve.revision or REVISION
    if locate(view, model, models=places.models, huggingface=places.huggingface, revision=revision) is None:
        hub.check_encrypted(view)


def _of_hub(model: str | None) -> bool:
    return model is not None and model != BUILTIN_MODEL and not is_path(model)
