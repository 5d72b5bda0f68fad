"""The decision: which stack a machine gets, and why each of the others is refused."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import FakeHost, answer

from provision import assume
from provision.catalog.load import Catalog
from provision.config import Options
from provision.decision import Decision, Question, decide, weigh_targets
from provision.decision.choose import places_of
from provision.environments import path_for
from provision.errors import TooLittleDisk, UnsupportedHost, UsageError, WrongPython
from provision.facts.model import Facts, OperatingSystem, Python
from provision.host import RESERVE_BYTES, DiskSpace
from provision.locks.lockfile import available
from provision.locks.sizes import FILE, Sizes, load
from provision.report import Finding, Severity
from provision.steps.disk import check_disk

CATALOG = Catalog()
LOCKS = Path(__file__).parents[2] / "lockfiles"


def machine(**given: str) -> Facts:
    return assume.facts({"arch": "x86_64", "glibc": "2.35", "python": "3.10", **given})


def asked(facts: Facts, **wishes: str) -> Decision:
    return decide(Question(wishes=Options(**wishes), facts=facts, catalog=CATALOG, locks=LOCKS))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("target", "chosen", "python"),
    [
        ("cpu", "sglang-0.5.23", "3.11"),
        ("runpod-a40", "sglang-0.5.6.post2", "3.10"),
        ("runpod-a40-cu121", "sglang-0.4.0.post2-cu121", "3.10"),
        ("a40", "sglang-0.5.6.post2", "3.10"),
        ("a40-lmdeploy", "lmdeploy-0.12.3", "3.10"),
        ("a100", "sglang-0.5.6.post2", "3.10"),
        ("h100", "sglang-0.5.15.post1", "3.10"),
        ("h200", "sglang-0.5.15.post1", "3.12"),
        ("gb10", "sglang-latest-cu130", None),
        ("gb10-nim", "nim-llama-3.1-8b-instruct-dgx-spark", None),
        ("nim", "nim-llama-3.1-8b-instruct", None),
        ("sglang-image", "sglang-latest-cu130", None),
        ("slurm-efa", "sglang-0.5.15.post1", "3.10"),
        ("nvidia", "sglang-0.5.23", "3.12"),
    ],
)
def test_each_target_fits_the_machine_it_is_for(target: str, chosen: str, python: str | None) -> None:
    decision = asked(assume.facts(CATALOG.target(target).assume), target=target)
    got = decision.stack.name if decision.stack else decision.image.name if decision.image else None
    assert (got, decision.python) == (chosen, python)
    assert decision.why[-1].startswith(chosen)


def test_every_target_is_tested_above() -> None:
    assert len(CATALOG.targets) == 14
    assert len({target.name for target in CATALOG.targets}) == 14


@pytest.mark.parametrize(
    ("given", "target"),
    [
        ({"gpu": "A40", "driver": "550.90.07", "runpod": "yes"}, "runpod-a40"),
        ({"gpu": "A40", "driver": "550.90.07"}, "a40"),
        ({"gpu": "A100-SXM4-80GB", "driver": "535.104.05", "count": "8"}, "a100"),
        ({"gpu": "H200", "driver": "580.65.06"}, "h200"),
        ({"gpu": "H100 80GB HBM3", "driver": "580.65.06", "count": "8", "slurm": "yes"}, "h100"),
        ({"gpu": "H100 80GB HBM3", "driver": "580.65.06", "count": "8"}, "h100"),
        ({"gpu": "GeForce RTX 5090", "driver": "580.65.06", "python": "3.12"}, "nvidia"),
        ({"gpu": "none"}, "cpu"),
    ],
)
def test_without_a_target_the_best_fit_is_chosen_and_explained(given: dict[str, str], target: str) -> None:
    decision = asked(machine(**given))
    assert decision.target.name == target
    assert decision.why


def test_gb10_takes_its_wheels_where_they_are_asked_for() -> None:
    facts = assume.facts(CATALOG.target("gb10").assume)
    decision = asked(facts, target="gb10", stack="sglang-0.5.15.post1")
    assert decision.lock is not None
    assert decision.lock.name == "sglang-0.5.15.post1.cp312.aarch64.txt"
    assert any("holds sm_121a, made for 12.1" in line for line in decision.why)


def test_gb10_without_a_container_engine_takes_its_wheels() -> None:
    facts = replace(assume.facts(CATALOG.target("gb10").assume), engines=())
    decision = asked(facts, target="gb10")
    assert decision.stack is not None
    assert decision.stack.name == "sglang-0.5.15.post1"
    assert any("needs Docker or Podman" in line for line in decision.why)


def test_an_older_stack_goes_before_a_newer_one_that_the_driver_only_half_supports() -> None:
    decision = asked(machine(gpu="H100 80GB HBM3", driver="550.144.03"), target="h100")
    assert decision.stack is not None
    assert decision.stack.name == "sglang-0.5.6.post2"
    assert decision.findings == ()


def test_a_driver_below_the_floor_is_a_warning_on_a_data_centre_gpu() -> None:
    decision = asked(machine(gpu="A40", driver="470.256.02"), target="a40")
    assert [(finding.check, finding.severity) for finding in decision.findings] == [("driver-floor", Severity.WARNING)]
    assert "470.256.02" in decision.findings[0].text
    assert "525.60.13" in decision.findings[0].fix[0]


def test_a_driver_below_the_floor_is_an_error_on_a_geforce() -> None:
    with pytest.raises(UnsupportedHost, match=r"CUDA 12.8 needs driver 525.60.13, this host has 470.256.02"):
        asked(machine(gpu="GeForce RTX 3090", driver="470.256.02"), target="a40")


def test_kernels_without_code_for_the_gpu_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedHost) as refused:
        asked(machine(gpu="Jetson AGX Thor", driver="580.65.06", python="3.12"), target="nvidia")
    assert "sglang-kernel 0.4.10" in str(refused.value)
    assert "11.0" in str(refused.value)


def test_no_target_lists_a_gpu_that_no_stack_of_it_has_code_for() -> None:
    for name in ("nvidia", "sglang-image"):
        assert "7.5" not in CATALOG.target(name).compute_capabilities
    with pytest.raises(UnsupportedHost, match=r"GPU 0 \(.*T4\) is 7.5, it is for 8.0 to 12.1"):
        asked(machine(gpu="Tesla T4", driver="580.65.06"), target="nvidia")


@pytest.mark.parametrize("wish", ["3.11", "3.12", "/usr/bin/python3.11"])
def test_another_python_than_the_target_needs_is_refused_with_the_remedy(wish: str) -> None:
    facts = replace(
        machine(gpu="A40", driver="550.90.07", runpod="yes"),
        pythons=(Python(path="/usr/bin/python3.11", version="3.11.7"),),
    )
    with pytest.raises(WrongPython) as refused:
        asked(facts, target="runpod-a40", python=wish)
    assert "needs Python 3.10" in str(refused.value)
    assert "3.10" in (refused.value.hint or "")
    assert refused.value.exit_status == 3


def test_a_python_that_no_lock_is_for_is_a_wrong_python() -> None:
    with pytest.raises(WrongPython, match=r"no wheels for Python 3.10 \(only 3.11, 3.12, 3.13\)") as refused:
        asked(machine(gpu="none"), target="cpu", python="3.10")
    assert refused.value.hint == (
        "`--python 3.13` (3.11, 3.12, 3.13 have a lock); without `--python` one of those that is here is chosen, or "
        "else fetched"
    )


def test_an_interpreter_with_headers_goes_before_one_without() -> None:
    with_headers = Python(path="/opt/python3.10", version="3.10.13", headers=True)
    facts = replace(
        machine(gpu="A40", driver="550.90.07"),
        pythons=(Python(path="/usr/bin/python3.10", version="3.10.12"), with_headers),
    )
    assert asked(facts, target="a40", python="3.10").interpreter == "/opt/python3.10"


@pytest.mark.parametrize(
    ("paths", "chosen"),
    [
        (("/usr/bin/python3.12", "/home/a/.pyenv/v/bin/python3.12", "/home/a/uv/python/p/bin/python3.11"), 2),
        (("/usr/bin/python3.12", "/home/a/.pyenv/v/bin/python3.11"), 1),
        (("/usr/bin/python3.12", "/usr/local/bin/python3.12"), None),
    ],
)
def test_what_goes_into_an_image_is_a_python_with_a_directory_of_its_own(
    paths: tuple[str, ...], chosen: int | None
) -> None:
    sources = {"/home/a/.pyenv": "pyenv", "/home/a/uv": "uv", "/usr/local": "path", "/usr/bin": "system"}
    pythons = tuple(
        Python(path=path, version=f"{path[-4:]}.1", source=next(name for at, name in sources.items() if at in path))
        for path in paths
    )
    facts = replace(machine(gpu="none", docker="yes"), pythons=pythons)
    assert asked(facts, target="cpu").interpreter == "/usr/bin/python3.12"
    found = asked(facts, target="cpu", image="debian:12").interpreter
    assert found == (None if chosen is None else paths[chosen])


def test_a_host_without_the_python_gets_it_on_the_way() -> None:
    decision = asked(machine(gpu="A40", driver="550.90.07", python="3.12", runpod="yes"), target="runpod-a40")
    assert (decision.python, decision.interpreter) == ("3.10", None)
    assert any("not on this host yet" in line for line in decision.why)


@pytest.mark.parametrize(
    ("system", "version", "expected"), [("debian", "12", "3.11"), ("debian", "13", "3.13"), ("arch", "", "3.13")]
)
def test_of_the_pythons_that_are_not_here_one_that_the_system_has_is_wanted(
    system: str, version: str, expected: str
) -> None:
    facts = replace(machine(gpu="none", python="3.10"), os=OperatingSystem(id=system, version=version))
    assert asked(facts, target="cpu").python == expected


def test_an_old_glibc_is_refused_with_both_numbers() -> None:
    with pytest.raises(UnsupportedHost, match=r"needs glibc 2.34, this host has 2.31"):
        asked(machine(gpu="none", glibc="2.31"), target="cpu")


def test_an_architecture_without_a_lock_is_refused() -> None:
    with pytest.raises(UnsupportedHost, match=r"no wheels locked for aarch64 \(only x86_64\)"):
        asked(machine(gpu="A40", driver="550.90.07", arch="aarch64"), target="a40")


def on_a_full_disk() -> tuple[Facts, dict[str, Sizes]]:
    disk = DiskSpace(path="/srv/sgprov", mount="/srv", filesystem="ext4", total=10 * 2**30, free=2 * 2**30)
    facts = replace(machine(gpu="none", python="3.11"), disks=(disk,))
    return facts, {
        "sglang-0.5.23.cp311.x86_64.txt": Sizes(download_bytes=5 * 2**30, installed_bytes=9 * 2**30, wheels=207)
    }


def test_too_little_disk_is_refused_with_numbers() -> None:
    facts, sizes = on_a_full_disk()
    wishes = Options(target="cpu", prefix="/srv/sgprov")
    with pytest.raises(UnsupportedHost, match=r"needs 10.7 GB under /srv/sgprov, /srv has 2.1 GB free") as refused:
        decide(Question(wishes=wishes, facts=facts, catalog=CATALOG, locks=LOCKS, sizes=sizes))
    assert (refused.value.exit_status, refused.value.code) == (4, "too-little-disk")
    assert (refused.value.hint or "").startswith("free 8.5 GB on /srv")


def test_the_decision_and_the_check_before_the_installation_want_the_same_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the one lets through by a byte is not refused by the other."""
    monkeypatch.setattr("provision.environments.uv.program", lambda: "uv")
    lock = next(lock for lock in available(LOCKS, "sglang-0.5.23") if (lock.python, lock.arch) == ("3.11", "x86_64"))
    size = load(LOCKS / FILE)[lock.name]
    for free in (size.disk_bytes + RESERVE_BYTES - 1, size.disk_bytes + RESERVE_BYTES):
        disk = DiskSpace(path="/srv/p", mount="/", filesystem="ext4", total=1 << 50, free=free)
        question = Question(
            wishes=Options(target="cpu", prefix="/srv/p"),
            facts=replace(machine(gpu="none", python="3.11"), disks=(disk,)),
            catalog=CATALOG,
            locks=LOCKS,
            sizes={lock.name: size},
        )
        host = FakeHost(answers={"uv cache dir": answer("/root/.cache/uv\n")})
        host.disks = {"/": free}
        may_be_installed = check_disk(host, prefix="/srv/p", lock=lock) is None
        with nullcontext() if may_be_installed else pytest.raises(TooLittleDisk):
            assert decide(question).lock == lock


