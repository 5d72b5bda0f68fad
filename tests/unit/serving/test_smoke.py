"""What the smoke test says of servers that serve wrongly. A server that serves well is tested with the real engine."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from provision.catalog.engines import engine
from provision.errors import UsageError
from provision.report import Finding, Severity
from provision.serving import smoke
from provision.serving.client import base_url

pytestmark = pytest.mark.usefixtures("real_machine")

Reply = tuple[int, str, str]
MODELS = {"data": [{"id": "m", "owned_by": "sglang", "max_model_len": 2048}]}
USAGE = {"prompt_tokens": 30, "completion_tokens": 16}
ANSWERED = {"choices": [{"message": {"content": "hello"}, "finish_reason": "length"}], "usage": USAGE}
NATIVE = {"text": "x", "meta_info": {"prompt_tokens": 5, "completion_tokens": 16, "cached_tokens": 4}}


def as_json(document: Any, status: int = 200) -> Reply:
    return status, "application/json", json.dumps(document)


def events(*documents: Any) -> Reply:
    lines = [document if isinstance(document, str) else json.dumps(document) for document in documents]
    return 200, "text/event-stream", "".join(f"data: {line}\n\n" for line in lines)


CHUNK = {"choices": [{"delta": {"content": "a"}}]}
WELL: dict[str, Reply] = {
    "/health": (200, "text/plain", ""),
    "/v1/models": as_json(MODELS),
    "/v1/chat/completions": as_json(ANSWERED),
    "/generate": as_json(NATIVE),
    "stream": events(CHUNK, {"choices": [], "usage": USAGE}, "[DONE]"),
}


@contextmanager
def server(replies: dict[str, Reply], *, key: str | None = None, delay_s: float = 0.0) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply(self.path)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._reply("stream" if body.get("stream") else self.path)

        def _reply(self, path: str) -> None:
            time.sleep(delay_s)
            status, kind, text = replies.get(path, (404, "text/html", "<h1>not here</h1>"))
            if key and path != "/health" and self.headers["Authorization"] != f"Bearer {key}":
                status, kind, text = as_json({"error": "Unauthorized"}, 401)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name it has above
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.server_port}"
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


def found(replies: dict[str, Reply], **options: Any) -> dict[str, Finding]:
    with server({**WELL, **replies}) as url:
        return {finding.check: finding for finding in smoke.run(url, timeout_s=5, **options)}


def errors(findings: dict[str, Finding]) -> set[str]:
    return {name for name, finding in findings.items() if finding.severity is Severity.ERROR}


def test_nothing_listens() -> None:
    with server({}) as url:
        pass
    (finding,) = smoke.run(url, timeout_s=5)
    assert (finding.check, finding.severity) == ("smoke-health", Severity.ERROR)
    assert url in finding.text and "refused the connection" in finding.text


def test_a_server_that_hangs_is_asked_once() -> None:
    with server(WELL, delay_s=0.6) as url:
        (finding,) = smoke.run(url, timeout_s=0.2)
    assert finding.severity is Severity.ERROR and "gave no answer in" in finding.text
    assert any("--timeout" in remedy for remedy in finding.fix)


def test_a_server_that_is_not_ready() -> None:
    findings = found({"/health": (503, "text/plain", "")})
    assert list(findings) == ["smoke-health"] and "503" in findings["smoke-health"].text


@pytest.mark.parametrize("key", [None, "wrong-key-0123456789"])
def test_a_missing_or_wrong_key_is_named_and_never_shown(key: str | None) -> None:
    with server(WELL, key="right-key-0123456789") as url:
        findings = {finding.check: finding for finding in smoke.run(url, api_key=key, timeout_s=5)}
        good = smoke.run(url, api_key="right-key-0123456789", timeout_s=5)
    assert errors(findings) == {"smoke-models"}
    assert "SGPROV_API_KEY" in " ".join(findings["smoke-models"].fix)
    assert not errors({finding.check: finding for finding in good})
    assert "key-0123456789" not in repr((findings, good))


@pytest.mark.parametrize(
    "reply",
    [(200, "text/html", "<html>"), (404, "text/plain", "no"), as_json({"ok": True}), (200, "application/json", "{")],
)
def test_something_else_answers(reply: Reply) -> None:
    findings = found({"/v1/models": reply})
    assert "is no LLM server" in findings["smoke-models"].text and errors(findings) == {"smoke-models"}


def test_the_model_that_was_expected_is_another() -> None:
    findings = found({}, expect_model="llama")
    assert "the server has `m`, not `llama`" in findings["smoke-models"].text


# Word for word what transformers says, and so SGLang.
NO_TEMPLATE = (
    "Cannot use chat template functions because tokenizer.chat_template is not set and no template argument was passed!"
)
COMPLETED = {"choices": [{"text": "hello", "finish_reason": "length"}], "usage": USAGE}


def test_a_base_model_is_asked_for_completions_and_that_is_said() -> None:
    refused = as_json({"object": "error", "message": NO_TEMPLATE, "code": 400}, 400)
    chunks = events({"choices": [{"text": "a"}]}, {"choices": [], "usage": USAGE}, "[DONE]")
    usage: dict[str, Any] = {**USAGE, "prompt_tokens_details": {"cached_tokens": 20}}
    cached = {**COMPLETED, "usage": usage}
    findings = found({"/v1/chat/completions": refused, "/v1/completions": as_json(cached), "stream": chunks})
    assert not errors(findings)
    said = findings["smoke-chat"]
    assert said.severity is Severity.WARNING and "no chat template" in said.text and "--chat-template" in said.fix[0]
    assert said.data["path"] == "/v1/completions"
    assert findings["smoke-stream"].severity is Severity.OK and findings["smoke-cache"].data["cached_tokens"] == 20


def test_a_base_model_whose_completions_fail_too() -> None:
    refused = as_json({"message": NO_TEMPLATE}, 400)
    findings = found({"/v1/chat/completions": refused, "/v1/completions": as_json({"error": "no"}, 500)})
    assert "smoke-chat" in errors(findings) and "`/v1/completions` says 500" in findings["smoke-chat"].text


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (as_json({**ANSWERED, "usage": {}}), "no `usage`"),
        (as_json({**ANSWERED, "usage": None}), "no `usage`"),
        (as_json({**ANSWERED, "usage": {"prompt_tokens": 3, "completion_tokens": 0}}), "completion tokens"),
        (as_json({**ANSWERED, "choices": []}), "no choices"),
        ((200, "application/json", "{'a'"), "no JSON object"),
        (as_json({"error": {"message": "out of memory"}}, 500), "500: out of memory"),
    ],
)
def test_a_chat_that_is_wrong(reply: Reply, says: str) -> None:
    findings = found({"/v1/chat/completions": reply})
    assert says in findings["smoke-chat"].text
    assert errors(findings) == {"smoke-chat", "smoke-cache"}


def test_a_chat_without_text_is_worth_a_warning() -> None:
    findings = found({"/v1/chat/completions": as_json({**ANSWERED, "choices": [{"message": {"content": ""}}]})})
    assert findings["smoke-chat"].severity is Severity.WARNING


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (events(CHUNK), "broke off"),
        (events("{", "[DONE]"), "no JSON"),
        (events({"choices": []}, "[DONE]"), "no text"),
        (events(CHUNK, {"error": {"message": "abort"}}), "error"),
        (as_json(ANSWERED), "a stream was asked for"),
    ],
)
def test_a_stream_that_is_wrong(reply: Reply, says: str) -> None:
    findings = found({"stream": reply})
    assert errors(findings) == {"smoke-stream"} and says in findings["smoke-stream"].text


def test_what_only_sglang_offers_is_no_fault_of_another_server() -> None:
    models = as_json({"data": [{"id": "m", "owned_by": "vllm"}]})
    findings = found({"/v1/models": models, "/generate": (404, "text/plain", ""), "/health": (404, "text/plain", "")})
    assert not errors(findings)
    for check in ("smoke-health", "smoke-generate", "smoke-cache"):
        assert findings[check].severity is Severity.INFO, check
    assert "not offered by this server" in findings["smoke-generate"].text


def test_sglang_without_its_native_interface_is_wrong() -> None:
    assert errors(found({"/generate": (404, "text/plain", "")})) == {"smoke-generate"}


def test_unreported_caching_names_the_flag() -> None:
    finding = found({})["smoke-cache"]
    assert finding.severity is Severity.WARNING and "--enable-cache-report" in finding.fix[0]
    assert finding.data["cached_tokens_native"] == 4


@pytest.mark.parametrize(("cached", "severity"), [(0, Severity.WARNING), (25, Severity.OK)])
def test_cached_tokens_are_read_where_they_are_reported(cached: int, severity: Severity) -> None:
    usage = {**USAGE, "prompt_tokens_details": {"cached_tokens": cached}}
    finding = found({"/v1/chat/completions": as_json({**ANSWERED, "usage": usage})})["smoke-cache"]
    assert (finding.severity, finding.data["cached_tokens"]) == (severity, cached)


def test_a_redirect_is_not_followed() -> None:
    assert errors(found({"/health": (302, "text/html", "")})) == {"smoke-health"}


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("127.0.0.1:30000", "http://127.0.0.1:30000"),
        ("http://gpu-7:8000/v1/", "http://gpu-7:8000"),
        ("https://host/proxy/30000/", "https://host/proxy/30000"),
        ("http://[::1]:9", "http://[::1]:9"),
    ],
)
def test_addresses_as_users_write_them(given: str, url: str) -> None:
    assert base_url(given) == url


@pytest.mark.parametrize("given", ["", "http://", "ftp://host", "host:port", "http://host:99999"])
def test_what_is_no_address_is_a_usage_error(given: str) -> None:
    with pytest.raises(UsageError):
        base_url(given)


def test_a_fallback_in_the_log_is_a_warning(tmp_path: Any) -> None:
    row = engine("sglang").log_of("0.5.4")
    log = tmp_path / "server.log"
    for name, severity in (("LlamaForCausalLM", Severity.OK), ("TransformersForCausalLM", Severity.WARNING)):
        log.write_text(f"[2025-11-01 00:00:00] Load weight end. type={name}, dtype=torch.bfloat16\n")
        assert [finding.severity for finding in smoke.native_model(str(log), row)] == [severity]
    assert smoke.native_model(str(tmp_path / "none"), row) == ()
