"""Say whether a server serves: each thing a client relies on, tried once, with its time. Works on any URL."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from provision.catalog.engines import LogRow
from provision.catalog.engines import engine as engine_named
from provision.http_client import NoAnswer
from provision.report import Finding, Severity
from provision.serving import smoke_answers, smoke_cache
from provision.serving.client import Answer, Client, Key, base_url, shown
from provision.serving.log import launch_of
from provision.serving.phases import LaunchLog
from provision.serving.smoke_model import Model, describe

TIMEOUT_S = 120.0
_LOG_BYTES = 4 * 1024 * 1024
# NIM keeps its health check where KServe's protocol has it.
_HEALTH = ("/health", "/v1/health/ready")
_LOGIN = ("`export SGPROV_API_KEY=…`: the key is taken from there",)
_WAIT = "wait until the server is ready: `sgprov serve status`"
# A server of ours is named in it before it is shown.
_SERVE = re.compile(r"`(sgprov) (serve [a-z]+)`")
_WHEN_GONE = (_WAIT, "check the address and the port")
_WHEN_SLOW = ("`sgprov serve logs` shows what it is busy with", "allow more time with `--timeout`")
_UNAUTHORIZED = (401, 403)
_NOT_THERE = (404, 405)
_TESTS = (
    ("smoke-chat", smoke_answers.chat),
    ("smoke-generate", smoke_answers.generate),
    ("smoke-stream", smoke_answers.stream),
    ("smoke-cache", smoke_cache.repeat),
)


def run(
    url: str,
    *,
    api_key: Key = None,
    timeout_s: float = TIMEOUT_S,
    expect_model: str | None = None,
    log: str | None = None,
    engine: str = "sglang",
    version: str | None = None,
    insecure: bool = False,
) -> tuple[Finding, ...]:
    """Test the server at `url`; `timeout_s` is for each request.

    `log` with `engine` and `version` lets a server of ours be asked in its log too. The first request without an
    answer is the last: the ones after it would take as long and say the same. Raises `UsageError` for a wrong URL, and
    for a key that would go over the network without encryption, unless that is wanted (`insecure`).
    """
    client = Client(base_url(url), api_key=api_key, timeout_s=timeout_s, insecure=insecure, ours=log is not None)
    findings = list(_over_http(client, expect_model))
    if log:
        row = engine_named(engine)
        findings += native_model(log, row.log_of(version or row.since))
    return tuple(replace(finding, fix=tuple(_about(log, finding.fix))) for finding in findings)


def _about(log: str | None, fixes: Iterable[str]) -> Iterator[str]:
    """Remedies that name the server of ours whose log that is, less those that are for such a one where it is not."""
    for fix in fixes:
        if log is not None:
            named = _SERVE.sub(lambda found: f"`{found[1]} {found[2]} {Path(log).parent.name}`", fix)
            yield named.replace("`sgprov diagnose`", f"`sgprov diagnose {shlex.quote(log)}`")
        elif not _SERVE.search(fix):
            yield fix
        elif fix is _WAIT:
            yield fix.partition(":")[0]


def _over_http(client: Client, expect_model: str | None) -> Iterator[Finding]:
    check = "smoke-health"
    try:
        yield (health := _health(client))
        if health.severity is Severity.ERROR:
            return
        check = "smoke-models"
        finding, model = _models(client, expect_model)
        yield finding
        if model is None:
            return
        for test_id, test in _TESTS:
            check = test_id
            yield test(client, model)
    except NoAnswer as problem:
        fix = _WHEN_SLOW if problem.timed_out else _WHEN_GONE
        yield Finding(check=check, severity=Severity.ERROR, text=str(problem), fix=fix, data={"url": shown(client.url)})


def _health(client: Client) -> Finding:
    answer = None
    for path in _HEALTH:
        answer = client.get(path)
        if answer.ok:
            text = f"`{path}` says that it is well"
            return Finding(check="smoke-health", severity=Severity.OK, text=text, seconds=answer.seconds)
        if answer.status not in _NOT_THERE:
            break
    assert answer is not None  # noqa: S101  # there are paths
    if answer.status in (*_NOT_THERE, *_UNAUTHORIZED):
        text = "a health check without a login is not offered by this server"
        return Finding(check="smoke-health", severity=Severity.INFO, text=text, seconds=answer.seconds)
    return Finding(
        check="smoke-health",
        severity=Severity.ERROR,
        text=f"`{shown(client.url)}{path}` says {answer.said}",
        fix=(_WAIT, "`sgprov serve logs`"),
        seconds=answer.seconds,
    )


def _models(client: Client, expect_model: str | None) -> tuple[Finding, Model | None]:
    answer = client.get("/v1/models")
    model, names = describe(answer.body, expect_model) if answer.ok else (None, ())
    text, fix = _wrong_models(client, answer, names, expect_model)
    if text or model is None:
        finding = Finding(
            check="smoke-models",
            severity=Severity.ERROR,
            text=text,
            fix=fix,
            seconds=answer.seconds,
            data={"models": names},
        )
        return finding, None
    window = f", {model.context_length} tokens of context" if model.context_length else ""
    finding = Finding(
        check="smoke-models",
        severity=Severity.OK,
        text=f"serves `{model.name}`{window}",
        seconds=answer.seconds,
        data={"models": names, "context_length": model.context_length, "owner": model.owner},
    )
    return finding, model


def _wrong_models(
    client: Client, answer: Answer, names: tuple[str, ...], expect_model: str | None
) -> tuple[str, tuple[str, ...]]:
    if answer.status in _UNAUTHORIZED:
        return f"`{shown(client.url)}` wants a login ({answer.said})", _LOGIN
    if not answer.ok or not isinstance(answer.body, dict) or "data" not in answer.body:
        kind = answer.content_type.split(";")[0] or "nothing"
        said = f"{answer.status}, {kind}"
        return f"`{shown(client.url)}` is no LLM server: `/v1/models` says {said}", ("check the address and the port",)
    if not names:
        return "the server lists no model", ("`sgprov serve logs`",)
    if expect_model and expect_model not in names:
        listed = ", ".join(f"`{name}`" for name in names)
        return f"the server has {listed}, not `{expect_model}`", (f"ask for `{names[0]}`",)
    return "", ()


def native_model(log: str, row: LogRow) -> tuple[Finding, ...]:
    """Whether the engine runs the model by its own implementation, from its log; nothing where it does not say."""
    try:
        with Path(launch_of(log)).open("rb") as stream:
            text = stream.read(_LOG_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return ()
    watch = LaunchLog(row)
    for line in text.splitlines():
        watch.feed(line)
    if watch.model_class is None:
        return ()
    data = {"class": watch.model_class}
    if not watch.fell_back:
        text = f"the engine runs the model by its own `{watch.model_class}`"
        return (Finding(check="smoke-native-model", severity=Severity.OK, text=text, data=data),)
    return (
        Finding(
            check="smoke-native-model",
            severity=Severity.WARNING,
            text=f"the engine has no working implementation of this model and fell back to `{watch.model_class}`",
            fix=("look for `Ignore import error` in the log: `sgprov diagnose`", "use a stack that knows this model"),
            data=data,
        ),
    )