def test_what_is_installed_already_needs_no_disk() -> None:
    facts, sizes = on_a_full_disk()
    lock = next(lock for lock in available(LOCKS, "sglang-0.5.23") if (lock.python, lock.arch) == ("3.11", "x86_64"))
    wishes = Options(target="cpu", prefix="/srv/sgprov")
    question = Question(
        wishes=wishes,
        facts=facts,
        catalog=CATALOG,
        locks=LOCKS,
        sizes=sizes,
        installed={"/srv/sgprov": frozenset({lock.digest})},
    )
    assert decide(question).disk_bytes == 0


def test_an_installation_that_was_begun_may_be_what_fills_the_disk() -> None:
    facts, sizes = on_a_full_disk()
    lock = next(lock for lock in available(LOCKS, "sglang-0.5.23") if (lock.python, lock.arch) == ("3.11", "x86_64"))
    question = Question(
        wishes=Options(target="cpu", prefix="/srv/sgprov"),
        facts=facts,
        catalog=CATALOG,
        locks=LOCKS,
        sizes=sizes,
        begun={"/srv/sgprov": frozenset({path_for("/srv/sgprov", lock)})},
    )
    assert decide(question).target.name == "cpu"


def broken() -> Facts:
    trouble = Finding(
        check="facts.gpus",
        severity=Severity.ERROR,
        text="`nvidia-smi` exited 18: Driver/library version mismatch",
        fix=("reboot",),
    )
    return replace(machine(gpu="none", python="3.11"), problems=(trouble,))


