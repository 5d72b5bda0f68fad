"""Who may use a server, and who gets its key: nobody but those who are meant to."""

from __future__ import annotations

import http.server
import io
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fakes import FakeHost

from provision.bootstrap import Manner, make_plan
from provision.catalog.load import Catalog
from provision.catalog.rows import Serve
from provision.cli import endpoint, main
from provision.cli.screen import Screen
from provision.config import Options
from provision.errors import ProbeError, ServingFailed, UntrustedPath, UsageError
from provision.host import Listener
from provision.host.addresses import is_loopback
from provision.host.local import LocalHost
from provision.http_client import NoAnswer
from provision.output import json_text
from provision.plan import Plan
from provision.report import Report
from provision.serving import inherited, keys, listening, record, server
from provision.serving.launch import Launch
from provision.serving.ports import DerivedPort
from provision.serving.record import Server
from provision.steps.server import StartServer

KEY = "k3y-" + "0123456789abcdef" * 2


@contextmanager
def eavesdropper(address: str = "127.0.0.1") -> Iterator[tuple[int, list[str]]]:
    """Another process's server: it answers 200 to everything. Its port, and what it was sent."""
    heard = list[str]()

    class Yes(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(f"{self.path} {self.headers}")
            self.send_response(200)
            self.end_headers()

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer((address, 0), Yes) as listening_there:
        threading.Thread(target=listening_there.serve_forever, daemon=True).start()
        yield listening_there.server_port, heard
        listening_there.shutdown()


@pytest.fixture
def host() -> LocalHost:
    return LocalHost({"PATH": os.environ["PATH"]})


@pytest.fixture
def prefix(tmp_path: Path, host: LocalHost) -> Iterator[str]:
    tmp_path.chmod(0o700)
    yield str(tmp_path)
    for name in record.names(host, f"{tmp_path}/servers"):
        server.stop(host, f"{tmp_path}/servers", name=name, grace_s=1.0)


def keyed(prefix: str, port: int, argv: tuple[str, ...]) -> Launch:
    return Launch(
        engine="sglang",
        version="0.5.23",
        argv=argv,
        url=f"http://127.0.0.1:{port}",
        model="/m",
        ports=(DerivedPort(name="http", first=port, last=port, fixed=True),),
        key_file=f"{prefix}/servers/a/{keys.FILE}",
    )


def started(host: LocalHost, prefix: str, port: int, script: str) -> Server:
    """A server of ours that is not on its port: it says that it is ready all the same."""
    launch = keyed(prefix, port, (sys.executable, "-c", script))
    # The port was free when that was looked at, and taken a moment later.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "check_free", lambda *_, **__: None)
        return server.start(host, f"{prefix}/servers", launch, name="a", key=KEY)


SAYS_READY = "import time; print('The server is fired up and ready to roll!', flush=True); time.sleep(60)"
SAYS_NOTHING = "import time; time.sleep(60)"


@pytest.mark.tried("key to a stranger", "another process holds the server's port while it starts, and records requests")
@pytest.mark.usefixtures("real_machine")
@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_readiness_sends_no_key_to_who_holds_the_port(host: LocalHost, prefix: str, address: str) -> None:
    with eavesdropper(address) as (port, heard):
        one = started(host, prefix, port, SAYS_READY)
        with pytest.raises(ServingFailed, match=r"does not listen on port|answers there"):
            server.wait_until_ready(host, one, timeout_s=20)
        assert not any(KEY in request for request in heard)


@pytest.mark.tried("key to a stranger", "the same where the engine's log says nothing, so that it is asked early")
@pytest.mark.usefixtures("real_machine")
def test_asking_early_sends_no_key_either(host: LocalHost, prefix: str) -> None:
    with eavesdropper() as (port, heard):
        one = started(host, prefix, port, SAYS_NOTHING)
        with pytest.raises(ServingFailed, match="was not ready"):
            server.wait_until_ready(host, one, timeout_s=3)
        assert not any(KEY in request for request in heard)


@pytest.mark.tried("key to a stranger", "a server has died, another process took its port: status, smoke, doctor")
@pytest.mark.usefixtures("real_machine")
@pytest.mark.parametrize("command", [("serve", "status"), ("smoke", "a"), ("doctor", "--target", "cpu")])
@pytest.mark.parametrize("alive", [True, False])
def test_commands_send_no_key_to_who_took_the_port(
    host: LocalHost, prefix: str, command: tuple[str, ...], alive: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with eavesdropper() as (port, heard):
        one = started(host, prefix, port, SAYS_READY)
        record.save(host, msgspec.structs.replace(one, state="ready"))
        if not alive:
            os.kill(one.pid or 0, 9)
        rc = main([*command, "--prefix", prefix, "--json"])
        out = capsys.readouterr().out
        assert not any(KEY in request for request in heard)
        assert KEY not in out
        if command[0] != "doctor":
            assert rc == 6 and json.loads(out)["ok"] is False


class Blind(FakeHost):
    """A machine that does not say who listens."""

    def listeners(self) -> tuple[Listener, ...]:
        raise ProbeError("who listens on this host cannot be told: /proc is not there")


def recorded(prefix: str = "/p", port: int = 21999) -> Server:
    launch = keyed(prefix, port, ("python",))
    return Server(
        id="1",
        name="a",
        directory=f"{prefix}/servers/a",
        engine=launch.engine,
        version=launch.version,
        stack=None,
        model="/m",
        url=launch.url,
        argv=launch.argv,
        variables={},
        log="l",
        started="",
        machine="",
        boot="",
        key_file=launch.key_file,
    )


@pytest.mark.tried(
    "key to a stranger", "nobody can tell who listens: no /proc, another user's process, or nobody there"
)
@pytest.mark.parametrize("host", [Blind(), FakeHost()])
def test_the_key_stays_where_the_owner_cannot_be_told(host: FakeHost) -> None:
    one = recorded()
    keys.give(host, one.directory, KEY)
    if not isinstance(host, Blind):
        host.ears = [Listener(address="127.0.0.1", port=21999)]
    given = listening.key_of(host, one)
    assert callable(given)
    with pytest.raises(NoAnswer, match="the key was not sent") as caught:
        given()
    assert KEY not in str(caught.value)


class Own(FakeHost):
    """A machine on which our server has pid 10, and others have other pids."""

    def __init__(self, *ears: tuple[str, int | None]) -> None:
        super().__init__()
        self.ears = [Listener(address=address, port=21999, pid=pid, process="x") for address, pid in ears]
        self.files["/proc/10/stat"] = f"10 (python) S 1 10 10 {'0 ' * 15}5000 0"


@pytest.mark.tried(
    "key to a stranger", "two listen on one port: on other addresses, both versions of IP, or a shared port"
)
@pytest.mark.parametrize(
    ("url", "ears", "sent"),
    [
        ("127.0.0.1", [("127.0.0.1", 10)], True),
        ("127.0.0.1", [("0.0.0.0", 10)], True),
        ("127.0.0.1", [("::", 10)], True),
        ("127.0.0.1", [("::ffff:127.0.0.1", 10)], True),
        ("[::1]", [("::", 10)], True),
        ("127.0.0.1", [("127.0.0.1", 10), ("10.0.0.5", 7)], True),
        ("127.0.0.1", [("127.0.0.1", 10), ("127.0.0.1", 7)], False),
        ("127.0.0.1", [("0.0.0.0", 10), ("127.0.0.1", 7)], False),
        ("127.0.0.1", [("127.0.0.1", 10), ("0.0.0.0", None)], False),
        ("127.0.0.1", [("::", 7)], False),
        ("127.0.0.1", [("10.0.0.5", 10)], False),
        ("127.0.0.1", [("::1", 10)], False),
        ("a-host", [("127.0.0.1", 10), ("10.0.0.5", 7)], False),
    ],
)
def test_everybody_who_could_answer_has_to_be_the_server(
    url: str, ears: list[tuple[str, int | None]], sent: bool
) -> None:
    host = Own(*ears)
    one = msgspec.structs.replace(recorded(), url=f"http://{url}:21999", pid=10, started_ticks=5000)
    keys.give(host, one.directory, KEY)
    given = listening.key_of(host, one)
    assert callable(given)
    if sent:
        assert given() == KEY
        return
    with pytest.raises(NoAnswer, match="the key was not sent"):
        given()


def planned(target: str, *, host: FakeHost | None = None, manner: Manner | None = None, **wishes: Any) -> Plan:
    host = host or FakeHost()
    host.variables["HOME"] = "/home/ada"
    return make_plan(host, Options(target=target, **wishes), manner, assumed="target")


TARGETS = [target.name for target in Catalog().targets]


@pytest.mark.tried("open endpoint", "each target as it comes: either nobody else reaches it, or it asks for a key")
@pytest.mark.parametrize("target", TARGETS)
def test_no_target_serves_everyone(target: str) -> None:
    plan = planned(target)
    step = next(step for step in plan.steps if isinstance(step, StartServer))
    assert is_loopback(plan.decision.serve.host) or (step.key and plan.launch.key_file)
    assert (plan.made_key or "no key") not in repr(plan)


@pytest.mark.tried("open endpoint", "each target is bound to an open address: it asks for a key, or is refused")
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("address", ["0.0.0.0", "::", "10.1.2.3", "a-host", "localhost.evil.example"])
def test_an_open_address_is_not_served_without_a_key(target: str, address: str) -> None:
    if not address[0].isdigit() and address != "::" and Catalog().target(target).images:
        with pytest.raises(UsageError, match="published on an IP address"):
            planned(target, bind=address, allow_unauthenticated=True)
        return
    if target in {"a40-lmdeploy", "gb10-nim", "nim"}:
        with pytest.raises(UsageError, match="cannot ask for a key") as refused:
            planned(target, bind=address)
        assert "--allow-unauthenticated" in (refused.value.hint or "")
        opened = planned(target, bind=address, allow_unauthenticated=True)
        assert "endpoint-open" in {finding.check for finding in opened.decision.findings}
        return
    plan = planned(target, bind=address)
    step = next(step for step in plan.steps if isinstance(step, StartServer))
    assert step.key and step.key == plan.made_key and len(step.key) >= 43
    assert planned(target, bind=address).made_key != plan.made_key


@pytest.mark.tried(
    "open endpoint", "a server that has a key is started again: without the variable, or told to be open"
)
def test_a_kept_key_stays_in_force() -> None:
    host = FakeHost()
    prefix = planned("a100", bind="0.0.0.0").decision.places.prefix
    keys.give(host, f"{prefix}/servers/a100", KEY)
    for allowed in (None, True):
        plan = planned("a100", host=host, bind="0.0.0.0", allow_unauthenticated=allowed)
        step = next(step for step in plan.steps if isinstance(step, StartServer))
        assert (step.key, plan.made_key, bool(plan.launch.key_file)) == (KEY, None, True)


def test_nothing_is_made_where_nothing_is_launched() -> None:
    assert planned("a40-lmdeploy", bind="0.0.0.0", manner=Manner(smoke=False)).made_key is None
    assert planned("a100", bind="0.0.0.0", manner=Manner(skip=("server", "smoke"))).made_key is None


def test_the_warning_names_the_routes_that_change_the_server_by_version() -> None:
    def routes(version: str) -> list[str]:
        found = keys.open_to_all(Serve(host="0.0.0.0"), "sglang", version)
        assert found and all(f"`{route}`" in found.text for route in found.data["routes"])
        return list(found.data["routes"])

    assert {"/update_weights_from_disk", "/flush_cache", "/start_profile", "/configure_logging"} <= set(
        routes("0.5.23")
    )
    assert "/configure_logging" not in routes("0.4.0.post2") and "/v1/files" in routes("0.4.0.post2")


PLANTED = {
    "AWS_SECRET_ACCESS_KEY": "planted-1",
    "AZURE_CLIENT_SECRET": "planted-2",
    "UV_INDEX_URL": "https://u:planted-3@index.example/simple",
    "UV_INDEX_MINE_PASSWORD": "planted-4",
    "PIP_INDEX_URL": "https://u:planted-5@index.example/simple",
    "GITHUB_TOKEN": "planted-6",
    "SGPROV_REGISTRY_KEY": "planted-7",
    "SGPROV_WHEELS": "planted-8",
    "HF_API_TOKEN": "planted-9",
    "SGLANG_API_KEY": "planted-10",
    "SLURM_JWT": "planted-11",
    "DATABASE_URL": "planted-12",
    "SSH_AUTH_SOCK": "planted-13",
    "DOCKER_HOST": "planted-14",
    "KUBECONFIG": "planted-15",
    "OPENAI_API_KEY": "planted-16",
}
WANTED = {
    "HF_ENDPOINT": "https://hub.example",
    "CUDA_VISIBLE_DEVICES": "1",
    "NCCL_SOCKET_IFNAME": "eth0",
    "SGLANG_LOGGING_CONFIG_PATH": "/x.json",
    "OMP_NUM_THREADS": "4",
    "HTTPS_PROXY": "http://proxy.example:3128",
    "TRITON_CACHE_DIR": "/kernels",
    "LD_LIBRARY_PATH": "/opt/lib",
    "SLURM_PROCID": "0",
}
TELLS = """
import os, pathlib, stat, tempfile, time
for name, value in sorted(os.environ.items()):
    print(f"{name}={value}", flush=True)
folder = pathlib.Path(tempfile.gettempdir())
(folder / "socket").write_text("")
print("modes", oct(folder.stat().st_mode & 0o777), oct((folder / "socket").stat().st_mode & 0o777), flush=True)
print("The server is fired up and ready to roll!", flush=True)
time.sleep(60)
"""


def told(host: LocalHost, prefix: str) -> tuple[Server, list[str]]:
    """What an engine says of itself that was started as any is."""
    one = server.start(
        host, f"{prefix}/servers", replace(keyed(prefix, 21998, (sys.executable, "-c", TELLS)), key_file=None)
    )
    deadline = time.monotonic() + 60
    # The words are in the record of its start, too, which is one of its variables.
    while "\nThe server is fired up" not in Path(one.log).read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    return one, Path(one.log).read_text().splitlines()


@pytest.mark.tried(
    "inherited secrets", "the caller has logins of indexes, clouds, hubs and tools in variables: the engine"
)
@pytest.mark.usefixtures("real_machine")
@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_the_engine_inherits_settings_and_no_logins(prefix: str, umask: int) -> None:
    before = os.umask(umask)
    try:
        one, lines = told(LocalHost({"PATH": os.environ["PATH"], **PLANTED, **WANTED}), prefix)
    finally:
        os.umask(before)
    assert [line for line in lines if "planted" in line] == []
    assert {f"{name}={value}" for name, value in WANTED.items()} <= set(lines)
    assert "modes 0o700 0o600" in lines
    folder = next(line.partition("=")[2] for line in lines if line.startswith("TMPDIR="))
    assert Path(folder).is_dir() and len(folder) < 80, "the path of a socket in it may have 107 bytes"
    server.stop(LocalHost({"PATH": os.environ["PATH"]}), f"{prefix}/servers", name=one.name, grace_s=1)
    assert not Path(folder).exists()


def test_the_table_passes_no_credential_whatever_its_prefix() -> None:
    for name in PLANTED:
        assert not inherited.passes(name) and not inherited.passes(name, inside=True)
    for name in WANTED:
        assert inherited.passes(name)
    assert inherited.passes("NCCL_DEBUG", inside=True) and inherited.passes("https_proxy", inside=True)
    for name in ("CUDA_VISIBLE_DEVICES", "TRITON_CACHE_DIR", "LD_LIBRARY_PATH", "PATH", "HF_HOME"):
        assert not inherited.passes(name, inside=True), "it is of this machine"
    assert all(row.why for row in inherited.TABLE)


@pytest.mark.tried("inherited secrets", "a login in the address that a variable of the engine's own holds")
@pytest.mark.parametrize("name", ["HF_ENDPOINT", "MC_HOST_store", "SGLANG_LOGS", "NCCL_PLUGIN"])
def test_an_address_with_a_login_is_no_setting(name: str) -> None:
    login = {name: "https://me:very-secret-1@hub.example/x", "HTTPS_PROXY": "http://me:secret@proxy.example:3128"}
    assert inherited.withheld(login) == {name: None}
    assert inherited.for_container(login) == ("HTTPS_PROXY",)
    plain = {name: "https://hub.example/@x"}
    assert inherited.withheld(plain) == {}


@pytest.mark.tried("exchanged directory", "TMPDIR is a directory in which every user may rename the server's own")
@pytest.mark.usefixtures("real_machine")
def test_temporary_files_are_not_kept_where_others_may_exchange_them(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "open"))
    with pytest.raises(UntrustedPath):
        told(LocalHost({"PATH": os.environ["PATH"]}), prefix)
    assert not list((tmp_path / "open").iterdir())
    (tmp_path / "open").chmod(0o1777)
    told(LocalHost({"PATH": os.environ["PATH"]}), prefix)


@pytest.mark.tried("key in output", "a key that was made: shown on a terminal, and in no pipe, file or JSON")
@pytest.mark.parametrize("terminal", [True, False])
def test_a_key_that_was_made_is_shown_once_and_to_a_person_only(terminal: bool) -> None:
    plan, out = planned("a100", bind="0.0.0.0"), io.StringIO()
    report = Report(host="h", command="bootstrap", data={"endpoint": "http://127.0.0.1:30000/v1"})
    screen = Screen(file=out, force_terminal=terminal, width=300)
    endpoint.show(screen, report, plan, name="a100", place="")
    assert plan.made_key and (plan.made_key in out.getvalue()) is terminal
    assert f"{plan.launch.key_file}" in out.getvalue()
    told = json_text({"key_file": plan.launch.key_file, "argv": list(plan.launch.argv)}, "utf-8")
    assert plan.made_key not in told and str(plan.launch.key_file) in told
    host = FakeHost()
    keys.give(host, f"{plan.decision.places.prefix}/servers/a100", plan.made_key)
    again, out = planned("a100", bind="0.0.0.0", host=host), io.StringIO()
    endpoint.show(Screen(file=out, force_terminal=True, width=300), report, again, name="a100", place="")
    assert plan.made_key not in out.getvalue(), "once"
