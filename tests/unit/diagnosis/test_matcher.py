from __future__ import annotations

import io
import json
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provision.diagnosis import diagnose_file
from provision.diagnosis.clean import clean
from provision.diagnosis.matcher import diagnose, diagnose_text
from provision.diagnosis.signatures import Signature
from provision.report import Severity

KERNEL = b"RuntimeError: CUDA error: no kernel image is available for execution on the device"
DECODE = b"[2026-10-30 10:%02d:00 TP0] Decode batch, #running-req: 1, #token: 137, token usage: 0.00, #queue-req: 0\n"
PRIVATE = "S3cr3tValueABCDEFGHijkl0123"


def ids(data: bytes) -> list[str]:
    return [found.signature.id for found in diagnose([data]).findings]


@pytest.mark.parametrize(
    "prefix",
    [
        b"",
        b"[2026-10-30 10:00:00 DP1 TP0] ",
        b"\x1b[0;36m(EngineCore_DP0 pid=123)\x1b[0;0m ERROR 10-30 10:00:00 [core.py:880] ",
        b"[rank0]: ",
        b"2026-10-30T10:00:00.123456789Z stderr F ",
        b"Oct 30 10:00:00 host sglang[123]: ",
        b"server-1  | ",
        b"3: ",
        b"Loading: 10%\rLoading: 20%\r",
        b"\xff\xfe\x00",
    ],
)
def test_the_source_of_a_line_makes_no_difference(prefix: bytes) -> None:
    assert ids(prefix + KERNEL + b"\r\n")[0] == "no-kernel-image"


@pytest.mark.parametrize(
    "entry",
    [
        {"log": KERNEL.decode() + "\n", "stream": "stderr", "time": "2026-10-30T10:00:00Z"},
        {"level": "ERROR", "message": "first\n" + KERNEL.decode()},
    ],
)
def test_structured_logs_are_read(entry: dict[str, str]) -> None:
    assert ids(json.dumps(entry).encode())[0] == "no-kernel-image"
    assert ids(json.dumps(entry).encode("utf-16"))[0] == "no-kernel-image"


def test_clean_takes_several_prefixes_off() -> None:
    line = b"2026-10-30T10:00:00Z stderr F \x1b[31m[2026-10-30 10:00:00 TP0] Scheduler   hit an\texception\x1b[0m"
    assert clean(line) == "Scheduler hit an exception"


def test_root_cause_before_wrappers_and_what_follows_from_it() -> None:
    log = b"""Traceback (most recent call last):
subprocess.CalledProcessError: Command 'ninja' returned non-zero exit status 1.
ninja: build stopped: subcommand failed.
nvcc fatal   : Unsupported gpu architecture 'compute_120a'
[2026-10-30 10:00:00] Received sigquit from a child process. It usually means the child failed.
"""
    told = diagnose([log])
    kinds = [found.signature.kind for found in told.findings]
    assert told.findings[0].signature.id == "nvcc-unsupported-architecture"
    assert kinds == sorted(kinds, key=["cause", "symptom", "generic", "wrapper"].index)
    assert told.category == "gpu-arch"


def test_of_two_causes_the_first_in_the_log() -> None:
    port = b"OSError: [Errno 98] Address already in use\n"
    assert ids(port + KERNEL)[:2] == ["address-in-use", "no-kernel-image"]
    assert ids(KERNEL + b"\n" + port)[:2] == ["no-kernel-image", "address-in-use"]


def test_lines_are_numbered_and_few() -> None:
    log = b"".join(DECODE % (n % 60) for n in range(100)) + (KERNEL + b"\n") * 1000
    lines = diagnose([log]).findings[0].lines
    assert [line.number for line in lines] == [101, 102, 103]
    assert "no kernel image" in lines[0].text


def test_line_numbers_do_not_depend_on_how_the_log_comes_in() -> None:
    log = DECODE % 1 + b"x" * 3_000_000 + b"\n" + DECODE % 2 + KERNEL
    whole = diagnose(io.BytesIO(log))
    assert whole.findings[0].lines[0].number == 4
    assert whole.lines_read == 4
    assert whole.bytes_read >= len(log)
    pieces = [log[at : at + 977] for at in range(0, len(log), 977)]
    assert diagnose(pieces).to_builtins()["findings"] == whole.to_builtins()["findings"]


