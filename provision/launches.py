"""The launch of a decision: as a process of its environment, or in a container."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from msgspec import structs

from provision import config, environments, plan
from provision.catalog.engines import engine
from provision.catalog.rows import Image, Serve
from provision.config import Options
from provision.containers import run
from provision.containers.names import unique_name
from provision.containers.run import Container, Gpus, Mount, Publish
from provision.decision import Decision, Hosting, Places
from provision.environments import interpreters
from provision.host import HostView
from provision.serving import keys, record
from provision.serving.launch import Inside, Launch, render, url_of
from provision.serving.ports import DerivedPort, derive_for
from provision.serving.tiny_model import SERVED_NAME
from provision.steps.model import is_path
from provision.steps.port import needed, next_free

# What SGLang's own documentation gives a container with GPUs for what its processes share; no engine needs the host's.
_SHM_GIB = 32
# Where a container has the key that its clients must have.
_INSIDE = "/run/sgprov"
_KEY_INSIDE, _SCRIPT_INSIDE = f"{_INSIDE}/{keys.FILE}", f"{_INSIDE}/{keys.SCRIPT}"
_EVERYWHERE = "0.0.0.0"  # noqa: S104  # inside a container; what is reached from outside is published


def of(
    view: HostView,
    decision: Decision,
    model: str | None,
    wishes: Options,
    *,
    name: str,
    restarts: int = 0,
    key_file: str | None = None,
) -> Launch:
    """The launch of a decision; `model` as bootstrap resolved it, `name` the server's.

    `key_file` holds the key that clients must have; a container has it mounted.
    """
    if decision.hosting is None:
        return as_process(decision, model or "", wishes, key_file=key_file)
    if decision.image is None:
        container = _of_stack(view, decision, decision.hosting, model or "", wishes, keyed=key_file is not None)
    else:
        serve = decision.serve if wishes.allow_pickle else _without_pickles(decision.serve, decision.image, model)
        safe, keyed = replace(decision, serve=serve), key_file is not None
        container = _of_image(view, safe, decision.hosting, decision.image, model, name=name, keyed=keyed)
    started = f"{decision.places.prefix}/servers/{name}/{keys.SCRIPT}"
    mounts = (*container.mounts, *_key_mounts(key_file, started, container.command))
    container = replace(container, name=unique_name(decision.places.prefix, name), restarts=restarts, mounts=mounts)
    return replace(_contained(decision, container, model or ""), key_file=key_file)


def default_name(decision: Decision) -> str:
    """The server's: the target's, but for a NIM, of which one target has several, its own."""
    return decision.image.name if decision.image and decision.image.model else decision.target.name


def on_a_free_port(view: HostView, decision: Decision, name: str) -> Serve:
    """The settings with the next free port; a server of ours of that name keeps the one that it has, or had."""
    stack, serve = decision.stack, decision.serve
    known = record.load(view, record.directory_of(f"{decision.places.prefix}/servers", name))
    last = int(known.url.rsplit(":", 1)[1]) if known else serve.port
    if known and record.members(view, known):
        return structs.replace(serve, port=last)

    def ports_of(port: int) -> tuple[int, ...]:
        if stack is None or decision.hosting:
            return (port,)
        return needed(derive_for(stack.engine, stack.version, structs.replace(serve, port=port)))

    return structs.replace(serve, port=next_free(view, last, ports_of))


def as_process(decision: Decision, model: str, wishes: Options, *, key_file: str | None = None) -> Launch:
    """The stack, started from its environment."""
    stack, lock = decision.stack, decision.lock
    assert stack is not None and lock is not None  # noqa: S101, PT018  # a decision without an image has both
    python = environments.python_of(environments.path_for(decision.places.prefix, lock))
    # What was fetched is served from where it is: the engine asks the hub for no revision.
    path, serve = _path(decision, model), structs.replace(decision.serve, revision=None)
    if model == plan.BUILTIN_MODEL:
        serve = structs.replace(serve, served_name=serve.served_name or SERVED_NAME)
    elif path and not path.startswith("/"):
        # It will be served from where it was fetched to, and is to be called what it was asked for by.
        serve = structs.replace(serve, served_name=serve.served_name or model)
    gpus = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": wishes.gpus} if wishes.gpus else {}
    given = plan.variables_of(decision, gpus)
    return render(stack.engine, stack.version, serve, python=python, model_path=path, given=given, key_file=key_file)


def _key_mounts(key_file: str | None, script: str, command: tuple[str, ...]) -> Iterator[Mount]:
    """The key and what hands it to the engine. A variable would be shown by the engine to everyone who may ask it."""
    if _SCRIPT_INSIDE in command:
        yield Mount(source=script, target=_SCRIPT_INSIDE)
    if key_file is not None:
        yield Mount(source=key_file, target=_KEY_INSIDE)


def _key_inside(name: str, version: str, *, keyed: bool) -> str | None:
    """What the launcher gets for a key; with none it still has the engine write for nobody else (Docker cannot)."""
    if keyed:
        return _KEY_INSIDE
    return f"{_INSIDE}/-" if engine(name).takes_key(version) else None


def _template_mounts(serve: Serve) -> Iterator[Mount]:
    if serve.chat_template:
        yield Mount(source=serve.chat_template, target=serve.chat_template)


def _of_stack(
    view: HostView, decision: Decision, hosting: Hosting, model: str, wishes: Options, *, keyed: bool
) -> Container:
    """The environment, its Python and the model, each mounted where it is: paths in it are absolute."""
    inner = replace(decision, serve=structs.replace(decision.serve, host=_EVERYWHERE))
    launch = as_process(inner, model, replace(wishes, gpus=None), key_file=_key_inside(*decision.engine, keyed=keyed))
    places, path = decision.places, _path(decision, model)
    mounts = [Mount(source=f"{places.prefix}/environments", target=f"{places.prefix}/environments")]
    bytecode = plan.bytecode_of(places)
    mounts.append(Mount(source=bytecode, target=bytecode, writable=True))
    if base := _python_base(view, decision):
        mounts.append(Mount(source=base, target=base))
    if path.startswith("/"):
        mounts.append(Mount(source=path, target=path))
    else:
        mounts.append(_hub(places))
    mounts += _template_mounts(decision.serve)
    moved = decision.target.layout.variables
    return Container(
        program=hosting.program,
        name="",
        image=hosting.reference,
        command=launch.argv,
        variables={
            # The environment is mounted for reading only; without its bytecode every start takes twice as long.
            "PYTHONPYCACHEPREFIX": bytecode,
            # Where the target has its caches on the machine, there is nothing in a container.
            **{name: value for name, value in launch.variables.items() if name not in moved},
            **_home(places),
        },
        mounts=tuple(mounts),
        publish=_publish(decision, None),
        gpus=_gpus(hosting),
        user=_caller(view, hosting),
        shm_gib=_SHM_GIB if hosting.gpus else None,
    )


def _has_token(view: HostView, decision: Decision, name: str) -> bool:
    """Whether the server of that name was given a token of the hub: a run without it does not take that away."""
    known = record.load(view, record.directory_of(f"{decision.places.prefix}/servers", name))
    secrets = known.container.secrets if known and known.container and known.model == decision.serve.model else ()
    return "HF_TOKEN" in secrets


def _of_image(
    view: HostView, decision: Decision, hosting: Hosting, image: Image, model: str | None, *, name: str, keyed: bool
) -> Container:
    places, serve = decision.places, structs.replace(decision.serve, host=_EVERYWHERE)
    path = _path(decision, model or "")
    key_file = _key_inside(image.engine, image.version, keyed=keyed)
    launch = render(image.engine, image.version, serve, python=image.python, model_path=path, key_file=key_file)
    variables, mounts, secrets = dict(launch.variables), list[Mount](), image.secrets
    if image.cache:
        mounts.append(Mount(source=places.nim, target=image.cache, writable=True))
    else:
        variables = {**variables, **_home(places)}
        mounts.append(_hub(places))
    mounts += _template_mounts(serve)
    if path.startswith("/"):
        mounts.append(Mount(source=path, target=path))
    elif not image.cache and (config.secret("HF_TOKEN") or _has_token(view, decision, name)):
        secrets = (*secrets, "HF_TOKEN")
    return Container(
        program=hosting.program,
        name="",
        image=hosting.reference,
        command=launch.argv,
        variables=variables,
        secrets=secrets,
        mounts=tuple(mounts),
        publish=_publish(decision, image.port),
        gpus=_gpus(hosting),
        shm_gib=image.shm_gib,
        user=_caller(view, hosting, image=image),
    )


def _without_pickles(serve: Serve, image: Image, model: str | None) -> Serve:
    """The settings with which the engine loads no pickle of a model that its container fetches, unseen by sgprov."""
    if model is None or is_path(model) or serve.load_format:
        return serve
    return structs.replace(serve, load_format=engine(image.engine).safe_load_format)


def _contained(decision: Decision, container: Container, model: str) -> Launch:
    serve, source = decision.serve, decision.image or decision.stack
    assert source is not None  # noqa: S101  # a decision has one of them
    return Launch(
        engine=source.engine,
        version=source.version,
        argv=run.argv(container),
        url=url_of(serve.host, serve.port),
        model=_path(decision, model),
        ports=(DerivedPort(name="http", first=serve.port, last=serve.port, fixed=True),),
        container=Inside(
            program=container.program,
            name=container.name,
            port=serve.port,
            address=serve.host,
            secrets=container.secrets,
            restarts=container.restarts,
        ),
    )


def _path(decision: Decision, model: str) -> str:
    if model == plan.BUILTIN_MODEL:
        return f"{decision.places.models}/{SERVED_NAME}"
    return str(Path(model).expanduser().absolute()) if model.startswith(("./", "../", "~")) else model


def _python_base(view: HostView, decision: Decision) -> str | None:
    """The directory that the environment's Python was installed in; under the prefix where sgprov brought it.

    None for one of the system, which is not to hide that of the image: then the image has to have the same.
    """
    prefix, lock = decision.places.prefix, decision.lock
    kept = environments.interpreter_of(view, environments.path_for(prefix, lock)) if lock else None
    interpreter = kept or decision.interpreter
    if interpreter is None or interpreter.startswith(f"{prefix}/python/"):
        return f"{prefix}/python"
    return interpreters.base_of(view, interpreter)


def _publish(decision: Decision, inside: int | None) -> Publish:
    serve = decision.serve
    address = "127.0.0.1" if serve.host == "localhost" else serve.host
    return Publish(address=address, port=serve.port, inside=inside or serve.port)


def _gpus(hosting: Hosting) -> Gpus | None:
    return Gpus(by=hosting.gpus, devices=hosting.devices) if hosting.gpus else None


def _hub(places: Places) -> Mount:
    hub = plan.hub_of(places)
    return Mount(source=hub, target=hub, writable=True)


def _home(places: Places) -> dict[str, str]:
    """For a user whom the image does not know: a home that may be written in, and a name (torch asks for one)."""
    home = "/tmp"  # noqa: S108  # the container's own
    return {
        "HOME": home,
        "USER": "sgprov",
        "HF_HOME": f"{home}/huggingface",
        # By its older name too, which the libraries of before 2024 read.
        "HF_HUB_CACHE": plan.hub_of(places),
        "HUGGINGFACE_HUB_CACHE": plan.hub_of(places),
    }


def _caller(view: HostView, hosting: Hosting, *, image: Image | None = None) -> str | None:
    """Who runs sgprov, as `uid:gid`; None for the image's own user, where its row has that for root."""
    if hosting.rootless:
        return "0:0"  # the caller, seen from inside
    ids = [view.query(["id", flag]).out.strip() or "0" for flag in ("-u", "-g")]
    return None if image and image.called_by_root == "image" and ids[0] == "0" else ":".join(ids)
