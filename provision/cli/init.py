"""`sgprov init`: a sgprov.yml for this machine, with every option in it."""

from __future__ import annotations

import os.path
import shlex
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from provision import bootstrap, launches, remembered
from provision.cli import common
from provision.cli.output import Shown
from provision.config import CONFIG_FILE, Options
from provision.decision import Decision, decide, weigh_targets
from provision.errors import UsageError
from provision.facts import Facts
from provision.options import OPTION, OPTIONS, Option

_WIDTH = 100
_HEAD = """\
# Options of `sgprov bootstrap` and `sgprov plan` on {machine}, written by `sgprov init`.
# A flag, or a variable such as {variable}, stands over this file. What is behind `#` holds without it.
"""


@click.command()
@common.target_name
@common.prefix
@click.option("--output", "-o", "path", default=CONFIG_FILE, show_default=True, metavar="FILE", help="File to write.")
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
@common.as_json
def init(target: str | None, prefix: str | None, path: str, *, force: bool, as_json: bool) -> Shown:
    """Write a sgprov.yml for this machine: its target, other targets that fit, and every option as a comment.

    What a server here was asked for is written as it is remembered.
    """
    del as_json
    if os.path.lexists(path) and not force:
        raise UsageError(f"there is a `{path}` already", hint="`--force` overwrites it, `--output FILE` writes another")
    host = common.local_host()
    recalled = remembered.recall(host, Options(target=target, prefix=prefix))
    asked = bootstrap.question(host, recalled.options, previous=recalled.previous, hf_home=recalled.hf_home)
    decision = decide(asked)
    others = [
        fit.target
        for fit in weigh_targets(replace(asked, wishes=Options(prefix=prefix)))
        if fit.fits and fit.target.name != decision.target.name
    ]
    alternatives = [f"# target: {one.name}  # {one.summary}" for one in others]
    blocks = [_HEAD.format(machine=_machine(asked.facts), variable=OPTION["port"].variable).rstrip()]
    for one in OPTIONS:
        lines = [*_lines(one, recalled.kept, decision, asked.facts), *(alternatives if one.name == "target" else [])]
        blocks.append("\n".join(lines))
    text = "\n\n".join(blocks) + "\n"
    host.write_output(str(Path(path).absolute()), text)
    following = shlex.join(["sgprov", "plan", *(["--config", path] if path != CONFIG_FILE else [])])
    return Shown(
        command="init",
        data={
            "path": str(Path(path).absolute()),
            "target": decision.target.name,
            "alternatives": [one.name for one in others],
            "next": following,
        },
        text=lambda screen: screen.print(f"`{path}` is written for target `{decision.target.name}`\nnext: {following}"),
        changed=True,
    )


def _machine(facts: Facts) -> str:
    gpus = dict.fromkeys(gpu.name for gpu in facts.gpus)
    return facts.host + (f" ({', '.join(gpus)})" if gpus else "")


def _lines(one: Option, kept: Mapping[str, Any], decision: Decision, facts: Facts) -> Iterator[str]:
    yield from textwrap.wrap(one.help, _WIDTH, initial_indent="# ", subsequent_indent="# ")
    value = kept.get(one.name, _default(one, decision, facts))
    example = "" if value is not None else "  # for example"
    value = _parsed(one.example) if value is None else value
    if one.explicit or one.named_file_only:
        variable = "" if one.explicit else f", `{one.variable}`"
        yield f"# Taken only as `{one.flag}`{variable} or from a file that `--config` names."
    stands = one.name == "target" or (one.name in kept and not one.explicit and not one.named_file_only)
    yield f"{'' if stands else '# '}{one.name}: {_yaml(value)}{example}"


def _default(one: Option, decision: Decision, facts: Facts) -> Any:
    """What holds here without the option; None where nothing does."""
    serve, places, hosting = decision.serve, decision.places, decision.hosting
    source = decision.stack or decision.image
    found: dict[str, Any] = {
        "target": decision.target.name,
        "prefix": places.prefix,
        "python": decision.python,
        "stack": source.name if source else None,
        "image": hosting.reference if hosting else None,
        "container_engine": hosting.program if hosting else None,
        "gpus": ",".join(str(gpu.index) for gpu in facts.gpus) or None,
        "model": serve.model,
        "revision": serve.revision,
        "allow_pickle": False,
        "served_model_name": serve.served_name,
        "chat_template": serve.chat_template,
        "model_directory": places.models,
        "cache_directory": places.huggingface,
        "port": serve.port,
        "bind": serve.host,
        "name": launches.default_name(decision),
        "context_length": serve.context_length,
        "mem_fraction": serve.mem_fraction,
        "allow_unauthenticated": False,
    }
    return found.get(one.name)


def _parsed(text: str) -> Any:
    import yaml  # noqa: PLC0415  # only here and where there is a file

    return yaml.safe_load(text)


def _yaml(value: Any) -> str:
    import yaml  # noqa: PLC0415  # as above

    plain = list(value) if isinstance(value, tuple) else value
    dumped: str = yaml.safe_dump(plain, default_flow_style=True, width=10_000)
    return dumped.removesuffix("\n").removesuffix("\n...")
