"""Whether a directory holds a whole model: configuration, tokenizer, weights; and where a named model lies."""

from __future__ import annotations

import glob
import json
from pathlib import Path
from typing import Any

from provision.host import HostView

REVISION = "main"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tekken.json", "*.tiktoken")
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_OLDER_WEIGHTS = ("*.bin", "*.pt", "*.gguf")
# `git clone` without Git LFS leaves these small texts where the weights should be.
_POINTER = b"version https://git-lfs"
_LENGTH_BYTES = 8
_LONGEST_HEADER_BYTES = 100_000_000


def locate(view: HostView, model: str, *, models: str, huggingface: str, revision: str = REVISION) -> str | None:
    """The directory of a model that is on this host: its path, its copy under `models`, or in Hugging Face's cache.

    `model` is an absolute path or a hub id (`org/name`). It says where, not whether it is whole: `problems` does.
    """
    if model.startswith("/"):
        return model if view.stat(model) else None
    copy = f"{models}/{model}"
    if view.stat(f"{copy}/config.json"):
        return copy
    folder = f"{hub_cache(view, huggingface)}/models--{model.replace('/', '--')}"
    commit = (view.read(f"{folder}/refs/{revision}") or revision).strip()
    snapshot = f"{folder}/snapshots/{commit}"
    return snapshot if view.stat(snapshot) else None


def hub_cache(view: HostView, huggingface: str) -> str:
    """Where Hugging Face's library keeps models; its own variables win, as they do in the server."""
    named = view.variable("HF_HUB_CACHE") or view.variable("HUGGINGFACE_HUB_CACHE")
    return named or f"{huggingface}/hub"


def problems(view: HostView, directory: str, *, weights: bool = True) -> tuple[str, ...]:
    """What keeps the model in `directory` from being served, a line each; nothing where it is whole.

    `weights` False is for a server that fills the weights itself (`--load-format dummy`).
    """
    if view.stat(directory) is None:
        return (f"there is no model at `{directory}`",)
    found = [*_config_problems(view, directory)]
    if not any(view.glob(f"{glob.escape(directory)}/{name}") for name in _TOKENIZERS):
        found.append(f"`{directory}` has no tokenizer ({', '.join(_TOKENIZERS[:3])})")
    if weights:
        found += _weight_problems(view, directory)
    return tuple(found)


def _config_problems(view: HostView, directory: str) -> list[str]:
    text = view.read(f"{directory}/config.json")
    if text is None:
        return [f"`{directory}` has no `config.json`"]
    config = _json_object(text)
    if config is None:
        return [f"`{directory}/config.json` is not a JSON object"]
    if not config.get("architectures") and not config.get("model_type"):
        return [f"`{directory}/config.json` names neither `architectures` nor a `model_type`"]
    return []


def _weight_problems(view: HostView, directory: str) -> list[str]:
    found: list[str] = []
    names: set[str] = set()
    for index in _INDEXES:
        text = view.read(f"{directory}/{index}")
        if text is None:
            continue
        shards = (_json_object(text) or {}).get("weight_map")
        if not isinstance(shards, dict):
            return [f"`{directory}/{index}` is not an index of weights"]
        names = {str(name) for name in shards.values()}
        break
    if not names:
        place = glob.escape(directory)
        paths = view.glob(f"{place}/*.safetensors") or tuple(
            path for pattern in _OLDER_WEIGHTS for path in view.glob(f"{place}/{pattern}")
        )
        names = {path.rsplit("/", 1)[-1] for path in paths}
    if not names:
        return [f"`{directory}` has no weights (*.safetensors)"]
    for name in sorted(names):
        path = f"{directory}/{name}"
        problem = weight_problem(Path(path)) if view.stat(path) else "is missing"
        if problem:
            found.append(f"`{path}` {problem}")
    return found


def weight_problem(path: Path) -> str | None:
    """What is wrong with one file of weights, or None. Only its header is read, however large it is.

    A safetensors file is 8 bytes of length (little-endian), that much JSON with each tensor's `data_offsets`, and the
    data; its size therefore is known from its head. https://huggingface.co/docs/safetensors
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(len(_POINTER))
        if head == _POINTER:
            return "is a Git LFS pointer, not the file: `git lfs pull`"
        if path.suffix != ".safetensors":
            return None if size else "is empty"
        length = int.from_bytes(head[:_LENGTH_BYTES], "little")
        if size < _LENGTH_BYTES or length > _LONGEST_HEADER_BYTES:
            return "is not a safetensors file"
        stream.seek(_LENGTH_BYTES)
        header = _json_object(stream.read(length).decode("utf-8", errors="replace"))
    if header is None:
        return "is cut short: its header is not whole" if size < _LENGTH_BYTES + length else "is not a safetensors file"
    ends = [
        entry["data_offsets"][1] for entry in header.values() if isinstance(entry, dict) and "data_offsets" in entry
    ]
    whole = _LENGTH_BYTES + length + max(ends, default=0)
    return (
        None
        if size == whole
        else f"is cut short: {size} of {whole} bytes"
        if size < whole
        else "is longer than it says"
    )


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
