"""Which addresses only this machine can reach."""

from __future__ import annotations

import pytest

from provision.host.addresses import is_loopback


@pytest.mark.parametrize(
    "address",
    [
        "localhost",
        "127.0.0.1",
        "127.8.0.1",
        "::1",
        "127.0.0.1:5000",
        "[::1]:80",
        "http://localhost:1",
        "https://[::1]:1/v1",
    ],
)
def test_this_machine_alone(address: str) -> None:
    assert is_loopback(address)


@pytest.mark.parametrize(
    "address", ["0.0.0.0", "::", "", "nvcr.io", "10.0.0.1:80", "http://10.0.0.1:1", "http://[bad", "localhost.example"]
)
def test_reached_by_others(address: str) -> None:
    assert not is_loopback(address)
