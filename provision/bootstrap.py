"""From wishes to a plan: gather the facts, put the question, decide, and build the steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from provision import assume, environments
from provision.catalog.load import Catalog
from provision.catalog.rows import Layout
from provision.catalog.shipped import folder
from provision.config import Options
from provision.decision import Question
from provision.decision.choose import places_of
from provision.errors import UsageError
from provision.facts import gather
from provision.facts.model import Facts
from provision.facts.pythons import probe_python
from provision.host import HostView
from provision.locks import sizes


def question(view: HostView, wishes: Options, *, assumed: str | None = None) -> Question:
    """What the decision is made from: this host's facts, or those of a machine that is only assumed.

    `assumed` is `KEY=VALUE,…`, or `target` for the machine that the target is for.
    """
    catalog = Catalog()
    home = view.variable("HOME") or "/root"
    locks = folder("lockfiles")
    layout = catalog.target(wishes.target).layout if wishes.target else Layout()
    places = places_of(layout, wishes, home)
    if assumed:
        facts = assume.facts(_assumed(assumed, catalog, wishes))
        installed = frozenset[str]()
    else:
        facts = gather(view, directories=(places.prefix, places.models, places.huggingface))
        facts = _with_named_python(view, facts, wishes)
        stamps = (environment.stamp for environment in environments.list_environments(view, places.prefix))
        installed = frozenset(stamp.lock_digest for stamp in stamps if stamp)
    return Question(
        wishes=wishes,
        facts=facts,
        catalog=catalog,
        locks=locks,
        sizes=sizes.load(Path(locks) / sizes.FILE),
        installed=installed,
        home=home,
    )


def _assumed(text: str, catalog: Catalog, wishes: Options) -> Mapping[str, str]:
    if text != "target":
        return assume.parse(text)
    if not wishes.target:
        raise UsageError("`--assume target` needs a target", hint="name it with `--target`")
    return catalog.target(wishes.target).assume


def _with_named_python(view: HostView, facts: Facts, wishes: Options) -> Facts:
    """Add the interpreter that the user named by path, wherever it lies."""
    named = wishes.python
    if not named or "/" not in named or any(one.path == named for one in facts.pythons):
        return facts
    found = probe_python(view, named)
    if found is None:
        raise UsageError(f"`{named}` is not a Python interpreter", hint="name one that `sgprov facts` lists")
    return replace(facts, pythons=(*facts.pythons, found))
