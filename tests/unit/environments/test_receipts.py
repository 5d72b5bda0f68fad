"""A receipt says what was installed; one that cannot be read counts as absent."""

from __future__ import annotations

import msgspec
import pytest
from fakes import FakeHost

from provision.environments import Receipt, read_receipt, receipt_history, write_receipt
from provision.environments import receipts as module
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
