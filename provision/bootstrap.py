"""From wishes to a plan and its report: gather the facts, put the question, decide, build the steps, carry them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar, cast

from provision import assume, environments, launches, models, plan, remembered, replaced, runner
from provision.catalog.load import Catalog
from provision.catalog.shipped import folder
from provision.config import Options
from provision.decision import Decision, Previous, Question, decide
from provision.decision.choose import places_of
from provision.environments.installer import is_cached
from provision.errors import NotPermitted, UnsupportedHost, UntrustedPath, UsageError
from provision.facts import Facts, gather
from provision.facts.gather import with_disks
from provision.facts.machine import summary
from provision.facts.pythons import probe_python
from provision.host import HostView
from provision.host.addresses import is_loopback
from provision.host.local import LocalHost
from provision.launch_warnings import known_image, warnings
from provision.locks import sizes
from provision.plan import Plan
from provision.remembered import Remembered
from provision.replaced import Replaced
from provision.report import Report
from provision.serving import keys, record, server
from provision.serving.listening import check_address
from provision.steps.disk import check_links
from provision.steps.server import StartServer

# Arguments of the engines that are rendered from what sgprov is asked for: (argument, how to ask for it).
_OURS = {
    **dict.fromkeys(("--host", "--server-name"), "`--bind ADDRESS`, before the `--`"),
    **dict.fromkeys(("--port", "--server-port"), "`--port N`, before the `--`"),
    **dict.fromkeys(("--model-path", "--model"), "`--model ID|DIR`, before the `--`"),
    # On a command line everyone could read it.
    **dict.fromkeys(("--api-key", "--api-keys"), "set `SGPROV_API_KEY`"),
}
# Options that ask for another target, stack or Python than a server has.
_CHOICES = ("stack", "image", "python", "model", "gpus", "container_engine")


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How to go about it: steps to leave out or alone to take, and what to do with the port.

    `restarts` is how often a container's engine starts it again by itself. `wheels` is a folder, or the address of a
    page, from which every wheel is taken instead of from the index. `forget` names options that the server here was
    asked for and that are not to hold again.
    """

    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    smoke: bool = True
    free_port: bool = False
    restarts: int = 0
    api_key: str | None = field(default=None, repr=False)
    wheels: str | None = None
    forget: tuple[str, ...] = ()


def make_plan(view: HostView, wishes: Options, manner: Manner | None = None, *, assumed: str | None = None) -> Plan:
    """Decide and build the steps, by looking only. Raises what `decide` raises, and `UsageError` for wrong wishes."""
    manner = manner or Manner()
    recalled = Remembered(options=wishes) if assumed else remembered.recall(view, wishes, forget=manner.forget)
    try:
        return _make_plan(view, wishes, manner, recalled, assumed=assumed)
    except (UsageError, UnsupportedHost) as error:
        if not recalled.kept:
            raise
        # What is wrong may be what nobody said this time.
        hint = "; ".join(filter(None, [error.hint, *recalled.lines()]))
        raise type(error)(str(error), hint=hint, findings=error.findings) from error


