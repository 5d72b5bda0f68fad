"""Knocking at a port: what can come of it, on this machine and on a recorded one."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
from fakes import FakeHost

from provision.host import Reach
from provision.host.folder import FolderHost
from provision.host.local import LocalHost
from provision.host.recording import RecordingHost


@pytest.mark.usefixtures("real_machine")
def test_a_port_that_listens_and_one_that_does_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        reached = LocalHost({}).reach("127.0.0.1", port, timeout_s=2)
    assert reached and reached.state == "reached"
    refused = LocalHost({}).reach("127.0.0.1", port, timeout_s=2)
    assert refused and refused.state == "refused"


@pytest.mark.usefixtures("real_machine")
def test_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unknown)
    found = LocalHost({}).reach("nowhere.test", 443, timeout_s=2)
    assert found and found.state == "unknown"


@pytest.mark.usefixtures("real_machine")
def test_a_resolver_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def wait(*_: object, **__: object) -> None:
        over.wait(5)
        raise OSError

    monkeypatch.setattr(socket, "create_connection", wait)
    found = LocalHost({}).reach("slow.test", 443, timeout_s=0.05)
    over.set()
    assert found == Reach(state="silent", seconds=0.05)


def test_a_recording_answers_as_the_machine_did(tmp_path: Path) -> None:
    view = FakeHost()
    view.reached = {"hub.test:443": Reach(state="refused")}
    recording = RecordingHost(view)
    recording.reach("hub.test", 443, timeout_s=1)
    recording.save(tmp_path / "machine")
    replayed = FolderHost(tmp_path / "machine")
    assert replayed.reach("hub.test", 443, timeout_s=1) == Reach(state="refused")
    assert replayed.reach("other.test", 443, timeout_s=1) is None
