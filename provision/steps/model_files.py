"""Whether a directory holds a whole model: configuration, tokenizer, weights; and where a named model lies."""

from __future__ import annotations

import glob
import json
import re
from dataclasses import dataclass
from typing import Any

from provision.host import HostView

REVISION = "main"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tekken.json", "*.tiktoken")
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
# Pickles: whoever loads one runs what is in it.
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
_OTHER_WEIGHTS = ("*.safetensors", "*.gguf")
# Values of an engine's `--load-format` that read pickles although there are safetensors.
PICKLE_FORMATS = frozenset({"pt", "npcache"})
# `git clone` without Git LFS leaves these small texts where the weights should be.
_POINTER = b"version https://git-lfs"
_COMMIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LENGTH_BYTES = 8
_LONGEST_HEADER_BYTES = 100_000_000


def locate(view: HostView, model: str, *, models: str, huggingface: str, revision: str = REVISION) -> str | None:
    """The directory of a model that is on this host: its path, its copy under `models`, or in Hugging Face's cache.

    `model` is an absolute path or a hub id (`org/name`). It says where, not whether it is whole: `problems` does. Of a
    copy nobody knows which revision it is: it counts where none was asked for.
    """
    if model.startswith("/"):
        return model if view.stat(model) else None
    copy = f"{models}/{model}"
    if revision == REVISION and view.stat(f"{copy}/config.json"):
        return copy
    folder = f"{hub_cache(view, huggingface)}/models--{model.replace('/', '--')}"
    commit = (view.read(f"{folder}/refs/{revision}") or revision).strip()
    snapshot = f"{folder}/snapshots/{commit}"
    return snapshot if _COMMIT.fullmatch(commit) and view.stat(snapshot) else None


@dataclass(frozen=True, kw_only=True)
class HubCopy:
    """What was, or will be, taken of the hub: which model and revision, and where copies of models lie."""

    model: str
    models: str
    huggingface: str
    revision: str = REVISION

    def path(self, view: HostView) -> str | None:
        """Where it lies, once it is here."""
        return locate(view, self.model, models=self.models, huggingface=self.huggingface, revision=self.revision)

    def commit(self, view: HostView) -> str | None:
        """The commit that it is; None where it is not here, or a copy that somebody put there."""
        path = self.path(view) or ""
        parent, _, name = path.rpartition("/")
        return name if parent.endswith("/snapshots") else None


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
            path for pattern in (*_OTHER_WEIGHTS, *PICKLES) for path in view.glob(f"{place}/{pattern}")
        )
        names = {path.rsplit("/", 1)[-1] for path in paths}
    if not names:
        return [f"`{directory}` has no weights (*.safetensors)"]
    for name in sorted(names):
        path = f"{directory}/{name}"
        problem = weight_problem(view, path)
        if problem:
            found.append(f"`{path}` {problem}")
    return found


def pickled(view: HostView, directory: str, *, load_format: str | None = None) -> tuple[str, ...]:
    """The names of pickles that an engine would load from the directory; nothing where it takes other files."""
    place = glob.escape(directory)
    if load_format not in PICKLE_FORMATS and any(view.glob(f"{place}/{pattern}") for pattern in _OTHER_WEIGHTS):
        return ()
    return tuple(sorted(path.rsplit("/", 1)[-1] for pattern in PICKLES for path in view.glob(f"{place}/{pattern}")))


# What engines read a model's longest context from, in this order; the last one is GPT-2's name for it.
_CONTEXTS = (
    *("max_sequence_length", "seq_length", "max_seq_len", "model_max_length", "max_position_embeddings", "n_positions"),
)


def configuration(view: HostView, directory: str) -> dict[str, Any]:
    """The model's `config.json`; empty where it has none that can be read."""
    return _json_object(view.read(f"{directory}/config.json") or "") or {}


def context_length(config: dict[str, Any]) -> int | None:
    """How many tokens the model was made for, as the engines count; None where it does not say."""
    inner = next((config[key] for key in ("text_config", "llm_config") if isinstance(config.get(key), dict)), config)
    scaling = inner.get("rope_scaling")
    factor = scaling.get("factor", 1) if isinstance(scaling, dict) else 1
    if isinstance(scaling, dict) and (
        "original_max_position_embeddings" in scaling or scaling.get("rope_type") == "llama3"
    ):
        factor = 1
    found = next((inner[key] for key in _CONTEXTS if isinstance(inner.get(key), int)), None)
    return int(found * factor) if found is not None and isinstance(factor, (int, float)) else None


def has_chat_template(view: HostView, directory: str) -> bool | None:
    """Whether the model says how a chat is written down.

    None where its tokenizer is of a kind that knows by itself, and where the model is not here.
    """
    if view.read(f"{directory}/config.json") is None:
        return None
    place = glob.escape(directory)
    if any(
        view.glob(f"{place}/{name}") for name in ("chat_template.*", "chat_templates/*", "additional_chat_templates/*")
    ):
        return True
    text = view.read(f"{directory}/tokenizer_config.json")
    if text is not None and (_json_object(text) or {}).get("chat_template"):
        return True
    return None if view.glob(f"{place}/tekken.json") or view.glob(f"{place}/*.gguf") else False


def own_code(view: HostView, directory: str) -> bool:
    """Whether the model brings code of its own (`trust_remote_code`), which nothing here ever runs."""
    for name in ("config.json", "tokenizer_config.json"):
        if (_json_object(view.read(f"{directory}/{name}") or "") or {}).get("auto_map"):
            return True
    return False


def weight_problem(view: HostView, path: str) -> str | None:
    """What is wrong with one file of weights, or None. Only its header is read, however large it is.

    A safetensors file is 8 bytes of length (little-endian), that much JSON with each tensor's `data_offsets`, and the
    data; its size therefore is known from its head. https://huggingface.co/docs/safetensors
    """
    info = view.stat(path)
    if info is None or info.is_directory:
        return "is missing" if info is None else "is a directory"
    head = view.read_bytes(path, len(_POINTER))
    if head is None:
        # A recording knows that the file was there, and holds nothing of what was in it.
        return None if view.recorded else "cannot be read"
    if head == _POINTER:
        return "is a Git LFS pointer, not the file: `git lfs pull`"
    if not path.endswith(".safetensors"):
        return None if info.size else "is empty"
    return _header_problem(view, path, int.from_bytes(head[:_LENGTH_BYTES], "little"), info.size)


def _header_problem(view: HostView, path: str, length: int, size: int) -> str | None:
    if size < _LENGTH_BYTES or length > _LONGEST_HEADER_BYTES:
        return "is not a safetensors file"
    if size < _LENGTH_BYTES + length:
        return "is cut short: its header is not whole"
    head = view.read_bytes(path, _LENGTH_BYTES + length)
    return "cannot be read" if head is None else _size_problem(head, size)


def _size_problem(head: bytes, size: int) -> str | None:
    """`head` is the length and the whole header, `size` that of the file."""
    header = _json_object(head[_LENGTH_BYTES:].decode("utf-8", errors="replace"))
    ends = None if header is None else [_end(entry) for name, entry in header.items() if name != "__metadata__"]
    if ends is None or None in ends:
        return "is not a safetensors file"
    whole = len(head) + max((end for end in ends if end is not None), default=0)
    if size < whole:
        return f"is cut short: {size} of {whole} bytes"
    return None if size == whole else "is longer than it says"


def _end(entry: object) -> int | None:
    """Where a tensor's data ends, of `{"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}`."""
    match entry:
        case {"data_offsets": [int(start), int(end)]} if 0 <= start <= end:
            return end
        case _:
            return None


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