def _make_plan(view: HostView, wishes: Options, manner: Manner, recalled: Remembered, *, assumed: str | None) -> Plan:
    decision, recalled, facts = _decide(view, wishes, recalled, assumed=assumed)
    wishes = recalled.options
    if not assumed:
        # Before anything there is believed: records, keys and environments of another user's are not ours.
        view.require_trusted(decision.places.prefix)
    name = wishes.name or launches.default_name(decision)
    _refuse_ours(wishes.extra or ())
    # A target that moves uv's cache moves it beside its environments; what is installed is linked or copied already.
    cache_is_ours = "UV_CACHE_DIR" in decision.target.layout.variables
    if not assumed and not cache_is_ours and decision.download_bytes != 0:
        links = check_links(view, prefix=decision.places.prefix)
        decision = replace(decision, findings=(*decision.findings, *([links] if links else [])))
        if decision.download_bytes and decision.lock and decision.interpreter:
            cached = is_cached(view, decision.lock, decision.interpreter)
            decision = replace(decision, download_bytes=0 if cached else decision.download_bytes)
    decision = decision if assumed else models.at_hand(view, decision)
    model = models.resolve(view, decision)
    models.check(view, decision, model, wishes, assumed=assumed is not None)
    if model is None and manner.smoke and not (decision.image and decision.image.model):
        raise UsageError(f"target `{decision.target.name}` has no model of its own", hint="name one with `--model`")
    if not assumed and _launches(manner):
        check_address(view, decision.serve.host)
    if wishes.port == "auto":
        decision = replace(decision, serve=launches.on_a_free_port(view, decision, name))
    directory = record.directory_of(f"{decision.places.prefix}/servers", name)
    key, made = _key(view, decision, wishes, manner, directory)
    launch = launches.of(
        view,
        decision,
        model,
        wishes,
        name=name,
        restarts=manner.restarts or _restarts_of(view, directory),
        key_file=f"{directory}/{keys.FILE}" if key else None,
    )
    hf_home = view.variable("HF_HOME") or recalled.hf_home
    launch = replace(launch, asked=replaced.to_remember(decision, wishes, hf_home=hf_home, key=key is not None))
    built = plan.build(
        decision,
        launch,
        name=name,
        model=model,
        free_port=manner.free_port,
        api_key=key,
        wheels=manner.wheels,
        known_image=known_image(view, decision, directory),
        allow_pickle=bool(wishes.allow_pickle),
    )
    built = plan.leaving_out(built, _left_out(built, manner))
    more = () if not _launches(manner) else tuple(warnings(None if assumed else view, built, facts, directory, key))
    built = replace(built, decision=replace(decision, findings=(*decision.findings, *more)))
    stopped = None if assumed or "server" in built.left_out else _replaced(view, built, directory, key)
    return replace(built, machine=summary(facts), made_key=made, remembered=recalled, replaced=stopped)


def _decide(
    view: HostView, wishes: Options, recalled: Remembered, *, assumed: str | None
) -> tuple[Decision, Remembered, Facts]:
    """The decision, with what holds of what was remembered: another target, and another engine, are asked anew."""
    asked = question(view, recalled.options, assumed=assumed, previous=recalled.previous, hf_home=recalled.hf_home)
    decision = decide(asked)
    server, before = recalled.server, recalled.previous
    if server is None:
        return decision, recalled, asked.facts
    if wishes.target in {None, before.target} and (lost := _lost(decision, before)):
        if remembered.living(view, server) and not any(getattr(wishes, name) is not None for name in _CHOICES):
            raise UnsupportedHost(
                f"the server `{server.name}` runs with {lost}, which is not to be had here any more",
                hint="`--forget target --forget stack --forget python` takes what fits in its place, and stops it",
            )
        if wishes.target is None and decision.target.name != before.target:
            # It was another machine's, or this one has changed: nothing of it is to hold here.
            return _decide(view, wishes, Remembered(options=wishes), assumed=assumed)
    source = decision.image or decision.stack
    if "extra" in recalled.kept and source and source.engine != server.engine:
        recalled = recalled.without("extra", f"it was for {server.engine}")
        return decide(replace(asked, wishes=recalled.options)), recalled, asked.facts
    return decision, recalled, asked.facts


def _lost(decision: Decision, before: Previous) -> str | None:
    """What was decided for the server here and is decided otherwise now, such as `stack sglang-0.5.9`."""
    source = decision.image or decision.stack
    now = {"target": decision.target.name, "stack": source.name if source else None, "python": decision.python}
    lost = [f"{name} {value}" for name, value in vars(before).items() if value and name in now and now[name] != value]
    return " and ".join(lost) or None