@pytest.mark.parametrize("at", [0, 5_000, 8_150, 1_048_540, 2_500_000])
def test_a_message_within_a_very_long_line_is_found_and_shown_short(at: int) -> None:
    line = b"word " * (at // 5) + KERNEL + b" word" * 500_000
    found = diagnose([line]).findings[0]
    assert found.signature.id == "no-kernel-image"
    assert len(found.lines[0].text) < 500


def test_a_condition_on_earlier_lines() -> None:
    row = Signature(
        id="x",
        patterns=(r"\bassertionerror\b",),
        after="assert n % 64",
        cause="c",
        remedy=("r",),
        source="s",
        category="port",
    )
    assert diagnose([b"    assert n % 64 == 0\nAssertionError\n"], signatures=[row]).findings
    assert not diagnose([b"AssertionError\n    assert n % 64 == 0\n"], signatures=[row]).findings
    far = b"    assert n % 64 == 0\n" + b"other\n" * 100 + b"AssertionError\n"
    assert not diagnose([far], signatures=[row]).findings


def test_json_and_report_findings() -> None:
    told = diagnose([KERNEL])
    entry = told.to_builtins()["findings"][0]
    assert {"id", "category", "severity", "text", "fix", "lines"} <= set(entry)
    assert entry["lines"] == [{"number": 1, "text": KERNEL.decode()}]
    assert json.loads(json.dumps(told.to_builtins())) == told.to_builtins()
    finding = told.to_findings()[0]
    assert (finding.check, finding.severity) == ("no-kernel-image", Severity.ERROR)
    assert finding.fix == tuple(entry["fix"])


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    path.write_bytes(KERNEL)
    assert diagnose_file(str(path))[0].check == "no-kernel-image"
    assert diagnose_file(str(tmp_path / "none.log")) == ()


@pytest.mark.parametrize(
    "secret",
    [
        f"HF_TOKEN={PRIVATE}",
        f"Authorization: Bearer {PRIVATE}",
        f"https://me:{PRIVATE}@host/x",
        f"nvapi-{PRIVATE}",
        f"hf_{PRIVATE}",
        f"--api-key {PRIVATE}",
        f'"auth": "{PRIVATE}"',
    ],
)
@pytest.mark.parametrize("filler", [0, 60, 399, 1_000, 8_100, 8_192 - 20, 100_000])
def test_no_secret_comes_out(secret: str, filler: int) -> None:
    for text in (f"{secret} {'x ' * (filler // 2)}", f"{'x ' * (filler // 2)}{secret} "):
        told = diagnose_text(
            text + KERNEL.decode() + " " + text + "\ntorch==2.9.1 " + secret, explain=True, pins={"torch": "1.0"}
        )
        assert told.findings
        assert PRIVATE[4:] not in json.dumps(told.to_builtins())
        assert PRIVATE[4:] not in repr(told.to_findings())


def many(size: int) -> Iterator[bytes]:
    block = b"".join(DECODE % (n % 60) for n in range(10_000))
    for number in range(size // len(block)):
        words = bytes(97 + int(digit) for digit in str(number).zfill(6).encode().decode())
        yield block + b"a kind of its own " + words + b" of line, which asks for memory\n"


def test_memory_is_bounded_and_a_large_log_quick() -> None:
    diagnose([b""])
    tracemalloc.start()
    try:
        assert not diagnose(many(20 << 20)).findings
        small = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        assert not diagnose(many(80 << 20)).findings
        large = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert large < small * 1.5
    assert large < 64 << 20


def test_a_flood_of_one_error_costs_little() -> None:
    start = time.process_time()
    found = diagnose((KERNEL + b" %d\n" % n) * 1000 for n in range(300)).findings
    assert found[0].signature.id == "no-kernel-image"
    assert time.process_time() - start < 10


@settings(deadline=None, max_examples=200)
@given(st.lists(st.binary(max_size=300), max_size=20))
def test_any_bytes(pieces: list[bytes]) -> None:
    told = diagnose(pieces, explain=True, pins={"torch": "2.9.1"})
    assert told.bytes_read == sum(map(len, pieces))
    json.dumps(told.to_builtins())


TOKENS = [
    KERNEL,
    b"\n",
    b"\r",
    b"\x1b[",
    b"\x1b[31m",
    b"{",
    b'{"log": "',
    b'"}',
    b"[2026-10-30",
    b"Error: ",
    b"\0",
    b"\\n",
    b"NCCL WARN ",
    b"\xff",
]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.sampled_from(TOKENS), max_size=60))
def test_any_mixture_of_what_logs_are_made_of(tokens: list[bytes]) -> None:
    data = b"".join(tokens)
    json.dumps(diagnose([data], explain=True).to_builtins())
    assert isinstance(clean(data), str)


def test_where_a_log_ends() -> None:
    begin = b"[2026-10-30 10:00:00 TP0] Init torch distributed begin.\n"
    assert ids(begin) == ["stuck-joining"]
    assert ids(begin + b"[2026-10-30 10:00:09 TP0] Load weight begin. avail mem=78 GB\n") == []
    assert ids(begin + b"\n\n") == ["stuck-joining"]


def test_a_line_with_a_reason_is_not_told_again_as_an_exception() -> None:
    told = diagnose_text(
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has 1 GiB free."
    )
    assert [found.signature.kind for found in told.findings] == ["cause"]
    more = diagnose_text(
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB.\nworker exited with error"
    )
    assert more.findings[0].signature == told.findings[0].signature
