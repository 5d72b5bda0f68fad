"""A receipt says what was installed; one that cannot be read counts as absent."""

from __future__ import annotations

import msgspec
import pytest
from fakes import FakeHost

from provision.environments import Receipt, read_receipt, receipt_history, write_receipt
from provision.environments import receipts as module
from provision.environments.layout import Stamp
from provision.errors import StepFailed
from provision.steps.receipt import WriteReceipt

RECEIPT = Receipt(target="a100", stack="sglang-1", lock_digest="d", smoke={"tokens_per_s": 9.0})


def test_written_and_read_back_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    host = FakeHost()
    for time in ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"):
        monkeypatch.setattr(module, "now", lambda time=time: time)
        write_receipt(host, "/p", RECEIPT)
    assert read_receipt(host, "/p") == msgspec.structs.replace(RECEIPT, time="2026-01-02T00:00:00Z")
    assert [one.time[:10] for one in receipt_history(host, "/p")] == ["2026-01-02", "2026-01-01"]
    assert '"schema": 1' in host.files["/p/receipt.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"stack": "x"}', '{"target": "x", "schema": 2}', '{"target": 1}'])
def test_unreadable_is_absent(text: str) -> None:
    assert read_receipt(FakeHost({"/p/receipt.json": text}), "/p") is None


def test_a_later_field_does_not_make_it_unreadable() -> None:
    receipt = read_receipt(FakeHost({"/p/receipt.json": '{"target": "x", "colour": "blue"}'}), "/p")
    assert receipt and receipt.target == "x"


def test_the_step_writes_again_only_what_is_new() -> None:
    host = FakeHost()
    step = WriteReceipt(prefix="/p", receipt=RECEIPT)
    assert not step.satisfied(host)
    step.apply(host, lambda _: None)
    assert step.satisfied(host)
    assert WriteReceipt(prefix="/p", receipt=msgspec.structs.replace(RECEIPT, smoke={})).satisfied(host)
    assert not WriteReceipt(prefix="/p", receipt=msgspec.structs.replace(RECEIPT, port=1)).satisfied(host)


def in_use(name: str) -> FakeHost:
    host = FakeHost({f"/p/environments/{name}/.sgprov/stamp.json": msgspec.json.encode(stamp(name)).decode()})
    host.link("/p/current", f"environments/{name}")
    return host


def stamp(name: str) -> Stamp:
    return Stamp(name=name, lock="l", lock_digest="d", python="3.10.1", interpreter="p", sgprov="0", time="2026-01-01")


def test_a_smoke_test_after_an_installation_without_one_is_written_down() -> None:
    host = FakeHost()
    untested = msgspec.structs.replace(RECEIPT, smoke={})
    WriteReceipt(prefix="/p", receipt=untested).apply(host, lambda _: None)
    step = WriteReceipt(prefix="/p", receipt=untested, smoke="/p/servers/a/smoke.json")
    host.files["/p/servers/a/smoke.json"] = '{"smoke-chat": {"severity": "ok"}}'
    assert not step.satisfied(host)
    step.apply(host, lambda _: None)
    assert step.satisfied(host)
    written = read_receipt(host, "/p")
    assert written and written.smoke == {"smoke-chat": {"severity": "ok"}}


def test_what_is_not_in_use_gets_no_receipt() -> None:
    host = in_use("old")
    with pytest.raises(StepFailed, match="`new` is not in use"):
        WriteReceipt(prefix="/p", receipt=msgspec.structs.replace(RECEIPT, environment="new")).apply(
            host, lambda _: None
        )
    assert read_receipt(host, "/p") is None
    WriteReceipt(prefix="/p", receipt=msgspec.structs.replace(RECEIPT, environment="old")).apply(host, lambda _: None)
    assert read_receipt(host, "/p") is not None
