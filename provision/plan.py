"""The ordered steps of a decision: pure data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from provision.decision import Decision, Places
from provision.environments import Receipt, path_for, python_of
from provision.environments.layout import BYTECODE_INSIDE
from provision.errors import OK, CheckFailed, ProvisionError, UnsupportedHost
from provision.host import HostView
from provision.locks.lockfile import Lock
from provision.remembered import Remembered
from provision.replaced import Replaced
from provision.serving import tiny_model
from provision.serving.launch import Launch
from provision.steps import Precondition, Step
from provision.steps.cache_directory import CacheDirectory
from provision.steps.directories import Directories, Directory
from provision.steps.environment import Environment
from provision.steps.image import PullImage
from provision.steps.inside import StartsInside
from provision.steps.interpreter import Interpreter
from provision.steps.model import HubModel, LocalModel, absolute, is_path, step_for
from provision.steps.model_demands import Demands, demands_of
from provision.steps.model_files import REVISION, HubCopy
from provision.steps.port import Port, needed
from provision.steps.receipt import WriteReceipt
from provision.steps.registry_login import RegistryLogin
from provision.steps.server import StartServer
from provision.steps.smoke import RESULT, Smoke
from provision.steps.switch import Switch
from provision.steps.tiny_model import TinyModel

# What `--no-smoke` leaves out: without a launch nothing needs the port.
LAUNCH_STEPS = frozenset({"port", "server", "smoke"})
BUILTIN_MODEL = "builtin:tiny-gpt2"
# What remedies name where the user has to choose one: not gated, fetched in seconds, served by every stack.
EXAMPLE_MODEL = "Qwen/Qwen3-0.6B"


@dataclass(frozen=True, kw_only=True)
class Foresight:
    """What would become of a step today; `would_change` is None where the machine is not here to be looked at.

    `problem` is why it would fail, where that can be told already, `remedy` what to do about it, and `exit_status` what
    a run ends with because of it.
    """

    id: str
    preview: str
    would_change: bool | None
    looks_only: bool = False
    problem: str | None = None
    remedy: str | None = None
    exit_status: int = OK


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What will be done, in order. Steps whose id is in `left_out` are shown and not carried out."""

    decision: Decision
    steps: tuple[Step, ...]
    launch: Launch
    left_out: frozenset[str] = field(default_factory=frozenset)
    # The key that was made for a server on an open address: to be shown once.
    made_key: str | None = field(default=None, repr=False)
    # What the machine is, in a few words, for reports: `facts.machine.summary`.
    machine: dict[str, Any] = field(default_factory=dict)
    # What the server here was asked for, and the running one that this plan stops.
    remembered: Remembered | None = None
    replaced: Replaced | None = None

    def foresee(self, view: HostView | None) -> tuple[Foresight, ...]:
        """Each step with whether it would change something; a step after a change is judged on today's host."""
        failures = preflight_failures(self, view) if view else {}
        return tuple(
            _foreseen(step, view, failures.get(step.id)) for step in self.steps if step.id not in self.left_out
        )

    def lines(self) -> Iterator[str]:
        """What of an earlier server holds again, and which running one is stopped, to be said before it starts."""
        yield from self.remembered.lines() if self.remembered else ()
        if self.replaced:
            yield self.replaced.line()

    def told(self) -> dict[str, Any]:
        """The same as plain data."""
        remembered = self.remembered.data() if self.remembered else None
        return {"remembered": remembered, "replaces": self.replaced.data() if self.replaced else None}

    def to_fetch(self, view: HostView) -> str | None:
        """What will be fetched and how long that takes, to be said before it starts; None where it is here already."""
        told = [
            step.estimate()
            for step in self.steps
            if isinstance(step, Environment | PullImage) and step.id not in self.left_out and not step.satisfied(view)
        ]
        return "; ".join(one for one in told if one) or None


def preflight_failures(plan: Plan, view: HostView) -> dict[str, ProvisionError]:
    """Why steps would fail today, by their ids and by looking: nothing is fetched for a server whose port is taken."""
    found: dict[str, ProvisionError] = {}
    for step in plan.steps:
        if isinstance(step, Precondition) and step.id not in plan.left_out:
            try:
                step.check(view)
            except ProvisionError as error:
                found[step.id] = error
    return found


def preflight_status(failure: ProvisionError) -> int:
    """What a plan, a dry run and a run end with where a step would fail: nothing was changed, so it is a check's."""
    return failure.exit_status if isinstance(failure, UnsupportedHost) else CheckFailed.exit_status