def test_a_broken_driver_is_never_quietly_a_cpu_host() -> None:
    with pytest.raises(UnsupportedHost, match="mismatch") as refused:
        asked(broken())
    assert refused.value.hint == "reboot"
    with pytest.raises(UnsupportedHost, match="mismatch"):
        asked(broken(), target="a100")
    assert asked(broken(), target="cpu").target.name == "cpu"


def test_a_gpu_that_nothing_fits_is_not_made_a_cpu_host() -> None:
    with pytest.raises(UnsupportedHost, match="no target in the catalog fits") as refused:
        asked(machine(gpu="Tesla T4", driver="580.65.06"))
    assert "a100: GPU 0 (NVIDIA Tesla T4) is 7.5, it is for 8.0" in str(refused.value)


def test_an_objection_to_eight_gpus_of_a_kind_is_said_once() -> None:
    one = machine(gpu="NVIDIA H100 80GB HBM3", driver="550.144.03")
    eight = replace(one, gpus=tuple(replace(one.gpus[0], index=index) for index in range(8)))
    with pytest.raises(UnsupportedHost) as refused:
        asked(eight, target="a100")
    assert str(refused.value).splitlines()[1:] == ["  8 GPUs (NVIDIA H100 80GB HBM3) are 9.0, it is for 8.0"]
    with pytest.raises(UnsupportedHost, match="8 GPUs are NVIDIA H100 80GB HBM3, it is for H200"):
        asked(eight, target="h200")


