"""Take off what containers, journals and loggers put before a line, so that one signature fits every source."""

from __future__ import annotations

import json
import re

# Colours, cursor movements, window titles; also the caret form that `journalctl` and some web consoles print.
ANSI = re.compile(
    rb"\x1b(?:\[[0-?]{0,32}[ -/]{0,4}[@-~]|\][^\x07\x1b\n]{0,256}(?:\x07|\x1b\\)|[@-Z\\-_])|#x1B\[[0-9;]{0,12}m"
)

_CLOCK = r"\d\d:\d\d:\d\d(?:[.,]\d{1,9})?"
_DAY = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_TIME = (
    rf"\d{{4}}[-/]\d\d[-/]\d\d[T ]{_CLOCK}(?: ?(?:Z|UTC|[+-]\d\d:?\d\d))?"  # 2026-01-02T03:04:05.678Z
    rf"|\d\d-\d\d {_CLOCK}"  # 01-02 03:04:05
    rf"|{_DAY}? ?{_MONTH} {{1,2}}\d{{1,2}}(?: \d{{4}})? {_CLOCK}"  # Jan  2 03:04:05
    rf"|{_CLOCK}"
)
_PREFIXES = re.compile(
    "|".join(
        (
            rf"\[?(?:{_TIME})(?:(?: (?:DP|TP|PP|EP|CP)\d{{1,4}}){{1,5}}| GPU\d{{1,3}})?\]?[ ,|:-]{{0,3}}",
            r"\([A-Z]\w{0,40}(?: \w{1,20}){0,2} ?(?:pid|ip|rank)=[^)]{1,80}\) ?",  # (EngineCore_DP0 pid=123)
            r"\[(?:rank|default|gpu)\d{1,5}\]:(?:[A-Z]\d{4} )? ?",  # [rank0]:
            r"\d{1,5}: (?=\S)",  # srun --label
            r"[\w.-]{1,80} (?:[\w./@-]{1,60}\[\d{1,8}\]|kernel): ?",  # syslog: host unit[123]:
            r"[\w.-]{1,60}-?\d{0,3} {1,12}\| ",  # docker compose: service-1  |
            r"(?:stdout|stderr) [FP] ",  # Kubernetes
            r"\[pod/[^\]]{1,200}\] ",
            r"(?:INFO|WARNING|WARN|ERROR|CRITICAL|DEBUG|FATAL):? {0,6}(?=\d\d-\d\d \d\d:)",  # vLLM: level, then time
            r"#\d{1,4} (?:\d{1,5}\.\d{1,4} )?(?=\S)",  # docker build
            r"[│┃] ?",
        )
    )
)
_MOST_PREFIXES = 6
_JSON_KEYS = ("log", "message", "msg", "MESSAGE", "error", "textPayload")
# What a word processor or a chat makes of straight quotes.
_QUOTES = str.maketrans("\u2018\u2019\u201c\u201d\u00a0", "''\"\" ")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def clean(line: bytes) -> str:
    """The message of a line, with single spaces; never fails, whatever the bytes are."""
    text = ANSI.sub(b"", line).decode("utf-8", "replace") if b"\x1b" in line else line.decode("utf-8", "replace")
    if not text.isascii():
        text = text.translate(_QUOTES)
    if not text.isprintable():
        text = _CONTROL.sub(" ", text)
    text = text.strip()
    if text.startswith("{") and text.endswith("}"):
        text = _message(text)
    for _ in range(_MOST_PREFIXES):
        match = _PREFIXES.match(text)
        if not match or match.end() in {0, len(text)}:
            break
        text = text[match.end() :]
    return " ".join(text.split())


def _message(text: str) -> str:
    """What a line of structured logging says: docker's `{"log": "...", "stream": ...}` and its relatives."""
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):
        return text
    said = [entry[key] for key in _JSON_KEYS if isinstance(entry.get(key), str)] if isinstance(entry, dict) else []
    return " ".join(said).strip() or text