def _foreseen(step: Step, view: HostView | None, problem: ProvisionError | None) -> Foresight:
    if view is None:
        return Foresight(id=step.id, preview=step.preview(), would_change=None, looks_only=step.looks_only)
    return Foresight(
        id=step.id,
        preview=step.preview(),
        would_change=not step.looks_only and not step.satisfied(view),
        looks_only=step.looks_only,
        problem=str(problem) if problem else None,
        remedy=problem.hint if problem else None,
        exit_status=preflight_status(problem) if problem else OK,
    )


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What the steps need beside decision and launch: the server's name, the model, and how to treat its port."""

    name: str
    model: str | None
    free_port: bool = False
    api_key: str | None = field(default=None, repr=False)
    wheels: str | None = None
    known_image: str | None = None
    allow_pickle: bool = False


def build(
    decision: Decision,
    launch: Launch,
    *,
    name: str,
    model: str | None,
    free_port: bool = False,
    api_key: str | None = None,
    wheels: str | None = None,
    known_image: str | None = None,
    allow_pickle: bool = False,
) -> Plan:
    """The steps that make the decision true. `model` is as it was asked for.

    `wheels` is where all wheels are taken from, if not from the index; `known_image` the digest that the image had.
    """
    arguments = Arguments(
        name=name,
        model=model,
        free_port=free_port,
        api_key=api_key,
        wheels=wheels,
        known_image=known_image,
        allow_pickle=allow_pickle,
    )
    steps_of = _image_steps if decision.image else _stack_steps
    return Plan(decision=decision, steps=steps_of(decision, launch, arguments), launch=launch)


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


def _stack_steps(decision: Decision, launch: Launch, given: Arguments) -> tuple[Step, ...]:
    places, lock = decision.places, decision.lock
    assert lock is not None  # noqa: S101  # the caller looked
    environment = path_for(places.prefix, lock)
    receipt = Receipt(
        target=decision.target.name,
        stack=lock.stack,
        environment=environment.rsplit("/", 1)[-1],
        lock=lock.name,
        lock_digest=lock.digest,
        python=lock.python,
        interpreter=decision.interpreter,
        image=decision.hosting.reference if decision.hosting else None,
        model=given.model,
        port=decision.serve.port,
        server=given.name,
    )
    models = _model_steps(decision, environment, given)
    hub = next((step for step in models if isinstance(step, HubModel)), None)
    mounted = (bytecode_of(places), hub_of(places)) if decision.hosting else ()
    paths = (places.prefix, places.models, places.huggingface, *mounted)
    return (
        _directories(places, paths),
        Interpreter(python=lock.python, prefix=places.prefix, path=decision.interpreter),
        *_inside_steps(decision, lock, launch, given.known_image),
        Environment(
            prefix=places.prefix,
            lock=lock,
            interpreter=decision.interpreter,
            cached=decision.download_bytes == 0,
            wheels=given.wheels,
        ),
        *models,
        *_launch_steps(places.prefix, launch, given, stack=lock.stack, hub=hub),
        Switch(prefix=places.prefix, path=environment, server=f"{places.prefix}/servers/{given.name}"),
        _receipt_step(decision, receipt, given),
    )


def _image_steps(decision: Decision, launch: Launch, given: Arguments) -> tuple[Step, ...]:
    image, hosting, places = decision.image, decision.hosting, decision.places
    assert image is not None and hosting is not None  # noqa: S101, PT018  # an image is hosted
    login = RegistryLogin(registry=image.registry, image=hosting.reference, secrets=image.secrets)
    cache = CacheDirectory(
        path=places.nim,
        program=hosting.program,
        image=hosting.reference,
        user=_user_of(launch) if image.cache else None,
    )
    paths = (places.prefix, places.models, *(() if image.cache else (places.huggingface, hub_of(places))))
    receipt = Receipt(
        target=decision.target.name,
        image=hosting.reference,
        model=given.model or image.model,
        port=decision.serve.port,
        server=given.name,
    )
    return (
        _directories(places, paths),
        *((login,) if image.login else ()),
        *_pull_steps(decision, given.known_image),
        *((cache,) if image.cache else ()),
        *_image_model_steps(decision, given),
        *_launch_steps(places.prefix, launch, given, stack=image.name),
        _receipt_step(decision, receipt, given),
    )


