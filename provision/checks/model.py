"""Checks of the model: where it is, whether it is whole, whether it fits."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from functools import partial

from provision.catalog.engines import engine
from provision.checks.base import Context, bootstrap, check, error, info
from provision.plan import EXAMPLE_MODEL
from provision.report import Finding
from provision.steps.model_files import locate, problems

_check = partial(check, "model")
_MIB = 1 << 20
_BUILTIN = "builtin:"


def _named(context: Context) -> bool:
    model = context.serve.model
    return bool(context.decision and model and not model.startswith(_BUILTIN))


@_check(
    "model-there",
    "The model is on this host, or can be fetched",
    looks_at="the path of the model, the models' directory, and the Hugging Face cache",
    why="a path with a typing error is found out after the engine has started",
    remedy="`sgprov bootstrap --model ORG/NAME`, or put it under the models' directory",
    applies=_named,
)
def model_there(context: Context) -> Iterator[Finding]:
    model = context.serve.model or ""
    if _directory(context):
        return
    if model.startswith("/"):
        yield error(
            f"there is no model at `{model}`",
            f"{bootstrap(context, '--model DIR')}, or a hub id such as {EXAMPLE_MODEL}",
        )
    elif "/" not in model:
        yield error(
            f"there is no model at `{context.places.models}/{model}`",
            f"{bootstrap(context, '--model', EXAMPLE_MODEL)} takes one from the hub",
            f"or put it there: `hf download ORG/NAME --local-dir {context.places.models}/{model}`",
        )
    else:
        yield info(f"`{model}` is not on this host; bootstrap fetches it into {context.places.huggingface}")


@_check(
    "model-whole",
    "The model is whole",
    looks_at="config.json, the tokenizer, and the head of every file of weights, which says how long it must be",
    why="a download that was cut short, or a clone without Git LFS, fails after minutes of loading",
    remedy="`hf download ORG/NAME` goes on where it stopped; `git lfs pull` in a clone",
    applies=lambda context: _named(context) and _directory(context) is not None,
)
def model_whole(context: Context) -> Iterator[Finding]:
    directory = _directory(context) or ""
    weights = context.local and context.serve.load_format != "dummy"
    for text in problems(context.view, directory, weights=weights):
        yield error(text, "fetch it again: `hf download` goes on where it stopped")


@_check(
    "model-fits",
    "The weights fit into GPU memory",
    looks_at="the size of the weight files against the memory of the GPUs to be used and the target's mem_fraction",
    why="weights that do not fit fail after they were read; so does a KV cache without any room",
    remedy="`--gpus` with more of them, a quantised model, or a smaller one",
    applies=lambda context: _named(context) and bool(context.gpus) and _directory(context) is not None,
)
def model_fits(context: Context) -> Iterator[Finding]:
    place = glob.escape(_directory(context) or "")
    infos = (context.view.stat(path) for path in context.view.glob(f"{place}/*.safetensors"))
    needed = sum(info.size for info in infos if info) // _MIB
    sizes = [gpu.memory_mib for gpu in context.gpus]
    if not needed or None in sizes:
        return
    parallel = min(context.serve.tensor_parallel or 1, len(sizes))
    room = int(
        sum(sorted((size or 0 for size in sizes), reverse=True)[:parallel]) * (context.serve.mem_fraction or 0.9)
    )
    if needed > room:
        wider = _wider(context, parallel)
        yield error(
            f"the weights take {needed:,} MiB, {parallel} GPU(s) give them {room:,}",
            "a quantised or smaller model" + (f", or more GPUs: {bootstrap(context, '--', wider)}" if wider else ""),
        )


def _wider(context: Context, parallel: int) -> str | None:
    """The engine's own flag for twice as many GPUs, as its row has it; None where there are no more."""
    stack = context.decision.stack if context.decision else None
    if stack is None or 2 * parallel > len(context.gpus):
        return None
    row = engine(stack.engine)
    flags = (one.argv for one in row.rows(row.flags, stack.version) if one.setting == "tensor_parallel")
    return next((" ".join(argv).format(value=2 * parallel) for argv in flags), None)


def _directory(context: Context) -> str | None:
    return context.once("model directory", lambda: _locate(context))


def _locate(context: Context) -> str | None:
    model, places = context.serve.model or "", context.places
    return locate(context.view, model, models=places.models, huggingface=places.huggingface)


CHECKS = (model_there, model_whole, model_fits)
