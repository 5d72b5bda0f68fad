from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.diagnosis.telemetry import Batch, Telemetry, fold, parse_batch

LINES = {
    "0.4.0": (
        "[2024-12-04 10:00:00 TP0] Prefill batch. #new-seq: 1, #new-token: 6, #cached-token: 2, cache hit rate: 25.00%, token usage: 0.01, #running-req: 3, #queue-req: 4",
        Batch(
            kind="prefill", time="2024-12-04 10:00:00", new_tokens=6, cached_tokens=2, usage=0.01, running=3, queued=4
        ),
    ),
    "0.4.0 decode": (
        "[2024-12-04 10:00:00 TP0] Decode batch. #running-req: 3, #token: 1200, token usage: 0.02, gen throughput (token/s): 88.10, #queue-req: 0",
        Batch(kind="decode", time="2024-12-04 10:00:00", usage=0.02, running=3, queued=0, tokens_per_s=88.1),
    ),
    "0.4.9": (
        "[2025-07-06 10:00:00] Prefill batch. #new-seq: 1, #new-token: 6, #cached-token: 0, #token: 6, token usage: 0.00, #running-req: 0, #queue-req: 0, ",
        Batch(
            kind="prefill", time="2025-07-06 10:00:00", new_tokens=6, cached_tokens=0, usage=0.0, running=0, queued=0
        ),
    ),
    "0.5.4": (
        "[2025-10-24 10:00:00 DP2 TP2] Prefill batch [41], #new-seq: 1, #new-token: 128, #cached-token: 64, token usage: 0.10, #running-req: 1, #queue-req: 0, ",
        Batch(
            kind="prefill",
            time="2025-10-24 10:00:00",
            replica=2,
            new_tokens=128,
            cached_tokens=64,
            usage=0.1,
            running=1,
            queued=0,
        ),
    ),
    "0.5.9": (
        "[2026-02-23 10:00:00] Prefill batch, #new-seq: 1, #new-token: 158, #cached-token: 0, token usage: 0.08, #running-req: 31, #queue-req: 0, input throughput (token/s): 33.80, cuda graph: False",
        Batch(
            kind="prefill",
            time="2026-02-23 10:00:00",
            new_tokens=158,
            cached_tokens=0,
            usage=0.08,
            running=31,
            queued=0,
            tokens_per_s=33.8,
        ),
    ),
    "0.5.23": (
        "[2026-10-30 10:00:00 TP0 EP0] Prefill batch, #new-seq: 1, #new-token: 8192, #cached-token: 0, full token usage: 0.01, swa token usage: 0.03, #running-req: 0, #queue-req: 1, #pending-token: 46401, cuda graph: False, input throughput (token/s): 8072.80",
        Batch(
            kind="prefill",
            time="2026-10-30 10:00:00",
            new_tokens=8192,
            cached_tokens=0,
            usage=0.03,
            running=0,
            queued=1,
            tokens_per_s=8072.8,
        ),
    ),
    "hybrid decode": (
        "[2026-07-04 05:01:33 TP0] Decode batch, #running-req: 40, #full token: 350592, full token usage: 0.74, mamba num: 160, mamba usage: 0.80, accept len: 3.13, accept rate: 0.71, npu graph: True, gen throughput (token/s): 155.34, #queue-req: 0",
        Batch(
            kind="decode",
            time="2026-07-04 05:01:33",
            usage=0.8,
            running=40,
            queued=0,
            tokens_per_s=155.34,
            accept_length=3.13,
        ),
    ),
}


@pytest.mark.parametrize("name", LINES)
def test_parse_batch(name: str) -> None:
    line, batch = LINES[name]
    assert parse_batch(line) == batch
    assert parse_batch(f"Oct 30 10:00:00 host sglang[1]: {line}\n") == batch


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Decode batch",
        "Prefill batch of 3",
        'INFO: "POST /generate HTTP/1.1" 200 OK',
        "Decode batch, #token: 3",
        "max_running_requests=4",
    ],
)
def test_other_lines_are_none(line: str) -> None:
    assert parse_batch(line) is None


def test_folds_into_what_the_server_does_now() -> None:
    state = fold(
        [
            "Prefill batch. #new-seq: 1, #new-token: 250, #cached-token: 0, token usage: 0.00, #running-req: 0, #queue-req: 2, ",
            "something else",
            "Prefill batch. #new-seq: 2, #new-token: 50, #cached-token: 700, token usage: 0.10, #running-req: 1, #queue-req: 0, ",
            "Decode batch. #running-req: 3, #token: 1000, token usage: 0.50, gen throughput (token/s): 100.00, #queue-req: 0",
            "Decode batch. #running-req: 2, #token: 900, token usage: 0.40, gen throughput (token/s): 80.00, #queue-req: 0",
        ]
    )
    assert (state.running, state.queued, state.usage) == (2, 0, 0.4)
    assert (state.peak_running, state.peak_queued, state.peak_usage) == (3, 2, 0.5)
    assert state.cache_hit_rate == 0.7
    assert state.decode_tokens_per_s == 80
    assert state.prefill_tokens_per_s is None
    assert state.batches == 4


def test_replicas_add_up() -> None:
    line = "[2026-10-30 10:00:00 DP{} TP{}] Decode batch, #running-req: 3, #token: 9, token usage: 0.{}, gen throughput (token/s): 50.0, #queue-req: 1"
    state = fold([line.format(0, 0, 1), line.format(1, 1, 7), line.format(1, 1, 6)])
    assert (state.running, state.queued, state.usage, state.decode_tokens_per_s) == (6, 2, 0.6, 100.0)
    assert state.to_builtins()["last_time"] == "2026-10-30 10:00:00"


def test_before_any_line() -> None:
    state = Telemetry()
    assert (state.running, state.usage, state.cache_hit_rate, state.decode_tokens_per_s) == (0, None, None, None)


@given(st.text(max_size=400))
def test_any_text(text: str) -> None:
    begun = time.monotonic()
    found = parse_batch(text)
    assert found is None or isinstance(found, Batch)
    for start in ("Prefill batch. #new-seq: ", "[2026-10-30 10:00:00 DP1] Decode batch, #running-req: "):
        batch = parse_batch(start + text)
        assert batch is None or isinstance(batch, Batch)
        if batch:
            json.dumps(Telemetry().seen(batch).to_builtins())
    assert time.monotonic() - begun < 1
