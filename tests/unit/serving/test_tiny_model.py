"""The model that is built on the spot: the same bytes each time, and whole."""

from __future__ import annotations

import json
from pathlib import Path

from provision.host.local import LocalHost
from provision.serving import tiny_model


def test_the_digest_changes_only_with_the_files() -> None:
    # A change here makes every `cpu` host write its model again: intended, but never by accident.
    assert tiny_model.digest() == "sha256:7013e6031b304e01b33a4bb653df0f153906d5d1084237e232ec1a27a4260215"


def test_the_tokenizer_can_spell_every_byte_and_every_merge() -> None:
    tokenizer = json.loads(tiny_model.files()["tokenizer.json"])
    vocabulary, merges = tokenizer["model"]["vocab"], tokenizer["model"]["merges"]
    assert sorted(vocabulary.values()) == list(range(308))
    assert sum(len(token) == 1 for token in vocabulary) == 256
    for merge in merges:
        left, right = merge.split(" ")
        assert {left, right, left + right} <= set(vocabulary), merge
    assert {token["content"]: token["id"] for token in tokenizer["added_tokens"]}.items() <= vocabulary.items()


def test_the_configuration_agrees_with_the_tokenizer() -> None:
    config = json.loads(tiny_model.files()["config.json"])
    assert config["architectures"] == ["GPT2LMHeadModel"]
    assert (config["vocab_size"], config["n_positions"]) == (308, tiny_model.CONTEXT_LENGTH)
    assert config["n_embd"] % config["n_head"] == 0


def test_what_was_written_is_recognised_until_a_file_changes(tmp_path: Path) -> None:
    host, directory = LocalHost({}), str(tmp_path / "tiny")
    assert not tiny_model.is_written(host, directory)
    tiny_model.write(host, directory)
    assert tiny_model.is_written(host, directory)
    (tmp_path / "tiny" / "config.json").write_text("{}")
    assert not tiny_model.is_written(host, directory)
    tiny_model.write(host, directory)
    assert tiny_model.is_written(host, directory)