def _inside_steps(decision: Decision, lock: Lock, launch: Launch, known_image: str | None) -> tuple[Step, ...]:
    """What an image has to be for a stack that is mounted into it: before gigabytes are fetched for that."""
    hosting, stack = decision.hosting, decision.stack
    if hosting is None or stack is None:
        return ()
    inside = StartsInside(
        program=hosting.program,
        image=hosting.reference,
        python=lock.python,
        prefix=decision.places.prefix,
        environment=path_for(decision.places.prefix, lock),
        interpreter=decision.interpreter,
        user=_user_of(launch),
        glibc=stack.minimum_glibc,
    )
    return (*_pull_steps(decision, known_image), inside)


def _directories(places: Places, paths: Iterable[str]) -> Directories:
    """Those, and that of the servers: their records, logs and keys are for nobody else."""
    servers = Directory(path=f"{places.prefix}/servers", mode=0o700, ours=True)
    return Directories(directories=(*(Directory(path=path) for path in paths), servers))


def _user_of(launch: Launch) -> str | None:
    words = launch.argv
    return words[words.index("--user") + 1] if "--user" in words else None


def _pull_steps(decision: Decision, known: str | None) -> tuple[Step, ...]:
    hosting, image = decision.hosting, decision.image
    if hosting is None:
        return ()
    right = next((one.name for one in decision.candidates if one.fits and one.image and one.image != image), None)
    pull = PullImage(
        program=hosting.program,
        reference=hosting.reference,
        arch=hosting.arch,
        size_gib=image.size_gib if image else None,
        instead=right,
        known=known,
    )
    return (pull,)


def _launch_steps(
    prefix: str, launch: Launch, given: Arguments, *, stack: str, hub: HubModel | None = None
) -> tuple[Step, ...]:
    servers, name = f"{prefix}/servers", given.name
    return (
        Port(ports=needed(launch.ports), free=given.free_port, server=f"{servers}/{name}"),
        StartServer(servers=servers, name=name, launch=launch, stack=stack, hub=hub, key=given.api_key),
        Smoke(servers=servers, name=name, launch=launch),
    )


def _receipt_step(decision: Decision, receipt: Receipt, given: Arguments) -> WriteReceipt:
    prefix = decision.places.prefix
    program = decision.hosting.program if decision.hosting else None
    server = f"{prefix}/servers/{given.name}"
    named = given.model is not None and given.model != BUILTIN_MODEL and not is_path(given.model)
    return WriteReceipt(
        prefix=prefix,
        receipt=receipt,
        smoke=f"{server}/{RESULT}",
        program=program,
        server=server,
        hub=_hub_copy(decision, given.model) if given.model and named else None,
    )


def _image_model_steps(decision: Decision, given: Arguments) -> tuple[Step, ...]:
    """A model on this machine is checked; one on the hub is fetched by the container, into the cache it is given."""
    if given.model is None or not is_path(given.model):
        return ()
    return (LocalModel(path=absolute(given.model), demands=_demands(decision, given)),)


def _model_steps(decision: Decision, environment: str, given: Arguments) -> tuple[Step, ...]:
    if given.model is None:
        return ()
    if given.model == BUILTIN_MODEL:
        return (
            TinyModel(path=f"{decision.places.models}/{tiny_model.SERVED_NAME}", demands=_demands(decision, given)),
        )
    copy = _hub_copy(decision, given.model)
    return (step_for(copy, python=python_of(environment), demands=_demands(decision, given)),)


def _hub_copy(decision: Decision, model: str) -> HubCopy:
    places, revision = decision.places, decision.serve.revision or REVISION
    return HubCopy(model=model, models=places.models, huggingface=places.huggingface, revision=revision)


def _demands(decision: Decision, given: Arguments) -> Demands:
    return demands_of(decision.serve, *decision.engine, allow_pickle=given.allow_pickle)


def bytecode_of(places: Places) -> str:
    """Where Python keeps the bytecode of an environment that is mounted into a container, which may write there.

    Not where servers outside of containers have theirs: they would run what one in a container wrote.
    """
    return f"{places.prefix}/{BYTECODE_INSIDE}"


def hub_of(places: Places) -> str:
    """The models in the cache of the hub: what a container needs of it. Beside them lies the user's token."""
    return f"{places.huggingface}/hub"


def variables_of(decision: Decision, chosen: Mapping[str, str]) -> dict[str, str]:
    """What a server's environment holds beside the engine's own rows: where caches lie, and which GPUs it sees."""
    return {"HF_HOME": decision.places.huggingface, **decision.target.layout.variables, **chosen}
