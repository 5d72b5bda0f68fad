"""What the server here was asked for: it holds again until somebody asks for something else, or has it forgotten."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from provision import environments
from provision.catalog.load import Catalog, nearest
from provision.catalog.rows import Layout, Target
from provision.config import Options
from provision.decision import Previous
from provision.decision.choose import places_of
from provision.errors import NotPermitted, UntrustedPath, UsageError
from provision.host import HostView
from provision.options import OPTION
from provision.report import Finding, Severity, notice
from provision.secrets import mask
from provision.serving import contained, processes, record, relaunch
from provision.serving.record import Server

ALL = "all"
# Which server it is, and so nothing that it was asked for.
IDENTITY = ("target", "prefix", "name")
# What says nothing of another target, address or model: who opened one address to everyone opened no other.
_BOUND = {
    frozenset({"stack", "image", "python"}): "target",
    frozenset({"allow_unauthenticated"}): "bind",
    frozenset({"revision", "allow_pickle", "chat_template"}): "model",
}
_PATHS = ("model_directory", "cache_directory", "chat_template")
# Not an option, but where its variable put the cache of the hub is as good as asked for.
HF_HOME = "HF_HOME"
# What a launch fails of most: those of one that never was ready are not tried again unasked.
_TUNING = frozenset({"extra", "context_length", "mem_fraction"})


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """What to go on with: `options` are those that were given, and over them those that the server was asked for.

    `kept` are the latter, by name; `not_kept` those of the server that were left behind, with the reason. `previous`
    is what was decided for it, `hf_home` where HF_HOME put the Hugging Face cache.
    """

    options: Options
    server: Server | None = None
    previous: Previous = field(default_factory=Previous)
    kept: Mapping[str, Any] = field(default_factory=dict)
    not_kept: Mapping[str, str] = field(default_factory=dict)
    hf_home: str | None = None

    def without(self, name: str, why: str) -> Remembered:
        """The same without one of the options that were kept."""
        kept = {key: value for key, value in self.kept.items() if key != name}
        options = replace(self.options, **{name: None})
        return replace(self, options=options, kept=kept, not_kept={**self.not_kept, name: why})

    def lines(self) -> Iterator[str]:
        """What people are told of it."""
        if self.server is None:
            return
        if self.kept:
            told = ", ".join(f"{name} {shown(value)}" for name, value in self.kept.items())
            how = " (`--forget OPTION` or `--forget all` drops them)" if set(self.kept) - {"target"} else ""
            yield f"remembered from the server `{self.server.name}`: {told}{how}"
        for why in dict.fromkeys(self.not_kept.values()):
            those = ", ".join(name for name, reason in self.not_kept.items() if reason == why)
            yield f"not kept from the server `{self.server.name}`: {those} ({why})"

    def data(self) -> dict[str, Any] | None:
        """The same for programs."""
        if self.server is None:
            return None
        kept = {name: list(value) if isinstance(value, tuple) else value for name, value in self.kept.items()}
        return {"server": self.server.name, "options": kept, "not_kept": dict(self.not_kept)}


def recall(view: HostView, options: Options, *, forget: Collection[str] = ()) -> Remembered:
    """What the server that `options` are about was asked for, under those options.

    `forget` names options that are not to be remembered, or `all`. Raises `UsageError` where several servers may be
    meant, or nothing is called so.
    """
    for name in forget:
        if name not in OPTION and name != ALL:
            near = nearest(name, [*OPTION, ALL])
            hint = f"did you mean `{near}`?" if near else f"the options are {', '.join(OPTION)}, or `{ALL}`"
            raise UsageError(f"there is no option `{name}` to forget", hint=hint)
    options = _with_absolute_paths(options)
    found = _find(view, options)
    if found is None:
        return Remembered(options=options)
    prefix, server = found
    asked, previous = _asked(view, prefix, server)
    kept: dict[str, Any] = {}
    not_kept: dict[str, str] = {}
    for name, value in asked.items():
        if name in IDENTITY or name not in OPTION or getattr(options, name) is not None:
            continue
        if why := _why_not(name, server, options, forget):
            not_kept[name] = why
        else:
            kept[name] = OPTION[name].value(value, source=f"the record of the server `{server.name}`")
    if (hf_home := _hf_home(view, asked, options, forget)) is not None:
        kept[HF_HOME] = hf_home
    previous = _less(previous, forget)
    if options.target is None and previous.target:
        kept = {"target": previous.target, **kept}
    more = {name: value for name, value in kept.items() if name in OPTION and name != "target"}
    options = _under(view, replace(options, name=server.name, **more), prefix, previous)
    return Remembered(options=options, server=server, previous=previous, kept=kept, not_kept=not_kept, hf_home=hf_home)


def living(view: HostView, server: Server) -> bool:
    """Whether its process runs on this machine now."""
    now = contained.current(view, server)
    return any(process.pid == now.pid for process in record.members(view, now))


def shown(value: Any) -> str:
    """An option's value in a sentence."""
    return f"`{mask(shlex.join(value))}`" if isinstance(value, tuple) else str(value)


