"""Every check has a machine that makes it speak and one on which it keeps quiet."""

from __future__ import annotations

import itertools
import re
import threading

import pytest
from fakes import info
from unit.checks import cases_gpu, cases_host, cases_serving, cases_software
from unit.checks.machines import Case, machine

from provision.checks.base import Check, Context, check, error
from provision.checks.registry import CHECKS
from provision.checks.run import chosen, run_checks, verdict
from provision.config import Options
from provision.errors import StepFailed, UsageError
from provision.report import Finding, Severity

CASES: tuple[Case, ...] = (*cases_gpu.CASES, *cases_host.CASES, *cases_software.CASES, *cases_serving.CASES)
_IDS = [f"{case.check}-{re.sub(r'[^a-z0-9]+', '-', case.text.lower())[:30]}" for case in CASES]


@pytest.mark.parametrize("case", CASES, ids=_IDS)
def test_a_check_speaks(case: Case) -> None:
    context = case.fires()
    (result,) = run_checks(chosen(CHECKS, (case.check,)), context)
    assert case.text in "\n".join(finding.text for finding in result.findings)
    for finding in result.findings:
        assert finding.check == case.check
        assert finding.fix or finding.severity is Severity.INFO, "what matters has a remedy"
        if context.target:
            fixes = " ".join(finding.fix).replace("sgprov bootstrap --target", "")
            assert "sgprov bootstrap -" not in fixes, "of several targets it says which"


@pytest.mark.parametrize("case", CASES, ids=_IDS)
def test_a_check_keeps_quiet(case: Case) -> None:
    (result,) = run_checks(chosen(CHECKS, (case.check,)), case.quiet())
    assert [finding.text for finding in result.findings] == []
    assert result.outcome == "ok", "quiet because it has looked, not because it does not apply"


def test_every_check_has_its_cases() -> None:
    assert {one.id for one in CHECKS} - {case.check for case in CASES} == set()


def test_ids_are_public_names() -> None:
    names = [one.id for one in CHECKS]
    assert len(names) >= 45 and len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]+(-[a-z0-9]+)+", name) for name in names)


def test_a_family_stands_together() -> None:
    families = [one.family for one in CHECKS]
    assert sum(one != other for one, other in itertools.pairwise(families)) == len(set(families)) - 1


@pytest.mark.parametrize("one", CHECKS, ids=lambda one: one.id)
def test_a_page_is_complete(one: Check) -> None:
    assert all((one.title, one.looks_at, one.why, one.remedy))
    assert not one.title.endswith(".") and not one.why.endswith(".")


def _with(outcome: Finding | Exception) -> Check:
    @check("test", "test-made", "A check that is made here", looks_at="nothing", why="to see", remedy="none")
    def made(_: Context) -> list[Finding]:
        if isinstance(outcome, Exception):
            raise outcome
        return [outcome]

    return made


def test_a_check_that_crashes_is_a_finding_and_the_others_still_run() -> None:
    fine = chosen(CHECKS, ("system-arch",))
    results = run_checks((_with(ValueError("oh")), *fine), machine())
    assert [result.outcome for result in results] == ["error", "ok"]
    assert "the check itself failed: ValueError('oh')" in results[0].findings[0].text


def test_what_cannot_be_looked_at_comes_with_its_own_remedy() -> None:
    missing = StepFailed("the program `uv` is missing", hint="install sgprov again: uv comes with it")
    (result,) = run_checks((_with(missing),), machine())
    finding = result.findings[0]
    assert (result.outcome, finding.fix) == ("error", ("install sgprov again: uv comes with it",))
    assert finding.text == "this could not be looked at: the program `uv` is missing"


def test_an_ignored_error_is_still_shown_and_blocks_nothing() -> None:
    results = run_checks((_with(error("bad", "`mend`")),), machine(), ignore=("test-made",))
    assert verdict(results) == "degraded"
    assert results[0].findings[0].severity is Severity.WARNING and results[0].findings[0].data["ignored"]


def test_a_check_that_hangs_does_not_hold_up_the_rest() -> None:
    over = threading.Event()

    @check("test", "test-hangs", "A check that hangs", looks_at="nothing", why="to see", remedy="none")
    def hangs(_: Context) -> list[Finding]:
        over.wait(5)
        return []

    try:
        results = run_checks((hangs,), machine(), limit_s=0.05)
    finally:
        over.set()
    assert "gave no answer" in results[0].findings[0].text


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        chosen(CHECKS, ("gpu-mixd",))
    assert caught.value.hint == "did you mean `gpu-mixed`?"


def test_a_question_is_asked_once() -> None:
    context, answers = machine(), iter("ab")
    assert [context.once("what", lambda: next(answers)) for _ in range(2)] == ["a", "a"]


def test_more_gpus_are_asked_for_with_the_flag_of_the_engine() -> None:
    model = "/models/big"
    weights = f"{model}/model.safetensors"
    context = machine(
        "gpu=A40,count=2,driver=550.90.07,python=3.10",
        files={f"{model}/config.json": '{"model_type": "llama"}', weights: ""},
        paths={weights: info(size=80_000 << 20)},
        wishes=Options(target="a40", model=model),
        gpus={"memory_mib": 46068},
    )
    (result,) = run_checks(chosen(CHECKS, ("model-fits",)), context)
    assert result.findings[0].fix[0].endswith("or more GPUs: `sgprov bootstrap --target a40 -- --tp-size 2`")
