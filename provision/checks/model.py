"""Checks of the model: where it is, whether it is whole, whether it fits."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from functools import partial

from provision.catalog.engines import engine
from provision.checks.base import Context, bootstrap, check, error, info, warning
from provision.plan import EXAMPLE_MODEL
from provision.report import Finding
from provision.steps.model_demands import load_format
from provision.steps.model_files import REVISION, locate, own_code, pickled, problems

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
    "model-pickle",
    "The weights cannot run code",
    looks_at="the names of the weight files that the engine would load",
    why="a pickle (.bin, .pt, .pth, .ckpt) runs whatever code is in it, as the user who serves it",
    remedy="a copy with safetensors; `sgprov bootstrap --allow-pickle` where whoever made it is trusted",
    applies=lambda context: _named(context) and _directory(context) is not None,
)
def model_pickle(context: Context) -> Iterator[Finding]:
    directory = _directory(context) or ""
    if context.serve.load_format == "dummy":
        return
    if found := pickled(context.view, directory, load_format=load_format(context.serve)):
        text = f"the weights of `{directory}` are pickle files, which can run any code: {', '.join(found[:3])}"
        if context.allow_pickle:
            yield warning(text, "take a copy with safetensors")
        else:
            yield error(text, "take a copy with safetensors", f"{bootstrap(context, '--allow-pickle')} loads them")


@_check(
    "model-code",
    "The model brings no code of its own",
    looks_at="`auto_map` in config.json and tokenizer_config.json",
    why="such a model is complete only with its own Python files, which sgprov never has the engine run",
    remedy="a model that the engine knows by itself; or read the code, and hand the engine `--trust-remote-code`",
    applies=lambda context: _named(context) and _directory(context) is not None,
)
def model_code(context: Context) -> Iterator[Finding]:
    directory = _directory(context) or ""
    if not own_code(context.view, directory):
        return
    if "--trust-remote-code" in context.serve.extra:
        yield warning(f"the engine is told to run the code that `{directory}` brings", "read it first")
    else:
        yield info(f"`{directory}` brings code of its own, which is not run; the engine may not know the model without")


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
    revision = context.serve.revision or REVISION
    return locate(context.view, model, models=places.models, huggingface=places.huggingface, revision=revision)


CHECKS = (model_there, model_whole, model_pickle, model_code, model_fits)