def prefixes(view: HostView, options: Options) -> tuple[str, ...]:
    """The prefix that was named, or of the named target, or all that exist: the default one and each target's.

    Raises `UntrustedPath` where another user decides what is there; one of a target that nobody asked for is passed
    over, and that is told.
    """
    home = view.variable("HOME") or "/root"
    catalog = Catalog()
    if options.prefix or options.target:
        layout = catalog.target(options.target).layout if options.target and not options.prefix else Layout()
        prefix = places_of(layout, options, home).prefix
        view.require_trusted(prefix)
        return (prefix,)
    layouts = [Layout(), *(target.layout for target in catalog.targets)]
    found = dict.fromkeys(places_of(layout, options, home).prefix for layout in layouts)
    return _trusted(view, found)


def _trusted(view: HostView, prefixes: Iterable[str]) -> tuple[str, ...]:
    """Those that exist and are trusted; others are told of. Raises `UntrustedPath` where there are others only."""
    kept, refused = [], []
    for prefix in prefixes:
        try:
            if view.stat(prefix) is None:
                continue
            view.require_trusted(prefix)
        except (UntrustedPath, NotPermitted) as error:
            refused.append(error)
        else:
            kept.append(prefix)
    if refused and not kept:
        raise refused[0]
    for problem in refused:
        fix = (problem.hint,) if problem.hint else ()
        notice(Finding(check="prefix-ignored", severity=Severity.WARNING, text=f"not looked at: {problem}", fix=fix))
    return tuple(kept)


def _find(view: HostView, options: Options) -> tuple[str, Server] | None:
    """(prefix, record) of the server that the options are about; None where none is here yet."""
    everyone = [
        (prefix, server)
        for prefix in prefixes(view, options)
        for name in record.names(view, f"{prefix}/servers")
        if (server := record.load(view, record.directory_of(f"{prefix}/servers", name)))
    ]
    if options.name:
        those = [one for one in everyone if one[1].name == options.name]
    elif options.target:
        names = _default_names(Catalog().target(options.target), options)
        those = [one for one in everyone if one[1].name in names] or _living_of(view, everyone, options.target)
    else:
        those = _of_this_machine(view, everyone)
    if len(those) > 1:
        those = [one for one in those if living(view, one[1])] or those
    if len(those) <= 1:
        return those[0] if those else None
    called = [server.name for _, server in those]
    if len(set(called)) == 1:
        where = ", ".join(f"`{prefix}`" for prefix, _ in those)
        raise UsageError(f"there are several servers `{called[0]}`", hint=f"`--prefix` says which one: {where}")
    raise UsageError(
        f"there are several servers here: {', '.join(f'`{name}`' for name in called)}",
        hint=f"`--name {called[0]}` means that one; another name with `--target` makes a new server",
    )


