"""What the engine says about itself every few seconds, as numbers: `Prefill batch` and `Decode batch` lines.

The lines are those of SGLang 0.4.0 to 0.5.23; the fields and their order change with almost every minor version, so
each is looked for by its name:

    [2024-12-13 01:45:08 TP0] Prefill batch. #new-seq: 1, #new-token: 6, #cached-token: 0, cache hit rate: 0.00%, ...
    [2025-09-03 18:33:19 TP0] Decode batch. #running-req: 1, #token: 137, token usage: 0.00, cuda graph: True, ...
    [2026-10-30 10:00:00 DP1 TP0] Prefill batch, #new-seq: 1, ..., full token usage: 0.28, mamba usage: 0.20, ...
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

_LINE = re.compile(
    r"(?:\[(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?P<ranks>(?: [A-Z]{2,3}\d{1,4}){0,6})\] ?)?"
    r"(?P<kind>Prefill|Decode) batch(?:\.| \[\d{1,12}\],|,) (?P<fields>#(?:new-seq|running-req): .{1,800})"
)
_REPLICA = re.compile(r" DP(\d{1,4})")
# The graph's label says the device (`cuda graph`, `cpu graph`, `npu graph`) and its value changes type; it is left out.
_FIELD = re.compile(r"(?P<name>#?[a-zA-Z][a-zA-Z /()-]{0,40}): ?(?:full=)?(?P<value>-?\d{1,15}(?:\.\d{1,9})?)")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One line. What it does not say is None; `usage` is the share of the KV cache in use, the fullest pool's."""

    kind: Literal["prefill", "decode"]
    time: str | None = None
    replica: int = 0
    running: int | None = None
    queued: int | None = None
    usage: float | None = None
    new_tokens: int | None = None
    cached_tokens: int | None = None
    tokens_per_s: float | None = None
    accept_length: float | None = None


def parse_batch(line: str) -> Batch | None:
    """The batch that a log line tells of, None for any other line."""
    match = _LINE.search(line[:2000])
    if match is None:
        return None
    fields = {field["name"].strip().lower(): float(field["value"]) for field in _FIELD.finditer(match["fields"])}
    prefill = match["kind"] == "Prefill"
    replica = _REPLICA.search(match["ranks"] or "")
    usages = [value for name, value in fields.items() if name.endswith("usage")]
    return Batch(
        kind="prefill" if prefill else "decode",
        time=match["time"],
        replica=int(replica[1]) if replica else 0,
        running=_count(fields, "#running-req"),
        queued=_count(fields, "#queue-req"),
        usage=max(usages) if usages else None,
        new_tokens=_count(fields, "#new-token"),
        cached_tokens=_count(fields, "#cached-token"),
        tokens_per_s=fields.get(f"{'input' if prefill else 'gen'} throughput (token/s)"),
        accept_length=fields.get("accept len"),
    )


def _count(fields: dict[str, float], name: str) -> int | None:
    return int(fields[name]) if name in fields else None


@dataclass(frozen=True, kw_only=True)
class Replica:
    """What one data-parallel replica said last."""

    running: int = 0
    queued: int = 0
    usage: float | None = None
    prefill_per_s: float | None = None
    decode_per_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Telemetry:
    """What the server does now, and what it has done so far: fold each line into it with `seen`."""

    batches: int = 0
    new_tokens: int = 0
    cached_tokens: int = 0
    peak_running: int = 0
    peak_queued: int = 0
    peak_usage: float = 0.0
    last_time: str | None = None
    replicas: tuple[tuple[int, Replica], ...] = ()

    @property
    def running(self) -> int:
        return sum(replica.running for _, replica in self.replicas)

    @property
    def queued(self) -> int:
        return sum(replica.queued for _, replica in self.replicas)

    @property
    def usage(self) -> float | None:
        """The share of the KV cache in use, of the replica that has least left."""
        return max((replica.usage for _, replica in self.replicas if replica.usage is not None), default=None)

    @property
    def cache_hit_rate(self) -> float | None:
        """Prompt tokens that were in the cache, of all prompt tokens so far."""
        total = self.new_tokens + self.cached_tokens
        return self.cached_tokens / total if total else None

    @property
    def prefill_tokens_per_s(self) -> float | None:
        return _sum(replica.prefill_per_s for _, replica in self.replicas)

    @property
    def decode_tokens_per_s(self) -> float | None:
        return _sum(replica.decode_per_s for _, replica in self.replicas)

    def seen(self, batch: Batch) -> Telemetry:
        """The state after one more line."""
        known = dict(self.replicas)
        replica = _updated(known.get(batch.replica, Replica()), batch)
        known[batch.replica] = replica
        now = replace(
            self,
            batches=self.batches + 1,
            new_tokens=self.new_tokens + (batch.new_tokens or 0),
            cached_tokens=self.cached_tokens + (batch.cached_tokens or 0),
            last_time=batch.time or self.last_time,
            replicas=tuple(sorted(known.items())),
        )
        return replace(
            now,
            peak_running=max(now.peak_running, now.running),
            peak_queued=max(now.peak_queued, now.queued),
            peak_usage=max(now.peak_usage, now.usage or 0.0),
        )

    def to_builtins(self) -> dict[str, Any]:
        return {
            "batches": self.batches,
            "running": self.running,
            "queued": self.queued,
            "token_usage": self.usage,
            "cache_hit_rate": self.cache_hit_rate,
            "prefill_tokens_per_s": self.prefill_tokens_per_s,
            "decode_tokens_per_s": self.decode_tokens_per_s,
            "peak_running": self.peak_running,
            "peak_queued": self.peak_queued,
            "peak_token_usage": self.peak_usage,
            "last_time": self.last_time,
        }


def _updated(replica: Replica, batch: Batch) -> Replica:
    # A prefill line counts the requests that ran before its own; they run from now on.
    started = 1 if batch.kind == "prefill" and batch.running == 0 else 0
    return Replica(
        running=replica.running if batch.running is None else batch.running + started,
        queued=replica.queued if batch.queued is None else batch.queued,
        usage=replica.usage if batch.usage is None else batch.usage,
        prefill_per_s=batch.tokens_per_s if batch.kind == "prefill" and batch.tokens_per_s else replica.prefill_per_s,
        decode_per_s=batch.tokens_per_s if batch.kind == "decode" else replica.decode_per_s,
    )


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def fold(lines: Iterable[str]) -> Telemetry:
    """The state after all of these lines."""
    state = Telemetry()
    for line in lines:
        if batch := parse_batch(line):
            state = state.seen(batch)
    return state
