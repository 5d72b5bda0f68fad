"""What the committed lockfiles promise: one hashed wheel a package, no registry's host, and what each stack is made of."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement as Asked
from packaging.utils import canonicalize_name, parse_wheel_filename

from provision.locks import sizes
from provision.locks.lockfile import Lock, available, pins_of

LOCKFILES = Path(__file__).parents[2] / "lockfiles"
INPUTS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((LOCKFILES / "inputs").glob("*.yml"))}
LOCKS = [lock for stack in INPUTS for lock in available(LOCKFILES, stack)]
each_lock = pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)

# A lock must work with whichever index the user's machine is set to, so it may neither choose one nor name one.
INDEX_OPTIONS = re.compile(r"--(extra-|default-)?index|--find-links|^-[if]\b", re.MULTILINE)
# The hosts of the few wheels that no index has.
HOSTS = {"download.pytorch.org", "flashinfer.ai", "github.com"}

# What each stack is chosen for: its torch names the CUDA, its kernels the GPUs.
MADE_OF = {
    "sglang-0.5.23": {"torch": "2.14.1", "sglang-kernel": "0.4.10", "nvidia-cuda-runtime": "13.0.96"},
    "sglang-0.5.15.post1": {"torch": "2.11.0", "sglang-kernel": "0.4.4", "nvidia-cuda-runtime": "13.0.96"},
    "sglang-0.5.6.post2": {"torch": "2.9.1", "sgl-kernel": "0.3.19", "nvidia-cuda-runtime-cu12": "12.8.90"},
    "sglang-0.4.0.post2-cu121": {
        "torch": "2.4.0+cu121",
        "flashinfer": "0.1.6+cu121torch2.4",
        "vllm": "0.6.3.post1",
        "nvidia-cuda-runtime-cu12": "12.1.105",
    },
    "lmdeploy-0.12.3": {"torch": "2.10.0", "nvidia-cuda-runtime-cu12": "12.8.90"},
    "lmdeploy-0.6.0": {"torch": "2.3.1", "nvidia-cuda-runtime-cu12": "12.1.105"},
}


def pins(lock: Lock) -> dict[str, str]:
    return {pinned.name: pinned.version for pinned in lock.requirements}


@pytest.mark.parametrize("stack", INPUTS)
def test_an_input_has_a_lock_for_every_python_and_arch(stack: str) -> None:
    given = INPUTS[stack]
    wanted = {
        f"{stack}.cp{python.replace('.', '')}.{arch}.txt" for python in given["pythons"] for arch in given["archs"]
    }
    assert {lock.name for lock in available(LOCKFILES, stack)} == wanted


def test_every_lock_has_an_input() -> None:
    assert {lock.name for lock in LOCKS} == {path.name for path in LOCKFILES.glob("*.txt")}
    assert MADE_OF.keys() == INPUTS.keys()


@each_lock
def test_a_package_is_one_wheel_by_its_hash(lock: Lock) -> None:
    names = [pinned.name for pinned in lock.requirements]
    assert len(names) > 80
    assert names == sorted(set(names))
    assert {len(pinned.sha256) for pinned in lock.requirements} == {1}
    # Nothing else stands in the file: pins, their hashes, and comments.
    odd = [
        line
        for line in lock.text.splitlines()
        if not re.match(r"#|    #|    --hash=sha256:[0-9a-f]{64}$|\S+(==| @ )\S+ \\$", line)
    ]
    assert odd == []


@each_lock
def test_no_registry_is_named(lock: Lock) -> None:
    assert not INDEX_OPTIONS.search(lock.text)
    assert {url.split("/")[2] for url in re.findall(r"https?://\S+", lock.text)} <= HOSTS


@each_lock
def test_the_header_says_where_it_comes_from(lock: Lock) -> None:
    given = INPUTS[lock.stack]
    first, second, third = lock.text.splitlines()[:3]
    assert f"lockfiles/inputs/{lock.stack}.yml" in first and "do not edit" in first
    assert second == f"# CPython {lock.python}, {lock.arch}, glibc {given['glibc']} or newer."
    assert given["exclude_newer"] in third


@each_lock
def test_a_stack_is_made_of_what_it_is_chosen_for(lock: Lock) -> None:
    found = pins(lock)
    assert {name: found.get(name) for name in MADE_OF[lock.stack]} == MADE_OF[lock.stack]


@each_lock
def test_cuda_is_of_one_major(lock: Lock) -> None:
    """On aarch64 an older torch of the index is a CPU build, and then none of these is there."""
    found = pins(lock).keys()
    runtimes = [name for name in found if name.startswith("nvidia-cuda-runtime")]
    assert len(runtimes) == 1
    twelve = {f"nvidia-{library}-cu12" for library in ("cublas", "cudnn", "nccl", "cuda-nvrtc")}
    assert found & twelve == (twelve if runtimes == ["nvidia-cuda-runtime-cu12"] else set())


@each_lock
def test_what_the_input_asks_for_is_there(lock: Lock) -> None:
    given, found = INPUTS[lock.stack], pins(lock)
    environment = {"python_version": lock.python, "platform_machine": lock.arch, "sys_platform": "linux"}
    # An override takes the place of whatever else asks for that package.
    asked = {}
    for row in (*given["requirements"], *given.get("overrides", [])):
        requirement = Asked(row["pin"])
        asked[canonicalize_name(requirement.name)] = requirement
    for name, requirement in asked.items():
        if requirement.marker is not None and not requirement.marker.evaluate(environment):
            assert name not in found
        else:
            assert requirement.specifier.contains(found[name], prereleases=True)
    assert not found.keys() & given.get("excludes", {}).keys()


@each_lock
def test_wheels_from_elsewhere_are_those_of_the_input(lock: Lock) -> None:
    given = {wheel["url"]: wheel["sha256"] for wheel in INPUTS[lock.stack].get("wheels", [])}
    direct = {pinned.url: pinned.sha256[0] for pinned in lock.requirements if pinned.url}
    assert direct == given
    for url in direct:
        name = str(url).rpartition("/")[2].replace("%2B", "+")
        tag = next(iter(parse_wheel_filename(name)[3]))
        assert tag.interpreter == f"cp{lock.python.replace('.', '')}"
        assert tag.platform.endswith(lock.arch)


def test_the_hashes_of_the_trinity() -> None:
    """Each of the two is in several public files; a third party's index page cannot change them unseen."""
    (lock,) = available(LOCKFILES, "sglang-0.4.0.post2-cu121")
    assert {pinned.name: pinned.sha256[0] for pinned in lock.requirements if pinned.url} == {
        "torch": "28bfba084dca52a06c465d7ad0f3cc372c35fc503f3eab881cc17a5fd82914e7",
        "flashinfer": "d7605fbe3f14ef7f36e702f627c1f06e5a32495b5ebfe34313c3fb15f3e4eb06",
    }


