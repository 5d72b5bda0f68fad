"""A model small enough to build on the spot, so that the real engine can be tried on a machine without a GPU.

It has the shape of GPT-2 (no rotary embeddings: SGLang's CPU path takes those from kernels that its wheels do not
hold) and no weight file: the engine fills it with `--load-format dummy`. What it says is noise; how it is served is
real. Its context of 2,048 tokens is long enough for a prompt whose second time is visibly cheaper.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import Any

from provision.host.view import Host, HostView

SERVED_NAME = "sgprov-tiny"
CONTEXT_LENGTH = 2048
_STAMP = ".sgprov-digest"
_END, _TURN, _TURN_END, _PAD = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"
_SPECIAL = (_END, _TURN, _TURN_END, _PAD)

# A few frequent English pairs, so that merging is exercised; "Ġ" is how byte-level BPE writes a space.
_MERGES = (
    *("Ġ t", "h e", "Ġ a", "i n", "r e", "o n", "Ġt he", "e r", "Ġ s", "a t", "Ġ w", "Ġ o", "e n", "Ġ c", "i t", "i s"),
    *("a n", "o r", "e s", "Ġ b", "e d", "Ġ f", "in g", "Ġ p", "o u", "Ġa n", "a l", "a r", "Ġt o", "Ġ m", "Ġo f"),
    *("Ġ in", "Ġ d", "Ġ h", "Ġan d", "i c", "a s", "l e", "Ġt h", "i on", "o m", "l l", "en t", "Ġ n", "Ġ l", "s t"),
    *("Ġ re", "v e"),
)

_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '" + _TURN + "' + message['role'] + '\\n' + message['content'] + '" + _TURN_END + "\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '" + _TURN + "assistant\\n' }}{% endif %}"
)


@cache
def files() -> dict[str, str]:
    """The model's files, name to text; the same bytes every time."""
    documents = {
        "config.json": _config(),
        "generation_config.json": {"eos_token_id": _ids()[_END], "pad_token_id": _ids()[_PAD]},
        "tokenizer.json": _tokenizer(),
        "tokenizer_config.json": _tokenizer_config(),
    }
    return {name: json.dumps(document, indent=1, sort_keys=True) + "\n" for name, document in documents.items()}


@cache
def digest() -> str:
    """What the files hold, as `sha256:…`: a step compares it with what it wrote before."""
    content = hashlib.sha256()
    for name, text in sorted(files().items()):
        content.update(f"{name}\0{text}\0".encode())
    return f"sha256:{content.hexdigest()}"


def is_written(host: HostView, directory: str) -> bool:
    """Whether this very model is in `directory`: by its stamp, and with each file as it was written."""
    if (host.read(f"{directory}/{_STAMP}") or "").strip() != digest():
        return False
    return all(host.read(f"{directory}/{name}") == text for name, text in files().items())


def write(host: Host, directory: str) -> None:
    """Write the model into `directory`; the stamp comes last, so an interrupted run is seen as not done."""
    host.make_directory(directory)
    host.remove(f"{directory}/{_STAMP}")
    for name, text in files().items():
        host.write(f"{directory}/{name}", text)
    host.write(f"{directory}/{_STAMP}", digest() + "\n")


def _byte_alphabet() -> list[str]:
    """The 256 printable characters that byte-level BPE writes bytes as.

    Source: `bytes_to_unicode` of the GPT-2 encoder, https://github.com/openai/gpt-2/blob/master/src/encoder.py
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    # Printable bytes come first: dummy weights say token 0 again and again, and "!" is better to look at than NUL.
    return [*(chr(byte) for byte in printable), *(chr(256 + index) for index in range(256 - len(printable)))]


@cache
def _ids() -> dict[str, int]:
    tokens = [*_byte_alphabet(), *(merge.replace(" ", "") for merge in _MERGES), *_SPECIAL]
    return {token: index for index, token in enumerate(tokens)}


def _config() -> dict[str, Any]:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "vocab_size": len(_ids()),
        "n_positions": CONTEXT_LENGTH,
        "n_ctx": CONTEXT_LENGTH,
        "n_embd": 64,
        "n_head": 4,
        "n_layer": 2,
        "n_inner": None,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "layer_norm_epsilon": 1e-5,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "bos_token_id": _ids()[_END],
        "eos_token_id": _ids()[_END],
        "pad_token_id": _ids()[_PAD],
    }


def _tokenizer() -> dict[str, Any]:
    """The format that the `tokenizers` library reads: https://huggingface.co/docs/tokenizers."""
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": _ids()[token], "content": token, **special} for token in (_END, _TURN, _TURN_END, _PAD)
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": _ids(),
            "merges": list(_MERGES),
        },
    }


def _tokenizer_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": CONTEXT_LENGTH,
        "bos_token": _END,
        "eos_token": _END,
        "pad_token": _PAD,
        "clean_up_tokenization_spaces": False,
        "chat_template": _CHAT_TEMPLATE,
    }