def _of_this_machine(view: HostView, everyone: Sequence[tuple[str, Server]]) -> list[tuple[str, Server]]:
    """The servers that somebody who names none may mean: a directory may be shared by many machines.

    Where this one has none, it may be a pod that was made again: then one that is called as its target was its.
    """
    machine = processes.machine_name(view)
    ours = [
        one
        for one in everyone
        if one[1].machine == machine or processes.same_machine(view, boot=one[1].boot, machine=one[1].machine)
    ]
    return ours or [one for one in everyone if _asked(view, *one)[1].target == one[1].name]


def _living_of(view: HostView, everyone: Sequence[tuple[str, Server]], target: str) -> list[tuple[str, Server]]:
    """The servers of a target that run here, whatever they are called: nobody asked for another one beside them."""
    found = [one for one in everyone if _asked(view, *one)[1].target == target]
    return [one for one in found if living(view, one[1])]


def _default_names(target: Target, options: Options) -> frozenset[str]:
    """What servers of a target are called where nobody names them: as the target, or as the NIM."""
    catalog = Catalog()
    images = [image for name in target.images if (image := catalog.image(name)).model]
    for wished in (options.stack, options.model):
        named = [one for one in images if wished in {one.name, one.model, (one.model or "").rpartition("/")[2]}]
        images = named if wished else images
    return frozenset({target.name, *(one.name for one in images)})


def _asked(view: HostView, prefix: str, server: Server) -> tuple[Mapping[str, Any], Previous]:
    """What a server was asked for, and what was decided from that; a rollback since then was asked for later."""
    told = relaunch.asked_of(view, prefix, server)
    if told is None:
        receipt = environments.read_receipt(view, server.directory)
        python = receipt.python if receipt else None
        return {}, Previous(target=receipt.target if receipt else None, stack=server.stack, python=python)
    names = ("target", "stack", "python", "container_engine")
    return told.options, Previous(**{name: told.settings.get(name) for name in names})


def _why_not(name: str, server: Server, options: Options, forget: Collection[str]) -> str | None:
    """Why an option of the server's is not to hold again; None where it is."""
    if name in forget or ALL in forget:
        return "forgotten"
    settings = server.asked.settings if server.asked else {}
    for bound, to in _BOUND.items():
        now, before = getattr(options, to), settings.get(to)
        if name in bound and now is not None and now != before:
            return f"it was for the {to} {before}"
    never_ready = server.state == "failed" and not server.proved and server.ready_after_s is None
    return "its launch failed" if never_ready and name in _TUNING else None


def _hf_home(view: HostView, asked: Mapping[str, Any], options: Options, forget: Collection[str]) -> str | None:
    if options.cache_directory or view.variable(HF_HOME) or {ALL, "cache_directory"} & set(forget):
        return None
    value = asked.get(HF_HOME)
    return value if isinstance(value, str) else None


def _less(previous: Previous, forget: Collection[str]) -> Previous:
    """What was decided, less what is to be forgotten; `all` leaves the target, which says which server it is."""
    names = ("stack", "python", "container_engine") if ALL in forget else tuple(forget)
    return replace(previous, **{name: None for name in vars(previous) if name in names})


def _under(view: HostView, options: Options, prefix: str, previous: Previous) -> Options:
    """The options with the prefix that the server is under, where its target would have another one."""
    target = options.target or previous.target
    names = {one.name for one in Catalog().targets}
    layout = Catalog().target(target).layout if target in names else Layout()
    usual = places_of(layout, options, view.variable("HOME") or "/root").prefix
    return options if usual == prefix else replace(options, prefix=prefix)


def _with_absolute_paths(options: Options) -> Options:
    """The same with paths that hold in every directory."""
    given = {name: getattr(options, name) for name in (*_PATHS, "python", "model")}
    return replace(options, **{name: _absolute(name, value) for name, value in given.items() if value is not None})


def _absolute(name: str, value: Any) -> Any:
    """A path as it holds in every directory; anything else as it is."""
    is_path = name in _PATHS or (name == "python" and "/" in value)
    if is_path or (name == "model" and value.startswith(("./", "../", "~"))):
        return str(Path(value).expanduser().absolute())
    return value
