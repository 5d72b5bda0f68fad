"""The smoke test's requests: a chat, SGLang's own `/generate`, and a stream with the time of its first token.

A base model without a chat template refuses chats and completes texts: then it is asked for that, and it is said.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from provision.report import Finding, Severity
from provision.serving.client import Answer, Client
from provision.serving.smoke_model import WORDS, Model

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
# In the words of transformers, and so of the engines: "tokenizer.chat_template is not set", "no chat template".
_NO_TEMPLATE = re.compile(r"chat[ _]?template", re.IGNORECASE)
_GIVE_TEMPLATE = (
    "`sgprov bootstrap --chat-template FILE` gives the model one",
    f"or have clients ask `{COMPLETIONS}`, as is right for a base model",
)
_TOKENS = 16
_LOGIN = ("`export SGPROV_API_KEY=…`: the key is taken from there",)


def path(model: Model) -> str:
    """Where the model is asked."""
    return CHAT if model.chats else COMPLETIONS


def document(model: Model, prompt: str, *, tokens: int = _TOKENS, **more: Any) -> dict[str, Any]:
    """A request that every OpenAI-compatible server takes, for `path`."""
    asked = {"messages": [{"role": "user", "content": prompt}]} if model.chats else {"prompt": prompt}
    return {"model": model.name, **asked, "max_tokens": tokens, "temperature": 0, **more}


def chat(client: Client, model: Model) -> Finding:
    """A chat completion: it must have a choice, and count its tokens."""
    prompt = f"{WORDS}What did the keeper write down?"
    answer = client.post(CHAT, document(model, prompt))
    if not answer.ok and _NO_TEMPLATE.search(answer.text):
        model.chats = False
        answer = client.post(COMPLETIONS, document(model, prompt))
    if (wrong := wrong_answer(answer, model)) is not None:
        return _error("smoke-chat", wrong, answer)
    usage = answer.body["usage"]
    model.tokens_per_character = usage["prompt_tokens"] / len(prompt)
    choice = answer.body["choices"][0]
    data = {
        "prompt_tokens": usage["prompt_tokens"],
        "completion_tokens": usage["completion_tokens"],
        "finish_reason": choice.get("finish_reason"),
        "path": path(model),
    }
    text = f"{usage['prompt_tokens']} + {usage['completion_tokens']} tokens"
    said = f"a chat of {text}" if model.chats else f"the model has no chat template; a completion of {text}"
    said_something = _said_something(choice)
    return Finding(
        check="smoke-chat",
        severity=Severity.OK if said_something and model.chats else Severity.WARNING,
        text=said + ("" if said_something else " came back without any text"),
        fix=() if model.chats else _GIVE_TEMPLATE,
        seconds=answer.seconds,
        data=data,
    )


def _said_something(choice: dict[str, Any]) -> bool:
    message = choice.get("message") or choice
    return any(message.get(key) for key in ("content", "reasoning_content", "reasoning", "tool_calls", "text"))


def wrong_answer(answer: Answer, model: Model) -> str | None:
    """What is wrong with the answer to a request; None where it is right."""
    if not answer.ok:
        return f"`{path(model)}` says {answer.said}"
    if not isinstance(answer.body, dict):
        return f"`{path(model)}` answers with something that is no JSON object"
    choices = answer.body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return "the answer to a chat has no choices"
    return wrong_usage(answer.body.get("usage"))


def wrong_usage(usage: Any) -> str | None:
    """Whether the tokens were counted: clients are billed and limited by these numbers."""
    if not isinstance(usage, dict) or not usage:
        return "the answer has no `usage`"
    for key in ("prompt_tokens", "completion_tokens"):
        if not isinstance(usage.get(key), int) or usage[key] <= 0:
            return f"the answer counts `{usage.get(key)}` {key.replace('_', ' ')}"
    return None


def generate(client: Client, model: Model) -> Finding:
    """SGLang's native interface; that another server has none is no fault."""
    sampling = {"max_new_tokens": _TOKENS, "temperature": 0}
    answer = client.post("/generate", {"text": WORDS[:120], "sampling_params": sampling})
    body = answer.body if isinstance(answer.body, dict) else {}
    counts: Any = body.get("meta_info") or {}
    if answer.ok and isinstance(body.get("text"), str) and counts.get("completion_tokens"):
        data = {key: counts.get(key) for key in ("prompt_tokens", "completion_tokens", "cached_tokens")}
        text = f"the native interface wrote {data['completion_tokens']} tokens"
        return Finding(check="smoke-generate", severity=Severity.OK, text=text, seconds=answer.seconds, data=data)
    if not model.of_sglang:
        text = "SGLang's native `/generate` is not offered by this server"
        return Finding(check="smoke-generate", severity=Severity.INFO, text=text, seconds=answer.seconds)
    wrong = "`/generate` wrote no tokens" if answer.ok else f"`/generate` says {answer.said}"
    return _error("smoke-generate", wrong, answer)


def stream(client: Client, model: Model) -> Finding:
    """A streamed chat: events until `[DONE]`, the first token before the last, and the tokens counted at the end."""
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    with client.events(path(model), document(model, f"{WORDS}Tell it again.", **options)) as (answer, events):
        if answer is not None:
            wrong = f"a stream was asked for; `{path(model)}` says {answer.said}"
            return _error("smoke-stream", wrong, answer)
        return _streamed(events)


def _streamed(events: Iterable[tuple[float, str]]) -> Finding:
    first_s, last_s, pieces, usage, done = None, 0.0, 0, None, False
    for seconds, data in events:
        last_s = seconds
        if data == "[DONE]":
            done = True
            break
        try:
            chunk = json.loads(data)
        except ValueError:
            return _broken("the stream holds something that is no JSON", last_s)
        if isinstance(chunk, dict) and chunk.get("error"):
            return _broken(f"the stream ended with an error: {json.dumps(chunk['error'])[:200]}", last_s)
        if _has_text(chunk):
            pieces += 1
            first_s = seconds if first_s is None else first_s
        usage = chunk.get("usage") or usage
    if first_s is None:
        return _broken("the stream held no text", last_s)
    if not done:
        return _broken("the stream broke off before its end", last_s)
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return Finding(
        check="smoke-stream",
        severity=Severity.OK,
        text=f"the first of {tokens or pieces} streamed tokens came after {first_s:.3f} s",
        seconds=last_s,
        data={"first_token_s": round(first_s, 4), "completion_tokens": tokens, "chunks": pieces},
    )


def _has_text(chunk: Any) -> bool:
    choices = chunk.get("choices") if isinstance(chunk, dict) else None
    choice = choices[0] if choices and isinstance(choices[0], dict) else {}
    delta = choice.get("delta", choice)
    return isinstance(delta, dict) and any(
        delta.get(key) for key in ("content", "reasoning_content", "reasoning", "text")
    )


def _broken(text: str, seconds: float) -> Finding:
    fix = ("`sgprov serve logs`", "a proxy between here and the server may cut streams off")
    return Finding(check="smoke-stream", severity=Severity.ERROR, text=text, fix=fix, seconds=seconds)


def _error(check: str, text: str, answer: Answer) -> Finding:
    fix = _LOGIN if answer.status in {401, 403} else ("`sgprov serve logs`",)
    return Finding(check=check, severity=Severity.ERROR, text=text, fix=fix, seconds=answer.seconds)