def _replaced(view: HostView, built: Plan, directory: str, key: str | None) -> Replaced | None:
    """The running server of that name, if it has other settings than the plan's."""
    step = next(step for step in built.steps if isinstance(step, StartServer))
    known = record.load(view, directory)
    if known is None or not remembered.living(view, known):
        return None
    launch, other_key = step.launch_on(view), keys.of(view, directory) != key
    same = known.asked is not None and launch.asked is not None and known.asked.settings == launch.asked.settings
    # A recorded server has lost the words and variables that might be secrets: there the settings have to tell.
    if (known.runs(launch) and not other_key) or (view.recorded and same):
        return None
    changes = replaced.differences(known, launch, other_key=other_key)
    return Replaced(name=known.name, url=known.url, pid=known.pid, changes=changes)


def carry_out(plan_: Plan, host: LocalHost, *, dry_run: bool, watcher: runner.Watcher | None = None) -> Report:
    """The steps, unless one of them would fail: then nothing is changed."""
    decision, host = plan_.decision, for_target(host, plan_)
    report = runner.apply(plan_, host, dry_run=dry_run, watcher=watcher)
    if not dry_run and "server" not in plan_.left_out:
        report = runner.settle(plan_, host, report, watcher=watcher)
    data = {
        "stack": decision.stack.name if decision.stack else None,
        "image": decision.hosting.reference if decision.hosting else None,
        "lock": decision.lock.name if decision.lock else None,
        "python": decision.python,
        "why": list(decision.why),
        "prefix": decision.places.prefix,
        "machine": plan_.machine,
        **plan_.told(),
        "dry_run": dry_run,
        "key_file": plan_.launch.key_file,
    }
    return replace(report, data={**data, **report.data})


V = TypeVar("V", bound=HostView)


def for_target(view: V, plan_: Plan) -> V:
    """The machine with the variables that the target's layout sets, as its steps see it; a recorded one as it is."""
    if isinstance(view, LocalHost):
        return cast("V", view.with_defaults(plan_.decision.target.layout.variables))
    return view


def stop(host: LocalHost, plan_: Plan) -> bool:
    """Stop the server of a plan; whether one ran."""
    step = next(step for step in plan_.steps if isinstance(step, StartServer))
    return server.stop(host, step.servers, name=step.name) is not None


def name_of(plan_: Plan) -> str:
    """What the server of a plan is called."""
    return next(step.name for step in plan_.steps if isinstance(step, StartServer))


def _refuse_ours(extra: tuple[str, ...]) -> None:
    """Raise `UsageError` for what the engine is told already: twice, it would listen where nobody waits for it."""
    for word in extra:
        if ours := _OURS.get(word.partition("=")[0]):
            raise UsageError(f"`{word.partition('=')[0]}` is not the engine's to be given: sgprov does", hint=ours)


def _key(
    view: HostView, decision: Decision, wishes: Options, manner: Manner, directory: str
) -> tuple[str | None, str | None]:
    """The key that the server is to ask for, and the same again where it was made here.

    Raises `UsageError` where it cannot be one or cannot be asked for, and where the server would answer everyone.
    """
    # A server that has a key keeps it: a run without the variable must not open it to everyone.
    key = keys.check(manner.api_key) if manner.api_key else keys.of(view, directory)
    serve = decision.serve
    if key or wishes.allow_unauthenticated or is_loopback(serve.host) or not _launches(manner):
        return key, None
    keys.check_open(serve, *decision.engine)
    made = keys.new()
    return made, made


def _launches(manner: Manner) -> bool:
    """Whether a server is to be started at all."""
    return manner.smoke and "server" not in manner.skip and (not manner.only or "server" in manner.only)


def _restarts_of(view: HostView, directory: str) -> int:
    """How often the engine starts the server of that name again already: running bootstrap again changes no policy."""
    known = record.load(view, directory)
    return known.container.restarts if known and known.container and known.state != "stopped" else 0


