"""What live tests share."""

from __future__ import annotations

import socket

import pytest


@pytest.fixture
def unused_port(real_machine: None) -> int:  # noqa: ARG001  # it lets sockets through
    """A TCP port that is free now, outside the range that the system hands out by itself."""
    for port in range(21000, 21900, 37):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    pytest.fail("no port is free")
