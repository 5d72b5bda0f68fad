"""Two servers under one prefix, each from an environment of its own: running one again leaves the other's in use."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from provision import environments
from provision.environments import Receipt
from provision.environments.layout import Stamp
from provision.host.local import LocalHost
from provision.serving.record import Server
from provision.steps.receipt import WriteReceipt
from provision.steps.switch import Switch


class Prefix:
    """One directory with environments, and what `bootstrap` leaves of its servers."""

    def __init__(self, root: Path) -> None:
        self.host = LocalHost({"PATH": os.defpath})
        self.root = str(root / "prefix")
        for name in ("first", "second", "third"):
            stamp = Stamp(name=name, lock="l", lock_digest="d", python="3.12.1", interpreter="/q", sgprov="0", time="")
            self.host.write(f"{self.path(name)}/.sgprov/stamp.json", msgspec.json.encode(stamp).decode())

    def path(self, environment: str) -> str:
        return f"{self.root}/environments/{environment}"

    def directory(self, server: str) -> str:
        return f"{self.root}/servers/{server}"

    def bootstrap(self, name: str, environment: str, *, port: int = 1) -> list[str]:
        """The last steps of one run, as the runner takes them; those that changed something."""
        server = Server(
            id=name, name=name, directory=self.directory(name), engine="sglang", version="1", stack=None, model="m",
            url="http://127.0.0.1:1", argv=(f"{self.path(environment)}/bin/python", "-m", "sglang"), variables={},
            log="l", started="", machine="", boot="", state="ready",
        )  # fmt: skip
        self.host.write(f"{self.directory(name)}/server.json", msgspec.json.encode(server).decode(), mode=0o600)
        receipt = Receipt(target="cpu", environment=environment, port=port)
        changed = []
        for step in (
            Switch(prefix=self.root, path=self.path(environment), server=self.directory(name)),
            WriteReceipt(prefix=self.root, receipt=receipt, server=self.directory(name)),
        ):
            if not step.satisfied(self.host):
                step.apply(self.host, lambda _: None)
                changed.append(step.id)
        return changed

    def receipt(self, server: str | None = None) -> tuple[str | None, int | None]:
        found = environments.read_receipt(self.host, self.directory(server) if server else self.root)
        return (found.environment, found.port) if found else (None, None)

    @property
    def in_use(self) -> tuple[str, str]:
        now, before = environments.current(self.host, self.root), environments.previous(self.host, self.root)
        return Path(now or "").name, Path(before or "").name


@pytest.fixture
def prefix(tmp_path: Path) -> Prefix:
    return Prefix(tmp_path)


@pytest.mark.tried("run again", "One of two servers of one prefix run again: the other's environment stays in use")
def test_running_one_again_changes_nothing_of_the_other(prefix: Prefix) -> None:
    assert prefix.bootstrap("a", "first") == ["switch", "receipt"]
    assert prefix.bootstrap("b", "second") == ["switch", "receipt"]
    for _ in range(2):
        assert prefix.bootstrap("a", "first") == []
        assert prefix.bootstrap("b", "second") == []
        assert prefix.in_use == ("second", "first")
    assert prefix.receipt() == ("second", 1)


@pytest.mark.tried(
    "run again", "One of two servers changed: its own receipt says so, and that of the prefix stays true"
)
def test_what_changes_of_one_is_in_its_own_receipt(prefix: Prefix) -> None:
    prefix.bootstrap("a", "first")
    prefix.bootstrap("b", "second")
    assert prefix.bootstrap("a", "first", port=2) == ["receipt"]
    assert prefix.receipt("a") == ("first", 2)
    assert prefix.receipt() == ("second", 1), "that of the prefix is of what is in use"
    assert prefix.in_use == ("second", "first")
    assert prefix.bootstrap("a", "first", port=2) == []


@pytest.mark.tried("run again", "A new environment for one of two servers: it is put in use")
def test_a_new_environment_is_put_in_use_whoever_has_the_one_before(prefix: Prefix) -> None:
    prefix.bootstrap("a", "first")
    prefix.bootstrap("b", "second")
    assert prefix.bootstrap("a", "third") == ["switch", "receipt"]
    assert prefix.in_use == ("third", "second")


@pytest.mark.tried("run again", "The other server removed, or the link: the next run puts its own environment in use")
def test_an_environment_in_use_that_is_no_servers_gives_way(prefix: Prefix) -> None:
    """After the other server was removed, or the link."""
    prefix.bootstrap("a", "first")
    prefix.bootstrap("b", "second")
    prefix.host.remove(f"{prefix.directory('b')}/server.json")
    assert prefix.bootstrap("a", "first") == ["switch", "receipt"]
    assert prefix.in_use == ("first", "second")
    Path(prefix.root, "current").unlink()
    assert prefix.bootstrap("a", "first") == ["switch"]