def _left_out(built: Plan, manner: Manner) -> frozenset[str]:
    known = {step.id for step in built.steps}
    for name in (*manner.only, *manner.skip):
        if name not in known:
            raise UsageError(f"there is no step `{name}`", hint=f"the steps are {', '.join(s.id for s in built.steps)}")
    if both := set(manner.only) & set(manner.skip):
        raise UsageError(f"`{min(both)}` is both to be taken and to be left out", hint="`--only` or `--skip`, not both")
    left_out = set(manner.skip)
    if manner.only:
        left_out |= known - set(manner.only)
    if not manner.smoke:
        left_out |= plan.LAUNCH_STEPS
    if "switch" in left_out and "receipt" not in manner.only:
        left_out.add("receipt")
    return frozenset(left_out)


def question(
    view: HostView,
    wishes: Options,
    *,
    assumed: str | None = None,
    gathering: Callable[[], Facts] | None = None,
    previous: Previous | None = None,
    hf_home: str | None = None,
) -> Question:
    """What the decision is made from: this host's facts, or those of a machine that is only assumed.

    `assumed` is `target` for the machine that the target is for, or `KEY=VALUE,…` for what is different there.
    `gathering` gives the facts that somebody is gathering already, without disks. `previous` is what the server here
    was decided as, `hf_home` where HF_HOME put the Hugging Face cache, if it is not set now.
    """
    catalog = Catalog()
    # That of the machine itself: where one is only assumed, this one's says nothing of it.
    hf_home = None if assumed else view.variable("HF_HOME") or hf_home
    home = view.variable("HOME") or "/root"
    locks = folder("lockfiles")
    if assumed:
        facts = assume.facts(_assumed(assumed, catalog, wishes))
        installed, begun = dict[str, frozenset[str]](), dict[str, frozenset[str]]()
    else:
        # Each target may keep its things on another disk, and any may be the one that is chosen.
        layouts = [catalog.target(wishes.target).layout] if wishes.target else [one.layout for one in catalog.targets]
        every = [places_of(layout, wishes, home, hf_home=hf_home) for layout in layouts]
        directories = tuple(dict.fromkeys(path for one in every for path in (one.prefix, one.models, one.huggingface)))
        facts = with_disks(view, gathering(), directories) if gathering else gather(view, directories=directories)
        facts = _with_named_python(view, facts, wishes)
        there = {one.prefix: _installed(view, one.prefix) for one in every}
        installed = {
            prefix: frozenset(one.stamp.lock_digest for one in those if one.stamp) for prefix, those in there.items()
        }
        begun = {prefix: frozenset(one.name for one in those if not one.stamp) for prefix, those in there.items()}
    return Question(
        wishes=wishes,
        facts=facts,
        catalog=catalog,
        locks=locks,
        sizes=sizes.load(Path(locks) / sizes.FILE),
        installed=installed,
        begun=begun,
        previous=previous or Previous(),
        home=home,
        hf_home=hf_home,
    )


def _installed(view: HostView, prefix: str) -> tuple[environments.Environment, ...]:
    """What is installed there; nothing, where another user decides what is there (who goes on says so)."""
    try:
        view.require_trusted(prefix)
        return environments.list_environments(view, prefix)
    except (UntrustedPath, NotPermitted):
        return ()


def _assumed(text: str, catalog: Catalog, wishes: Options) -> Mapping[str, str]:
    if not wishes.target:
        if text == "target":
            raise UsageError("`--assume target` needs a target", hint="name it with `--target`")
        return assume.parse(text)
    own = catalog.target(wishes.target).assume
    return own if text == "target" else assume.changed(own, assume.parse(text))


def _with_named_python(view: HostView, facts: Facts, wishes: Options) -> Facts:
    """Add the interpreter that the user named by path, wherever it lies."""
    named = wishes.python
    if not named or "/" not in named or any(one.path == named for one in facts.pythons):
        return facts
    found = probe_python(view, named)
    if found is None:
        raise UsageError(f"`{named}` is not a Python interpreter", hint="name one that `sgprov facts` lists")
    return replace(facts, pythons=(*facts.pythons, found))
