"""Wishes: flags over variables over the file, typed once, misspellings named; and what children inherit."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from provision import config
from provision.cli.bootstrap import bootstrap
from provision.cli.plan import plan
from provision.errors import UsageError
from provision.options import ONE_RUN, OPTION, OPTIONS


@pytest.fixture(autouse=True)
def _an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SGPROV_TARGET", "SGPROV_PORT", "SGPROV_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def test_flags_stand_over_variables_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sgprov.yml").write_text("target: cpu\nport: 31000\nname: from-file\n")
    monkeypatch.setenv("SGPROV_PORT", "32000")
    monkeypatch.setenv("SGPROV_TARGET", "a100")
    options = config.load({"target": "a40", "port": None})
    assert (options.target, options.port, options.name) == ("a40", "32000", "from-file")


def test_a_file_may_lie_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other.yml"
    other.write_text("context_length: 4096\nmem_fraction: 0.8\n")
    assert config.load({}, file=str(other)).context_length == 4096
    monkeypatch.setenv("SGPROV_CONFIG", str(other))
    assert config.load({}).mem_fraction == 0.8


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("prot: 1", "unknown key: `prot`", "did you mean `port`?"),
        ("zzzz: 1", "unknown key: `zzzz`", "the keys are target"),
        ("- a\n- b", "must hold keys and values, not a list", ""),
        ("a: [", "is not valid YAML", ""),
        ("context_length: many", "`context_length` in", ""),
        ("target: [cpu]", "must be text, not a list", ""),
        ("context_length: .inf", "must be a whole number, not `inf`", ""),
        ("context_length: -5", "must be from 1 to 100000000, not -5", ""),
        ("mem_fraction: 7", "must be from 0.01 to 1.0, not 7", ""),
        ("name: BAD NAME", "`BAD NAME` cannot name a server", "small letters"),
        ("python: foo", "`foo` is not a Python", "3.10"),
        ("python: 3.10", "is a number", 'quote it: `python: "3.10"`'),
        ("extra: {a: 1}", "`extra` in `sgprov.yml` must be a list, not a dict", ""),
        ("extra: [--flag, true]", "`extra` in `sgprov.yml` holds a bool", "quote"),
        ("extra: '--a \"b'", "`extra` in `sgprov.yml` cannot be split into words", ""),
        ("served_model_name: a b", "`a b` cannot name a model", "no spaces"),
        ("free_port: true", "`free_port` is not taken from `sgprov.yml`", "it is for one run: `--free-port`"),
        ("serve_model_name: a", "unknown key", "did you mean `served_model_name`?"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tmp_path: Path, text: str, message: str, hint: str) -> None:
    (tmp_path / "sgprov.yml").write_text(text)
    with pytest.raises(UsageError) as refused:
        config.load({})
    assert message in str(refused.value)
    assert hint in (refused.value.hint or "")


def test_arguments_for_the_engine_come_from_all_three_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.load({}).extra is None
    monkeypatch.setenv("SGPROV_CONFIG", str(tmp_path / "sgprov.yml"))
    (tmp_path / "sgprov.yml").write_text("extra: [--tp-size, 2, --scale, 0.5]\n")
    assert config.load({}).extra == ("--tp-size", "2", "--scale", "0.5")
    monkeypatch.setenv("SGPROV_EXTRA", "--json-model-override-args '{\"a\": 1}'")
    assert config.load({}).extra == ("--json-model-override-args", '{"a": 1}')
    assert config.load({"extra": ("--tp-size", "4")}).extra == ("--tp-size", "4")
    monkeypatch.delenv("SGPROV_EXTRA")
    (tmp_path / "sgprov.yml").write_text("extra: []\n")
    assert config.load({}).extra == ()


def test_the_table_holds_every_option_once_with_an_example_that_is_valid(tmp_path: Path) -> None:
    assert sorted(OPTION) == sorted(one.name for one in fields(config.Options)) and len(OPTION) == len(OPTIONS)
    for one in OPTIONS:
        (tmp_path / "sgprov.yml").write_text(f"{one.name}: {one.example}\n")
        named = str(tmp_path / "sgprov.yml") if one.explicit or one.named_file_only else None
        assert getattr(config.load({}, file=named), one.name) not in (None, ())


def test_what_opens_a_server_to_everyone_is_said_knowingly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = tmp_path / "sgprov.yml"
    named.write_text("allow_unauthenticated: true\n")
    with pytest.raises(UsageError, match="`allow_unauthenticated` is not taken from"):
        config.load({})
    assert config.load({}, file=str(named)).allow_unauthenticated
    named.write_text("allow_unauthenticated: 1\n")
    with pytest.raises(UsageError, match="must be `true` or `false`"):
        config.load({}, file=str(named))
    named.unlink()
    monkeypatch.setenv("SGPROV_ALLOW_UNAUTHENTICATED", "true")
    with pytest.raises(UsageError, match="is not taken from `SGPROV_ALLOW_UNAUTHENTICATED`"):
        config.load({})


def test_every_flag_that_says_what_is_wanted_is_a_row_of_the_table() -> None:
    for command in (bootstrap, plan):
        told = {one.name: one for one in command.params if one.name in OPTION}
        assert set(told) == {one.name for one in OPTIONS if one.has_flag}


def test_every_other_flag_of_bootstrap_is_for_one_run() -> None:
    flags = {option.removeprefix("--").replace("-", "_") for one in bootstrap.params for option in one.opts}
    assert flags - set(OPTION) - {"_t"} == set(ONE_RUN)


def test_a_misspelt_variable_and_a_missing_file_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGPROV_TARGTE", "cpu")
    with pytest.raises(UsageError) as refused:
        config.load({})
    assert refused.value.hint == "did you mean `SGPROV_TARGET`?"
    monkeypatch.delenv("SGPROV_TARGTE")
    monkeypatch.setenv("SGPROV_CONFIG", "/no/such.yml")
    with pytest.raises(UsageError, match=r"there is no file at `/no/such\.yml`"):
        config.load({})


def test_children_inherit_neither_secrets_nor_what_leaks_into_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*config.SECRET_VARIABLES, *config.LEAKING_VARIABLES, config.WHEELS_VARIABLE):
        monkeypatch.setenv(name, "planted")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    inherited = config.process_environment()
    assert "planted" not in inherited.values()
    assert inherited["HF_ENDPOINT"] == "http://127.0.0.1:1"
    assert config.secret("HF_TOKEN") == "planted"


def test_an_empty_secret_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "")
    assert config.secret("HF_TOKEN") is None
