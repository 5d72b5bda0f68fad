"""What two answers to the same client prove."""

from __future__ import annotations

import pytest

from provision.experiments.switcheroo import Answered, judge
from provision.report import Severity

A = Answered(url="http://127.0.0.1:8000", model="meta/llama", text="x", tokens=1)
B = Answered(url="http://127.0.0.1:8001", model="mistralai/mistral", text="y", tokens=1)


@pytest.mark.parametrize(
    ("answers", "severity", "told"),
    [
        (
            (A, B),
            Severity.OK,
            "`meta/llama` and `mistralai/mistral` answered the same client; only the port was another",
        ),
        ((A, Answered(url="http://10.0.0.5:8000", model="b")), Severity.OK, "only the address was another"),
        ((A, A), Severity.WARNING, "so is the model"),
        ((A, Answered(url="http://127.0.0.1:9", problem="refused")), Severity.ERROR, "`http://127.0.0.1:9`: refused"),
    ],
)
def test_judged(answers: tuple[Answered, ...], severity: Severity, told: str) -> None:
    found = judge(answers)
    assert found.severity is severity and told in found.text
