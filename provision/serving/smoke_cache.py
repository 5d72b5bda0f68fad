"""The smoke test of prefix caching: one long prompt twice, of which the second must be mostly remembered."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from provision.report import Finding, Severity
from provision.serving.client import Answer, Client
from provision.serving.smoke_answers import document, path, wrong_answer
from provision.serving.smoke_model import WORDS, Model

# Long enough that computing it takes visibly longer than remembering it, short enough for every server.
_MOST_TOKENS = 4096
_CONTEXT_UNKNOWN = 2048
# Several replicas behind one address remember each for itself: the third or fourth try meets one again.
_TRIES = 4
_ENABLE = ("start the server with `--enable-cache-report` (`cache_report: true`)",)


@dataclass(frozen=True, kw_only=True)
class _Reading:
    seconds: float
    prompt_tokens: int
    cached_tokens: int | None


def repeat(client: Client, model: Model) -> Finding:
    """The same long prompt until tokens of it are reported as cached; new in each run, so that the first is cold."""
    prompt = long_prompt(model)
    readings: list[_Reading] = []
    while len(readings) < 1 + _TRIES:
        answer = client.post(path(model), document(model, prompt, tokens=1))
        if (wrong := wrong_answer(answer, model)) is not None:
            return Finding(check="smoke-cache", severity=Severity.ERROR, text=wrong, seconds=answer.seconds)
        readings.append(_read(answer))
        if len(readings) > 1 and (readings[-1].cached_tokens or readings[-1].cached_tokens is None):
            break
    if readings[-1].cached_tokens is None:
        return _unreported(client, model, readings)
    return _reported(readings)


def long_prompt(model: Model) -> str:
    """A prompt of half the context, at most 4,096 tokens, that no server has seen before."""
    tokens = min((model.context_length or _CONTEXT_UNKNOWN) // 2, _MOST_TOKENS)
    characters = int(tokens / model.tokens_per_character)
    nonce = f"Letter {secrets.token_hex(8)}. "
    return (nonce + WORDS * (characters // len(WORDS) + 1))[:characters]


def cached_tokens(usage: dict[str, Any]) -> int | None:
    """How many tokens of the prompt were cached; None where the server does not say.

    SGLang 0.4.9 to 0.5.21 say null, not 0, where none was.
    """
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return cached if isinstance(cached, int) else None


def _read(answer: Answer) -> _Reading:
    usage = answer.body["usage"]
    return _Reading(seconds=answer.seconds, prompt_tokens=usage["prompt_tokens"], cached_tokens=cached_tokens(usage))


def _reported(readings: list[_Reading]) -> Finding:
    first, last = readings[0], readings[-1]
    data = _data(readings)
    if not last.cached_tokens:
        text = f"none of {last.prompt_tokens} tokens was cached when the same prompt came again"
        fix = ("prefix caching may be switched off (`--disable-radix-cache`), or the cache be full",)
        return Finding(check="smoke-cache", severity=Severity.WARNING, text=text, fix=fix, data=data)
    return Finding(
        check="smoke-cache",
        severity=Severity.OK,
        text=f"{last.cached_tokens} of {last.prompt_tokens} tokens were cached the second time:"
        f" {last.seconds:.3f} s instead of {first.seconds:.3f} s",
        seconds=sum(reading.seconds for reading in readings),
        data=data,
    )


def _unreported(client: Client, model: Model, readings: list[_Reading]) -> Finding:
    """Ask SGLang's native interface, which always counts; another server just does not say."""
    data = _data(readings)
    if not model.of_sglang:
        text = "cached tokens are not reported by this server"
        return Finding(check="smoke-cache", severity=Severity.INFO, text=text, data=data)
    prompt, counted = long_prompt(model), None
    for _ in range(2):
        answer = client.post("/generate", {"text": prompt, "sampling_params": {"max_new_tokens": 1}})
        counts = answer.body.get("meta_info") if isinstance(answer.body, dict) else None
        counted = counts.get("cached_tokens") if isinstance(counts, dict) else None
    if counted:
        text = f"caching works ({counted} tokens by `/generate`), but chats do not report it"
    else:
        text = "cached tokens are not reported"
    data["cached_tokens_native"] = counted
    return Finding(check="smoke-cache", severity=Severity.WARNING, text=text, fix=_ENABLE, data=data)


def _data(readings: list[_Reading]) -> dict[str, Any]:
    first, last = readings[0], readings[-1]
    return {
        "prompt_tokens": last.prompt_tokens,
        "cached_tokens": last.cached_tokens,
        "first_s": round(first.seconds, 4),
        "second_s": round(last.seconds, 4),
        "first_cached_tokens": first.cached_tokens,
        "requests": len(readings),
    }
