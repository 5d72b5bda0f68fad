"""The rows of engines.yml agree with themselves."""

from __future__ import annotations

import re
from itertools import combinations

import pytest
from packaging.version import Version

from provision.catalog.engines import Engine, Flag, Ranged, load
from provision.catalog.rows import Serve

ENGINES = list(load().values())
# Versions at every border of every row, and so one from each range.
BORDERS = {
    engine.name: sorted(
        {
            border
            for rows in (engine.launch, engine.flags, engine.variables, engine.probes, engine.log, engine.ports)
            for row in rows
            for border in (row.since, row.before)
            if border
        }
        | {engine.since},
        key=Version,
    )
    for engine in ENGINES
}


@pytest.fixture(params=ENGINES, ids=lambda engine: engine.name)
def engine(request: pytest.FixtureRequest) -> Engine:
    row: Engine = request.param
    return row


def test_every_version_has_one_launch_one_probe_and_one_log(engine: Engine) -> None:
    for version in BORDERS[engine.name]:
        for rows in (engine.launch, engine.probes, engine.log):
            assert len(engine.rows(rows, version)) == 1, version


def test_no_two_rows_speak_of_the_same_value_of_a_setting(engine: Engine) -> None:
    for version in BORDERS[engine.name]:
        for one, other in combinations(engine.rows(engine.flags, version), 2):
            assert one.setting != other.setting or not same_value(one, other), (version, one, other)


def same_value(one: Flag, other: Flag) -> bool:
    return one.values is None or other.values is None or bool(set(one.values) & set(other.values))


def test_ranges_are_not_empty(engine: Engine) -> None:
    rows: list[Ranged] = [*engine.flags, *engine.probes, *engine.ports]
    for row in rows:
        assert row.since is None or row.before is None or Version(row.since) < Version(row.before), row


def test_settings_are_those_that_targets_may_set(engine: Engine) -> None:
    assert {flag.setting for flag in engine.flags} <= set(Serve.__struct_fields__)


def test_sglang_knows_every_setting_in_its_newest_version() -> None:
    sglang = load()["sglang"]
    known = {flag.setting for flag in sglang.rows(sglang.flags, "0.5.23")}
    assert set(Serve.__struct_fields__) - known == {"model", "extra"}


def test_patterns_compile(engine: Engine) -> None:
    for row in engine.log:
        patterns = [row.ready, *row.death, *(phase.pattern for phase in row.phases), row.progress, row.native_model]
        for pattern in filter(None, patterns):
            re.compile(pattern)
        assert row.phases[0].pattern is None, "the first phase begins with the process"


def test_flags_of_sglang_are_no_abbreviations() -> None:
    """`--tp` works by prefix only, `--pp` became ambiguous, and `--enable-ep` silently became another flag."""
    words = [word for flag in load()["sglang"].flags for word in flag.argv]
    assert not {"--tp", "--dp", "--pp", "--ep", "--model", "--enable-ep"} & set(words)
