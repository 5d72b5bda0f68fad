"""The ports beside the HTTP port, version by version."""

from __future__ import annotations

import pytest

from provision.catalog.engines import engine
from provision.catalog.rows import Serve
from provision.serving.ports import derive

WITH_ATTENTION = ("--enable-dp-attention",)


def ports(
    version: str, *, port: int = 30000, ranks: int | None = None, extra: tuple[str, ...] = ()
) -> dict[str, tuple[int, int]]:
    found = derive(engine("sglang"), version, Serve(port=port, data_parallel=ranks, extra=extra))
    return {derived.name: (derived.first, derived.last) for derived in found}


@pytest.mark.parametrize(
    ("version", "distributed"),
    [("0.4.9", (30100, 31000)), ("0.5.8", (30100, 31000)), ("0.5.15.post1", None), ("0.5.23", (22000, 29999))],
)
def test_torch_distributed_moves_with_the_version(version: str, distributed: tuple[int, int] | None) -> None:
    assert ports(version) == {"http": (30000, 30000)} | ({"torch.distributed": distributed} if distributed else {})


def test_only_what_is_fixed_must_be_free() -> None:
    fixed = {derived.name: derived.fixed for derived in derive(engine("sglang"), "0.5.23", Serve())}
    assert fixed == {"http": True, "torch.distributed": False}


def test_attention_over_replicas_takes_a_block_of_ports() -> None:
    assert ports("0.5.15.post1", ranks=4, extra=WITH_ATTENTION) == {
        "http": (30000, 30000),
        "dp-attention": (30233, 30238),
        "dp-load": (30239, 30239),
        "dp-handshake": (30013, 30013),
    }
    assert "dp-attention" in ports("0.5.23", extra=("--attn-dp-size=4",))


def test_the_schedulers_of_0_4_9_follow_one_by_one() -> None:
    assert ports("0.4.9", ranks=4, extra=WITH_ATTENTION)["dp-schedulers"] == (30239, 30242)
    assert "dp-schedulers" not in ports("0.5.6.post2", ranks=4, extra=WITH_ATTENTION)


def test_replicas_without_attention_talk_through_files() -> None:
    assert set(ports("0.5.15.post1", ranks=4)) == {"http"}
    assert set(ports("0.4.0", ranks=4, extra=WITH_ATTENTION)) == {"http", "torch.distributed"}


def test_past_the_highest_port_the_offset_is_subtracted_from_0_5_13_on() -> None:
    assert ports("0.5.13", port=65400, extra=WITH_ATTENTION)["dp-attention"] == (65162, 65167)
    assert ports("0.5.8", port=65400, extra=WITH_ATTENTION)["dp-attention"][0] > 65535