@each_lock
def test_the_name_that_somebody_else_took_is_nowhere(lock: Lock) -> None:
    assert "pyairports" not in pins(lock)


@each_lock
def test_an_old_triton_comes_with_the_setuptools_it_imports(lock: Lock) -> None:
    """Triton 2 and 3.0 import setuptools without asking for it, and an environment that uv makes has none."""
    found = pins(lock)
    if found["triton"].startswith(("2.", "3.0.")):
        assert int(found["setuptools"].split(".")[0]) < 80


@pytest.mark.parametrize("stack", INPUTS)
def test_every_pin_has_its_reason(stack: str) -> None:
    given: dict[str, Any] = INPUTS[stack]
    rows = [row for key in ("requirements", "overrides", "later", "wheels") for row in given.get(key, [])]
    reasons = [*(row["reason"] for row in rows), *given.get("excludes", {}).values()]
    assert all(len(reason.split()) >= 5 for reason in reasons)
    assert given["about"]


@each_lock
def test_sizes_are_of_this_lock(lock: Lock) -> None:
    size = sizes.of(lock)
    assert size is not None
    assert size.wheels == len(lock.requirements)
    assert 1e9 < size.download_bytes < 1e10
    assert size.installed_bytes is None or size.installed_bytes > size.download_bytes


def test_sizes_name_the_wheels_whose_host_did_not_answer() -> None:
    rows = yaml.safe_load((LOCKFILES / sizes.FILE).read_text())
    assert rows.keys() == {lock.name for lock in LOCKS}
    for lock in LOCKS:
        direct = {str(pinned.url).rpartition("/")[2].replace("%2B", "+") for pinned in lock.requirements if pinned.url}
        assert set(rows[lock.name]["unknown"]) <= direct
        largest = list(rows[lock.name]["largest"].values())
        assert largest == sorted(largest, reverse=True) and len(largest) == 10


@each_lock
def test_pins_are_what_a_diagnosis_compares_with(lock: Lock) -> None:
    found = pins_of(lock)
    assert len(found) == len(lock.requirements)
    assert all(lock.version(name) == version for name, version in found.items())