def test_mixed_gpus_are_chosen_among() -> None:
    both = replace(
        machine(gpu="A100-SXM4-80GB", driver="550.90.07"),
        gpus=(
            machine(gpu="A100-SXM4-80GB").gpus[0],
            replace(machine(gpu="A40").gpus[0], index=1),
        ),
    )
    with pytest.raises(UnsupportedHost, match=r"GPU 1 \(NVIDIA A40\) is 8.6"):
        asked(both, target="a100")
    assert asked(both, target="a100", gpus="0").target.name == "a100"
    with pytest.raises(UsageError, match="there is no GPU 5 here"):
        asked(both, target="a100", gpus="5")
    mixed = asked(both, target="nvidia")
    assert [finding.check for finding in mixed.findings] == ["gpu-mixed"]


@pytest.mark.parametrize(
    ("wishes", "message", "hint"),
    [
        ({"target": "runpod-a4"}, "there is no target `runpod-a4`", "did you mean `runpod-a40`?"),
        ({"target": "a100", "stack": "sglang-9"}, "target `a100` has no stack `sglang-9`", "it has sglang-0.5.6.post2"),
        ({"target": "cpu", "port": "http"}, "`http` is not a port", "a number from 1 to 65535, or `auto`"),
        ({"target": "cpu", "port": "70000"}, "`70000` is not a port", "a number from 1 to 65535, or `auto`"),
    ],
)
def test_what_is_not_in_the_catalog_is_named_with_the_nearest(wishes: dict[str, str], message: str, hint: str) -> None:
    facts = assume.facts(CATALOG.target("a100").assume) if wishes["target"] == "a100" else machine(python="3.11")
    with pytest.raises(UsageError) as refused:
        asked(facts, **wishes)
    assert (str(refused.value), refused.value.hint) == (message, hint)


def test_wishes_stand_over_the_target() -> None:
    facts = assume.facts(CATALOG.target("runpod-a40").assume)
    decision = asked(facts, target="runpod-a40", model="/models/other", port="9000", prefix="/srv/x")
    assert (decision.serve.model, decision.serve.port, decision.places.prefix) == ("/models/other", 9000, "/srv/x")
    assert decision.serve.context_length == 8192


def test_a_real_model_on_the_cpu_gets_its_real_weights() -> None:
    decision = asked(machine(python="3.11"), target="cpu", model="/models/gpt2")
    assert decision.serve.load_format is None


def test_weighing_all_targets_raises_nothing_because_of_the_host() -> None:
    fits = weigh_targets(Question(wishes=Options(), facts=broken(), catalog=CATALOG, locks=LOCKS))
    assert [fit.target.name for fit in fits if fit.fits] == ["cpu"]
    assert all(fit.why_not for fit in fits if not fit.fits)


@pytest.mark.parametrize(
    ("named", "hf_home", "expected"),
    [
        (None, None, "/workspace/.cache/huggingface"),
        (None, "/data/hf", "/data/hf"),
        (None, "~/hf", "/home/ada/hf"),
        ("/named", "/data/hf", "/named"),
    ],
)
def test_where_the_cache_of_the_hub_is(named: str | None, hf_home: str | None, expected: str) -> None:
    layout = Catalog().target("runpod-a40").layout
    assert places_of(layout, Options(cache_directory=named), "/home/ada", hf_home=hf_home).huggingface == expected
