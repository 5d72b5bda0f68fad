"""After a rollback a server is started again from the environment in use, with that version's flags."""

from __future__ import annotations

import msgspec
import pytest
from fakes import FakeHost

from provision.catalog.rows import Serve
from provision.environments import Receipt
from provision.environments.layout import Stamp
from provision.errors import StepFailed, UsageError
from provision.serving import record
from provision.serving.launch import render
from provision.serving.record import Server
from provision.serving.relaunch import followers, launch_of

OLD, NEW = "/p/environments/old", "/p/environments/new"
SERVE = Serve(model="/m", port=30100, cuda_graph=False)


def machine(*, rolled_back: bool = True, engine: str = "sglang") -> FakeHost:
    """The prefix `/p` after a rollback from `new` (0.5.23) to `old` (0.5.6)."""
    host = FakeHost()
    for name, version in (("old", "0.5.6.post2"), ("new", "0.5.23")):
        stamp = Stamp(
            name=name, lock=f"sglang-{version}.cp310.x86_64.txt", lock_digest="d", python="3.10.1", interpreter="p",
            sgprov="0", time="2026-01-01",
        )  # fmt: skip
        host.files[f"/p/environments/{name}/.sgprov/stamp.json"] = msgspec.json.encode(stamp).decode()
        package = f"{engine}-{version}.dist-info"
        host.files[f"/p/environments/{name}/lib/python3.10/site-packages/{package}/METADATA"] = ""
    host.link("/p/current", "environments/old" if rolled_back else "environments/new")
    receipt = Receipt(target="t", environment="old", rolled_back_from="new")
    receipt = receipt if rolled_back else Receipt(target="t", environment="new")
    host.files["/p/receipt.json"] = msgspec.json.encode(receipt).decode()
    return host


def server(host: FakeHost, *, python: str = f"{NEW}/bin/python", serve: Serve = SERVE) -> Server:
    launch = render("sglang", "0.5.23", serve, python=python, model_path="/m", given={"HF_HOME": "/hf"})
    made = Server(
        id="1", name="a", directory="/p/servers/a", engine=launch.engine, version=launch.version, stack="sglang-0.5.23",
        model=launch.model, url=launch.url, argv=launch.argv, variables=launch.variables, log="/l", started="",
        machine="", boot="", ports=launch.ports, serve=launch.serve, python=launch.python, given=launch.given,
    )  # fmt: skip
    return record.save(host, made)


def test_without_a_rollback_a_launch_is_what_it_was() -> None:
    host = machine(rolled_back=False)
    known = server(host)
    launch, stack = launch_of(host, "/p", known)
    assert (launch, stack) == (known.launch, "sglang-0.5.23")
    assert launch == render("sglang", "0.5.23", SERVE, python=launch.argv[0], model_path="/m", given={"HF_HOME": "/hf"})
    assert followers(host, "/p") == ()


def test_after_one_it_is_of_the_environment_in_use_with_the_flags_of_its_version() -> None:
    host = machine()
    known = server(host)
    launch, stack = launch_of(host, "/p", known)
    assert (launch.version, launch.argv[0], stack) == ("0.5.6.post2", f"{OLD}/bin/python", "sglang-0.5.6.post2")
    assert "--cuda-graph-backend-decode" in known.argv
    assert "--disable-cuda-graph" in launch.argv and "--cuda-graph-backend-decode" not in launch.argv
    assert launch.variables["HF_HOME"] == "/hf"
    assert followers(host, "/p") == ("a",)


def test_the_server_of_another_target_keeps_its_environment() -> None:
    host = machine()
    known = server(host, python="/p/environments/third/bin/python")
    assert launch_of(host, "/p", known)[0] == known.launch


def test_a_rollback_that_was_overtaken_by_a_bootstrap_says_nothing_any_more() -> None:
    host = machine()
    known = server(host)
    host.link("/p/current", "environments/new")
    assert launch_of(host, "/p", known)[0] == known.launch


def test_what_the_older_version_does_not_know_is_refused() -> None:
    host = machine()
    known = server(host, serve=Serve(model="/m", pipeline_parallel=2))
    for path in [path for path in host.files if "0.5.6.post2.dist-info" in path]:
        host.files[path.replace("0.5.6.post2", "0.4.0")] = host.files.pop(path)
    with pytest.raises(UsageError, match=r"0\.4\.0 has no flag for the setting `pipeline_parallel`"):
        launch_of(host, "/p", known)


def test_another_engine_is_refused() -> None:
    host = machine(engine="lmdeploy")
    with pytest.raises(StepFailed, match="runs sglang, which is not in `/p/environments/old`"):
        launch_of(host, "/p", server(host))


def test_a_server_from_an_image_says_nothing_of_the_environment_that_was_gone_back_to() -> None:
    host = machine()
    known = server(host)
    host.files["/p/receipts/2026-01-01T00-00-00Z.json"] = host.files["/p/receipt.json"]
    image = msgspec.json.encode(Receipt(target="gb10-nim", image="nvcr.io/nim/a:1")).decode()
    host.files["/p/receipts/2026-01-02T00-00-00Z.json"] = host.files["/p/receipt.json"] = image
    assert launch_of(host, "/p", known)[0].argv[0] == f"{OLD}/bin/python"
    assert followers(host, "/p") == ("a",)


def test_an_environment_of_another_server_is_none_to_go_back_to() -> None:
    """Two servers of one prefix, each with its own: what a rollback puts in use was never this one's."""
    host = machine()
    known = server(host)
    host.files["/p/receipt.json"] = msgspec.json.encode(
        Receipt(target="t", environment="old", rolled_back_from="new", server="another")
    ).decode()
    assert followers(host, "/p") == ()
    assert launch_of(host, "/p", known)[0] == known.launch
    its_own = Receipt(target="t", environment="old", server="a")
    host.files["/p/receipts/2026-01-01.json"] = msgspec.json.encode(its_own).decode()
    assert followers(host, "/p") == ("a",)
