"""What a server is doing, from its log: requests, queue, cache and throughput, live where there is a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from provision.cli import render
from provision.diagnosis.telemetry import Telemetry, fold, parse_batch

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["fold", "show"]


def show(past: Iterable[str], coming: Iterable[str]) -> Telemetry:
    """Show the state after the lines so far, then after each that comes. Returns the last state."""
    state = fold(past)
    screen = render.console()
    if not screen.is_terminal:
        render.print_line(_sentence(state))
        for line in coming:
            if batch := parse_batch(line):
                state = state.seen(batch)
                render.print_line(_sentence(state))
        return state
    from rich.live import Live  # noqa: PLC0415  # only on a terminal

    with Live(_table(state), console=screen, refresh_per_second=4) as live:
        for line in coming:
            if batch := parse_batch(line):
                state = state.seen(batch)
                live.update(_table(state))
    return state


def _rows(state: Telemetry) -> list[tuple[str, str, str]]:
    return [
        ("running requests", str(state.running), f"at most {state.peak_running}"),
        ("queued requests", str(state.queued), f"at most {state.peak_queued}"),
        ("KV cache in use", _percent(state.usage), f"at most {_percent(state.peak_usage)}"),
        ("cache hit rate", _percent(state.cache_hit_rate), f"{state.cached_tokens} of {_prompts(state)} prompt tokens"),
        ("prefill", _speed(state.prefill_tokens_per_s), ""),
        ("generation", _speed(state.decode_tokens_per_s), ""),
    ]


def _table(state: Telemetry) -> Table:
    from rich.table import Table  # noqa: PLC0415

    # Not "now": the engine writes nothing when it becomes idle.
    table = Table("", "at the last batch", "so far", title=_title(state))
    for row in _rows(state):
        table.add_row(*row)
    return table


def _title(state: Telemetry) -> str:
    if not state.batches:
        return "no batch yet: the server has answered nothing"
    batches = f"{state.batches} batch{'es' if state.batches > 1 else ''}"
    return f"{batches}, the last at {state.last_time or 'a time that its line does not say'}"


def _sentence(state: Telemetry) -> str:
    if not state.batches:
        return _title(state)
    return f"{_title(state)}: " + "; ".join(f"{name} {now}" for name, now, _ in _rows(state))


def _prompts(state: Telemetry) -> int:
    return state.new_tokens + state.cached_tokens


def _percent(share: float | None) -> str:
    return "not said" if share is None else f"{share:.1%}"


def _speed(tokens_per_s: float | None) -> str:
    return "not said" if tokens_per_s is None else f"{tokens_per_s:,.0f} tokens/s"
