"""The same client code against two endpoints: only the address differs, and the answers come from two models."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from provision.http_client import NoAnswer
from provision.report import Finding, Severity
from provision.serving.client import Client, base_url, shown
from provision.serving.smoke_model import describe

PROMPT = "Summarise in one sentence: the keeper wrote down the weather every evening, and most days were alike."
_TOKENS = 48


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What one endpoint said. `problem` says why it said nothing."""

    url: str
    model: str | None = None
    text: str = ""
    tokens: int = 0
    seconds: float = 0.0
    problem: str | None = None


def summarise(url: str, *, api_key: str | None, timeout_s: float, insecure: bool = False) -> Answered:
    """A customer's application, whole: it takes an address and asks whatever model is there."""
    address = base_url(url)
    client = Client(address, api_key=api_key, timeout_s=timeout_s, insecure=insecure)
    try:
        listed = client.get("/v1/models")
        model, _ = describe(listed.body, None) if listed.ok else (None, ())
        if model is None:
            return Answered(url=shown(address), problem=f"`/v1/models` names no model ({listed.said})")
        body = {"model": model.name, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": _TOKENS}
        answer = client.post("/v1/chat/completions", body)
        if not answer.ok:
            return Answered(url=shown(address), model=model.name, problem=f"the chat says {answer.said}")
        return Answered(
            url=shown(address),
            model=model.name,
            text=str(answer.body["choices"][0]["message"]["content"]),
            tokens=int(answer.body["usage"]["completion_tokens"]),
            seconds=round(answer.seconds, 3),
        )
    except NoAnswer as problem:
        return Answered(url=shown(address), problem=str(problem))
    except (KeyError, IndexError, TypeError, ValueError):
        return Answered(url=shown(address), problem="the chat is not what OpenAI's interface promises")


def run(
    urls: tuple[str, str], *, api_key: str | None = None, timeout_s: float = 120.0, insecure: bool = False
) -> tuple[tuple[Answered, ...], Finding]:
    """Both answers, and whether the switch held: two models, one client."""
    answers = tuple(summarise(url, api_key=api_key, timeout_s=timeout_s, insecure=insecure) for url in urls)
    return answers, judge(answers)


def judge(answers: tuple[Answered, ...]) -> Finding:
    """What two answers prove."""
    check = "switcheroo"
    if wrong := [answer for answer in answers if answer.problem]:
        text = "; ".join(f"`{answer.url}`: {answer.problem}" for answer in wrong)
        return Finding(check=check, severity=Severity.ERROR, text=text, fix=("`sgprov smoke --url URL` says more",))
    models = [answer.model for answer in answers]
    differs = _difference(answers[0].url, answers[1].url)
    if len(set(models)) == 1:
        text = f"both endpoints serve `{models[0]}`: the client is unchanged, but so is the model"
        return Finding(check=check, severity=Severity.WARNING, text=text, fix=("serve another model at one of them",))
    text = f"`{models[0]}` and `{models[1]}` answered the same client; {differs}"
    return Finding(check=check, severity=Severity.OK, text=text)


def _difference(one: str, other: str) -> str:
    first, second = urlsplit(one), urlsplit(other)
    if first.hostname == second.hostname:
        return f"only the port was another ({first.port} and {second.port})"
    return f"only the address was another (`{one}` and `{other}`)"
