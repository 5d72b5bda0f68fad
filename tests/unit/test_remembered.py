"""What a server was asked for holds again without new wishes, on machines that are folders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from served import HOME, PID, Machine

from provision import bootstrap, remembered
from provision.bootstrap import make_plan
from provision.config import Options
from provision.environments import Receipt, path_for
from provision.environments.layout import Stamp
from provision.errors import UnsupportedHost, UsageError
from provision.host.folder import FolderHost
from provision.plan import preflight_failures
from provision.serving import relaunch


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path, "bare-no-gpu")


ASKED: dict[str, Any] = {
    "port": "31000",
    "python": "3.12",
    "model": "/srv/model",
    "served_model_name": "chat",
    "context_length": 512,
    "extra": ("--log-requests", "--tp-size", "1"),
}


@pytest.mark.parametrize("again", [{}, {"target": "cpu"}, {"name": "cpu"}, {"prefix": HOME}], ids=str)
@pytest.mark.parametrize("alive", [True, False], ids=["running", "stopped"])
def test_without_new_wishes_nothing_changes(machine: Machine, again: dict[str, str], alive: bool) -> None:
    first = machine.plan(target="cpu", **ASKED)
    machine.serve(first, alive=alive, state="ready" if alive else "stopped")
    plan = machine.plan(**again)
    assert (plan.launch, plan.replaced) == (first.launch, None)
    assert plan.remembered and plan.remembered.kept.items() >= ASKED.items()
    assert [line for line in plan.lines() if "port 31000" in line and "`cpu`" in line]


def test_what_was_decided_stays_though_something_newer_is_here_by_now(machine: Machine) -> None:
    """A Python that was installed since, or a better ranked target, is no reason to replace what serves."""
    first = machine.plan(target="cpu")
    assert first.decision.python == "3.11"
    asked = first.launch.asked
    assert asked
    other = msgspec.structs.replace(asked, settings={**asked.settings, "python": "3.13"})
    machine.serve(replace(first, launch=replace(first.launch, asked=other)))
    assert machine.plan().decision.python == "3.13"
    assert machine.forgetting("python").decision.python == "3.11"
    assert machine.plan(python="3.12").decision.python == "3.12"


def test_flags_stand_over_what_is_remembered_and_that_over_the_targets_default(machine: Machine) -> None:
    machine.serve(machine.plan(target="cpu", port="31000", context_length=512))
    plan = machine.plan(port="32000")
    assert plan.launch.url.endswith(":32000")
    assert plan.decision.serve.context_length == 512
    assert plan.replaced
    assert [(one.setting, one.old, one.new) for one in plan.replaced.changes] == [("port", "31000", "32000")]
    assert (plan.replaced.name, plan.replaced.pid) == ("cpu", PID)


def test_arguments_for_the_engine_replace_those_from_before(machine: Machine) -> None:
    machine.serve(machine.plan(target="cpu", extra=("--a", "1")))
    plan = machine.plan(extra=("--b", "2"))
    assert plan.launch.argv[-2:] == ("--b", "2") and "--a" not in plan.launch.argv
    assert plan.replaced
    assert [str(one) for one in plan.replaced.changes] == ["extra --a 1 → --b 2"]
    assert "--a" not in machine.plan(extra=()).launch.argv


def test_options_are_forgotten_one_at_a_time_or_all(machine: Machine) -> None:
    machine.serve(machine.plan(target="cpu", port="31000", context_length=512, name="mine"))
    plan = machine.forgetting("port")
    assert (plan.decision.serve.port, plan.decision.serve.context_length) == (30000, 512)
    assert plan.remembered and plan.remembered.not_kept == {"port": "forgotten"}
    plan = machine.forgetting("all")
    assert (plan.decision.serve.port, plan.decision.serve.context_length) == (30000, None)
    assert bootstrap.name_of(plan) == "mine"
    with pytest.raises(UsageError) as refused:
        machine.forgetting("prot")
    assert refused.value.hint == "did you mean `port`?"


def test_what_a_launch_failed_of_is_not_tried_again_unasked(machine: Machine) -> None:
    machine.serve(machine.plan(target="cpu", port="31000", extra=("--no-such-flag",)), alive=False, state="failed")
    plan = machine.plan()
    assert plan.decision.serve.port == 31000 and "--no-such-flag" not in plan.launch.argv
    assert plan.remembered and plan.remembered.not_kept == {"extra": "its launch failed"}
    # One that served and then could not be started again was not stopped by what it was asked for.
    proved = machine.plan(target="cpu", port="31000", extra=("--flag",))
    machine.serve(proved, alive=False, state="failed", proved=True)
    assert "--flag" in machine.plan().launch.argv


def test_another_target_takes_along_what_is_not_software(machine: Machine) -> None:
    machine.serve(machine.plan(target="cpu", port="31000", python="3.12", name="mine", model="/srv/m"))
    facts = bootstrap.question(machine.view(), Options()).facts
    assert not facts.gpus
    recalled = remembered.recall(machine.view(), Options(target="nvidia", name="mine"))
    assert (recalled.options.port, recalled.options.model, recalled.options.python) == ("31000", "/srv/m", None)
    assert recalled.not_kept == {"python": "it was for the target cpu"}


def test_who_opened_one_address_to_everyone_opened_no_other(machine: Machine) -> None:
    machine.serve(machine.plan(target="cpu", bind="0.0.0.0", allow_unauthenticated=True))
    plan = machine.plan()
    assert plan.decision.serve.host == "0.0.0.0" and plan.replaced is None
    assert plan.launch.key_file is None
    elsewhere = machine.plan(bind="::")
    assert elsewhere.launch.key_file
    assert elsewhere.remembered and elsewhere.remembered.not_kept == {
        "allow_unauthenticated": "it was for the bind 0.0.0.0"
    }


def test_what_was_said_of_one_model_is_not_said_of_another(machine: Machine) -> None:
    about: dict[str, Any] = {"revision": "a" * 40, "allow_pickle": True}
    machine.serve(machine.plan(target="cpu", model="org/one", served_model_name="chat", **about))
    again = machine.plan().remembered
    assert again and again.kept.items() >= about.items()
    other = machine.plan(model="org/two").remembered
    assert other and set(other.not_kept) == set(about)
    assert other.kept["served_model_name"] == "chat", "clients go on calling it so"


def test_several_servers_are_told_apart_by_name_target_or_life(machine: Machine) -> None:
    machine.serve(machine.plan(target="cpu", port="31000"))
    machine.serve(machine.plan(target="cpu", port="31001", name="second"), pid=4712)
    with pytest.raises(UsageError) as refused:
        machine.plan()
    assert "`--name cpu`" in (refused.value.hint or "")
    assert machine.plan(target="cpu").decision.serve.port == 31000
    assert machine.plan(name="second").decision.serve.port == 31001
    assert machine.plan(target="cpu", name="third", port="auto").remembered == remembered.Remembered(
        options=Options(target="cpu", name="third", port="auto")
    )
    machine.serve(machine.plan(name="second"), alive=False, pid=4712, state="stopped")
    assert machine.plan().decision.serve.port == 31000


def test_a_target_means_its_server_that_runs_whatever_that_is_called(machine: Machine) -> None:
    first = machine.plan(target="cpu", name="mine", port="31000")
    machine.serve(first)
    assert machine.plan(target="cpu").launch == first.launch
    machine.serve(first, alive=False, state="stopped")
    assert bootstrap.name_of(machine.plan(target="cpu")) == "cpu"


def test_what_is_wrong_with_a_remembered_option_says_that_it_is_remembered(machine: Machine) -> None:
    first = machine.plan(target="cpu", port="31000")
    asked = first.launch.asked
    assert asked
    gone = msgspec.structs.replace(asked, options={**asked.options, "python": "/gone/bin/python3"})
    machine.serve(replace(first, launch=replace(first.launch, asked=gone)))
    with pytest.raises(UsageError, match="/gone/bin/python3") as refused:
        machine.plan()
    assert "remembered from the server `cpu`" in (refused.value.hint or "")
    assert "--forget" in (refused.value.hint or "")
    assert machine.forgetting("python").decision.python == "3.11"


def test_a_consent_to_fetch_without_encryption_is_for_one_run(machine: Machine) -> None:
    machine.serve(machine.plan(target="cpu", insecure=True))
    recalled = machine.plan().remembered
    assert recalled and "insecure" not in recalled.kept


def test_a_server_of_another_machine_is_meant_by_name_unless_this_one_has_none(machine: Machine) -> None:
    """Under a shared prefix; and in a pod that was made again, whose volume still has what the last one served."""
    machine.serve(machine.plan(target="cpu", port="31000"), alive=False, machine="elsewhere", boot="a")
    assert machine.plan().decision.serve.port == 31000
    mine = machine.plan(target="cpu", name="mine", port="31001")
    assert mine.decision.serve.port == 31001
    machine.serve(mine, alive=False)
    assert machine.plan().decision.serve.port == 31001
    assert machine.plan(target="cpu").decision.serve.port == 31000


def test_a_target_that_does_not_fit_any_more_is_chosen_anew_unless_it_serves(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "a40-runpod")
    first = machine.plan(target="a40", port="31000")
    asked = first.launch.asked
    assert asked
    of_another = msgspec.structs.replace(asked, settings={**asked.settings, "target": "a100"})
    moved = replace(first, launch=replace(first.launch, asked=of_another))
    machine.serve(moved, alive=False, state="stopped")
    plan = machine.plan(model="/m")
    assert (plan.decision.target.name, plan.decision.serve.port) == ("runpod-a40", 8888)
    machine.serve(moved)
    with pytest.raises(UnsupportedHost, match="target a100"):
        machine.plan(bind="127.0.0.1")


def test_a_stack_that_is_gone_from_the_catalog_is_given_up_for_no_running_server(machine: Machine) -> None:
    first = machine.plan(target="cpu", port="31000")
    asked = first.launch.asked
    assert asked
    older = msgspec.structs.replace(asked, settings={**asked.settings, "stack": "sglang-0.1.0"})
    was = replace(first, launch=replace(first.launch, asked=older))
    machine.serve(was)
    for wishes in ({}, {"target": "cpu"}, {"port": "31001"}):
        with pytest.raises(UnsupportedHost, match=r"stack sglang-0\.1\.0"):
            machine.plan(**wishes)
    assert machine.forgetting("stack").decision.serve.port == 31000
    stack = machine.plan(stack="sglang-0.5.23").decision.stack
    assert stack and stack.name == "sglang-0.5.23"
    machine.serve(was, alive=False, state="stopped")
    assert machine.plan().decision.serve.port == 31000


def test_a_prefix_of_its_own_is_found_again(machine: Machine) -> None:
    """Named once with a target that lies elsewhere: the server is under it, and so is what it needs."""
    first = machine.plan(target="cpu", prefix=HOME, port="31000")
    asked = first.launch.asked
    assert asked
    machine.serve(first)
    recalled = remembered.recall(machine.view(), Options())
    assert recalled.options.prefix is None
    moved = msgspec.structs.replace(asked, settings={**asked.settings, "target": "runpod-a40"})
    machine.serve(replace(first, launch=replace(first.launch, asked=moved)))
    assert remembered.recall(machine.view(), Options()).options.prefix == HOME


def test_paths_hold_in_every_directory(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    server = machine.serve(machine.plan(target="cpu", model="./model", cache_directory="cache"))
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    plan = machine.plan()
    assert plan.replaced is None
    assert plan.launch.asked == server.asked
    assert plan.decision.serve.model == str(tmp_path / "model")
    assert plan.decision.places.huggingface == str(tmp_path / "cache")


def test_a_cache_that_a_variable_named_is_remembered(machine: Machine) -> None:
    view = machine.root.parent / "view.yml"
    text = view.read_text()
    view.write_text(text.replace("  HOME: /root\n", "  HOME: /root\n  HF_HOME: /data/hf\n"))
    machine.serve(machine.plan(target="cpu"))
    view.write_text(text)
    plan = machine.plan()
    assert plan.launch.variables["HF_HOME"] == "/data/hf" and plan.replaced is None
    assert machine.plan(cache_directory="/x").launch.variables["HF_HOME"] == "/x"


def test_the_key_is_a_setting_whose_value_nobody_is_told(machine: Machine) -> None:
    first = machine.plan(target="cpu")
    machine.serve(first)
    plan = machine.keyed("secret-0123456789")
    assert plan.replaced
    assert [(one.setting, one.old, one.new) for one in plan.replaced.changes] == [("key", None, "set")]
    machine.write(f"{HOME}/servers/cpu/api-key", "secret-0123456789\n")
    machine.serve(plan)
    assert machine.plan().replaced is None
    other = machine.keyed("another-0123456789")
    assert other.replaced and [(one.setting, one.new) for one in other.replaced.changes] == [("key", "another")]
    assert "0123456789" not in "".join(other.lines()) + str(other.told())


def test_a_record_without_options_still_says_what_it_is(machine: Machine) -> None:
    """One of an earlier version, or one that was found again by its processes."""
    first = machine.plan(target="cpu", port="31000")
    server = machine.serve(first, asked=None)
    receipt = Receipt(target="cpu", stack="sglang-0.5.23", python="3.12")
    machine.write(f"{server.directory}/receipt.json", msgspec.json.encode(receipt).decode())
    plan = machine.plan()
    assert plan.decision.python == "3.12"
    assert plan.replaced
    assert [str(one) for one in plan.replaced.changes] == ["port 31000 → 30000"]


def test_other_launches_of_the_same_settings_are_told_by_their_words(machine: Machine) -> None:
    first = machine.plan(target="cpu")
    machine.serve(replace(first, launch=replace(first.launch, argv=(*first.launch.argv, "--old-flag"))))
    plan = machine.plan()
    assert plan.replaced
    assert [str(one) for one in plan.replaced.changes] == ["command --old-flag → unset"]


def test_a_rollback_was_asked_for_later_than_what_the_server_was(machine: Machine) -> None:
    first = machine.plan(target="cpu", python="3.12", port="31000")
    server = machine.serve(first)
    old, new = machine.plan(target="cpu", python="3.11").decision.lock, first.decision.lock
    assert old and new
    left, back = path_for(HOME, new), path_for(HOME, old)
    stamp = Stamp(
        name=back.rsplit("/", 1)[-1], lock=old.name, lock_digest=old.digest, python="3.11.9", interpreter="/q",
        sgprov="0", time="",
    )  # fmt: skip
    receipt = Receipt(target="cpu", environment=stamp.name, rolled_back_from=left.rsplit("/", 1)[-1])
    machine.write(f"{HOME}/receipt.json", msgspec.json.encode(receipt).decode())
    for place in (back, f"{HOME}/current"):
        machine.write(f"{place}/.sgprov/stamp.json", msgspec.json.encode(stamp).decode())
        machine.write(f"{place}/lib/python3.11/site-packages/sglang-0.5.23.dist-info/METADATA", "")
    plan = machine.plan()
    assert (plan.decision.python, plan.decision.serve.port) == ("3.11", 31000)
    # Started again it says so itself, and running bootstrap again leaves it where it is.
    launch, _ = relaunch.launch_of(machine.view(), HOME, server)
    machine.serve(replace(first, launch=launch))
    again = machine.plan()
    assert (again.decision.python, again.replaced) == ("3.11", None)


def test_a_machine_that_is_only_assumed_remembers_nothing(machine: Machine) -> None:
    machine.serve(machine.plan(target="cpu", port="31000"))
    plan = make_plan(machine.view(), Options(target="cpu"), assumed="target")
    assert (plan.decision.serve.port, plan.replaced) == (30000, None)


def test_a_captured_machine_plans_as_it_would_and_tells_no_secret(machine: Machine) -> None:
    machine.serve(machine.plan(target="cpu", port="31000", extra=("--hf-token", "hf_abcdefghijklmnopqrstuvwxyz0123")))
    captured = FolderHost(machine.root.parent)
    assert "hf_abcdefghijkl" not in (captured.read(f"{HOME}/servers/cpu/server.json") or "")
    assert make_plan(captured, Options()).replaced is None
    changed = make_plan(captured, Options(port="31001")).replaced
    assert changed and [one.setting for one in changed.changes] == ["port"]


def test_a_token_that_a_container_was_given_is_not_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(tmp_path, "gb10")
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnopqrstuvwxyz0123")
    first = machine.plan(target="gb10", model="org/gated")
    machine.serve(first, container=first.launch.container)
    monkeypatch.delenv("HF_TOKEN")
    plan = machine.plan()
    assert (plan.launch, plan.replaced) == (first.launch, None)
    assert "server" not in preflight_failures(plan, machine.view())
    # It is not ended for one that could not start without it.
    changed = machine.plan(port="31000")
    assert changed.replaced and "HF_TOKEN is not set" in str(preflight_failures(changed, machine.view())["server"])


def test_a_server_that_runs_on_another_machine_is_told_before_anything_is_fetched(machine: Machine) -> None:
    machine.serve(machine.plan(target="cpu", port="31000"), alive=False, machine="elsewhere", boot="a")
    found = preflight_failures(machine.plan(), machine.view())
    assert found.keys() == {"server"} and "elsewhere" in str(found["server"])
