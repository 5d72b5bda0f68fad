"""The ordered steps of a decision: pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from provision.decision import Decision
from provision.environments import Receipt, path_for, python_of
from provision.errors import ProvisionError
from provision.host import HostView
from provision.serving import tiny_model
from provision.serving.launch import Launch
from provision.steps import Precondition, Step
from provision.steps.container import ContainerStep
from provision.steps.directories import Directories, Directory
from provision.steps.environment import Environment
from provision.steps.interpreter import Interpreter
from provision.steps.model import HubModel, step_for
from provision.steps.port import Port, needed
from provision.steps.receipt import WriteReceipt
from provision.steps.server import StartServer
from provision.steps.smoke import RESULT, Smoke
from provision.steps.switch import Switch
from provision.steps.tiny_model import TinyModel

# What `--no-smoke` leaves out: without a launch nothing needs the port.
LAUNCH_STEPS = frozenset({"port", "server", "smoke"})
BUILTIN_MODEL = "builtin:tiny-gpt2"


@dataclass(frozen=True, kw_only=True)
class Foresight:
    """What would become of a step today; `would_change` is None where the machine is not here to be looked at.

    `problem` is why it would fail, where that can be told already.
    """

    id: str
    preview: str
    would_change: bool | None
    looks_only: bool = False
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What will be done, in order. Steps whose id is in `left_out` are shown and not carried out."""

    decision: Decision
    steps: tuple[Step, ...]
    launch: Launch | None = None
    left_out: frozenset[str] = field(default_factory=frozenset)
    # What the machine is, in a few words, for reports: `facts.machine.summary`.
    machine: dict[str, Any] = field(default_factory=dict)

    def foresee(self, view: HostView | None) -> tuple[Foresight, ...]:
        """Each step with whether it would change something; a step after a change is judged on today's host."""
        return tuple(
            Foresight(
                id=step.id,
                preview=step.preview(),
                would_change=None if view is None else not step.looks_only and not step.satisfied(view),
                looks_only=step.looks_only,
                problem=None if view is None else _problem(step, view),
            )
            for step in self.steps
            if step.id not in self.left_out
        )


def _problem(step: Step, view: HostView) -> str | None:
    if isinstance(step, Precondition):
        try:
            step.check(view)
        except ProvisionError as error:
            return str(error)
    return None


def build(
    decision: Decision,
    launch: Launch | None,
    *,
    name: str,
    model: str | None,
    free_port: bool = False,
    api_key: str | None = None,
    wheels: str | None = None,
) -> Plan:
    """The steps that make the decision true. `launch` is None for a container, `model` as it was asked for.

    `wheels` is where all wheels are taken from, if not from the index.
    """
    if decision.stack is None or decision.lock is None or launch is None:
        steps = _container_steps(decision)
    else:
        steps = _stack_steps(
            decision, launch, name=name, model=model, free_port=free_port, api_key=api_key, wheels=wheels
        )
    return Plan(decision=decision, steps=steps, launch=launch)


def leaving_out(plan: Plan, names: frozenset[str]) -> Plan:
    """The plan with those steps shown and not carried out, and the others told of it.

    Without a smoke test in this run there is no result of one to write down, and no other proof of a server than that
    it became ready.
    """
    if "smoke" not in names:
        return replace(plan, left_out=names)
    return replace(plan, left_out=names, steps=tuple(_untested(step) for step in plan.steps))


def _untested(step: Step) -> Step:
    if isinstance(step, WriteReceipt):
        return replace(step, smoke=None)
    return replace(step, tested=False) if isinstance(step, StartServer) else step


def _stack_steps(
    decision: Decision,
    launch: Launch,
    *,
    name: str,
    model: str | None,
    free_port: bool,
    api_key: str | None,
    wheels: str | None,
) -> tuple[Step, ...]:
    places, lock = decision.places, decision.lock
    assert lock is not None  # noqa: S101  # the caller looked
    environment = path_for(places.prefix, lock)
    servers = f"{places.prefix}/servers"
    receipt = Receipt(
        target=decision.target.name,
        stack=lock.stack,
        environment=environment.rsplit("/", 1)[-1],
        lock=lock.name,
        lock_digest=lock.digest,
        python=lock.python,
        interpreter=decision.interpreter,
        model=model,
        port=decision.serve.port,
    )
    models = _model_steps(decision, environment, model)
    hub = next((step for step in models if isinstance(step, HubModel)), None)
    return (
        Directories(
            directories=tuple(Directory(path=path) for path in (places.prefix, places.models, places.huggingface))
        ),
        Interpreter(python=lock.python, prefix=places.prefix, path=decision.interpreter),
        Environment(prefix=places.prefix, lock=lock, interpreter=decision.interpreter, wheels=wheels),
        *models,
        Port(ports=needed(launch.ports), free=free_port, server=f"{servers}/{name}"),
        StartServer(servers=servers, name=name, launch=launch, stack=lock.stack, hub=hub, key=api_key),
        Smoke(servers=servers, name=name, launch=launch, api_key=api_key),
        Switch(prefix=places.prefix, path=environment),
        WriteReceipt(prefix=places.prefix, receipt=receipt, smoke=f"{servers}/{name}/{RESULT}"),
    )


def _model_steps(decision: Decision, environment: str, model: str | None) -> tuple[Step, ...]:
    places = decision.places
    if model is None:
        return ()
    if model == BUILTIN_MODEL:
        return (TinyModel(path=f"{places.models}/{tiny_model.SERVED_NAME}"),)
    return (
        step_for(
            model,
            python=python_of(environment),
            models=places.models,
            huggingface=places.huggingface,
            weights=decision.serve.load_format != "dummy",
        ),
    )


def _container_steps(decision: Decision) -> tuple[Step, ...]:
    image, places, serve = decision.image, decision.places, decision.serve
    assert image is not None  # noqa: S101  # a decision has a stack or an image
    directories = tuple(Directory(path=path) for path in (places.prefix, places.models, places.huggingface))
    login = (ContainerStep(id="login", text=f"log in to {image.registry}"),) if image.login else ()
    return (
        Directories(directories=directories),
        *login,
        ContainerStep(id="image", text=f"pull `{image.reference}` for {', '.join(image.archs)}"),
        ContainerStep(id="container", text=f"serve `{serve.model}` from it, port {serve.port}"),
        ContainerStep(id="smoke", text="ask it for its models, a chat, a stream, and the same long prompt twice"),
    )


def variables_of(decision: Decision, chosen: Mapping[str, str]) -> dict[str, str]:
    """What a server's environment holds beside the engine's own rows: where caches lie, and which GPUs it sees."""
    return {"HF_HOME": decision.places.huggingface, **decision.target.layout.variables, **chosen}
