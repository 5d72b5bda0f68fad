"""Whether kernels run on a GPU, and whether the catalog knows those of every lock."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest

from provision.catalog import kernels
from provision.catalog.rows import Kernels
from provision.catalog.shipped import folder
from provision.errors import UsageError
from provision.locks.coverage import Coverage, Way, of_lock, of_wheel, runs_on, summarise
from provision.locks.fatbin import Code
from provision.locks.lockfile import Lock

LOCKS = [
    Lock(path, matched[1], matched[2], matched[3])
    for path in sorted(folder("lockfiles").glob("*.txt"))
    if (matched := re.fullmatch(r"(.+)\.cp(3\d+)\.(x86_64|aarch64)\.txt", path.name))
]


def row(native: tuple[str, ...], ptx: tuple[str, ...] = (), **more: str | bool) -> Kernels:
    given = {
        "package": "kernels",
        "version": "1.0",
        "arch": "x86_64",
        "library": "kernels/ops.abi3.so",
        "source": "",
        **more,
    }
    return Kernels(native=native, ptx=ptx, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("native", "capability", "way"),
    [
        ("8.0", "8.0", "native"),
        ("8.0", "8.6", "compatible"),
        ("8.0", "8.9", "compatible"),
        ("8.6", "8.0", "none"),
        ("8.9", "8.6", "none"),
        ("8.0", "9.0", "none"),
        ("9.0", "9.0", "native"),
        ("9.0a", "9.0", "native"),
        ("10.0", "10.3", "compatible"),
        ("10.0a", "10.0", "native"),
        ("10.0a", "10.3", "none"),
        ("10.0f", "10.0", "native"),
        ("10.0f", "10.3", "compatible"),
        ("10.3f", "10.0", "none"),
        ("10.0f", "11.0", "none"),
        ("10.0f", "12.0", "none"),
        ("12.0", "12.1", "compatible"),
        ("12.0a", "12.1", "none"),
        ("12.0f", "12.1", "compatible"),
        ("12.1a", "12.1", "native"),
        ("12.1f", "12.0", "none"),
        # Jetson is no desktop GPU, in either direction.
        ("8.0", "8.7", "none"),
        ("8.6", "8.7", "none"),
        ("8.7", "8.7", "native"),
        ("8.7", "8.9", "none"),
        ("10.0f", "10.1", "none"),
    ],
)
def test_machine_code(native: str, capability: str, way: str) -> None:
    assert runs_on([native], [], capability, None).way == way


@pytest.mark.parametrize(
    ("ptx", "capability", "way"),
    [
        ("8.0", "8.0", "jit"),
        ("8.0", "12.1", "jit"),
        ("8.0", "8.7", "jit"),
        ("12.0", "9.0", "none"),
        ("9.0a", "9.0", "jit"),
        ("9.0a", "10.0", "none"),
        ("12.0f", "12.1", "jit"),
        ("12.0f", "12.0", "jit"),
        ("10.0f", "12.0", "none"),
    ],
)
def test_ptx(ptx: str, capability: str, way: str) -> None:
    assert runs_on([], [ptx], capability, None).way == way


# What the driver said on an H200 (580.159.04, CUDA 13.0) when it was handed each of these alone: error 209, "no kernel
# image is available", for all but those that loaded.
LOADED = {"machine code": {"9.0", "9.0a"}, "PTX": {"7.5", "8.0", "9.0", "9.0a"}}
REFUSED = {
    "machine code": {"7.5", "8.0", "8.6", "8.9", "10.0", "10.0f", "12.0", "12.0f", "12.1a"},
    "PTX": {"10.0f", "12.0"},
}


@pytest.mark.parametrize("kind", ["machine code", "PTX"])
def test_the_rules_say_what_a_hopper_gpu_did(kind: str) -> None:
    tried = LOADED[kind] | REFUSED[kind]
    one = {target: ([target], []) if kind == "machine code" else ([], [target]) for target in tried}
    assert {target for target in tried if runs_on(*one[target], "9.0", "13.0").runs} == LOADED[kind]


def test_ptx_needs_a_driver_as_new_as_the_toolkit_that_made_it() -> None:
    assert runs_on([], ["8.0"], "9.0", "13.0", ptx_cuda="13.0").runs
    assert runs_on([], ["8.0"], "9.0", "13.1", ptx_cuda="13.0").runs
    assert runs_on([], ["8.0"], "9.0", "12.10", ptx_cuda="12.9").runs
    assert not runs_on([], ["8.0"], "9.0", "13.0", ptx_cuda="13.1").runs
    assert runs_on([], ["8.0"], "9.0", None, ptx_cuda="13.1").runs


def test_machine_code_is_preferred_to_ptx_and_needs_no_new_driver() -> None:
    assert runs_on(["8.0", "9.0"], ["8.0"], "8.6", "12.0", ptx_cuda="13.0").target == "8.0"
    assert runs_on(["8.0", "8.6"], ["8.0"], "8.6", None) == Coverage(way=Way.NATIVE, capability="8.6", target="8.6")


@pytest.mark.parametrize(
    ("held", "capability", "driver", "sentence"),
    [
        (row(("8.0", "8.9")), "8.6", None, "kernels 1.0 holds sm_80, which runs on 8.6"),
        (row(("9.0", "9.0a")), "9.0", None, "kernels 1.0 holds sm_90, made for 9.0"),
        (
            row(("8.0", "12.0a")),
            "12.1",
            None,
            "kernels 1.0 for x86_64 holds sm_80, sm_120a; nothing of that runs on 12.1",
        ),
        (
            row(("8.0",), ("9.0",)),
            "10.0",
            "13.0",
            "kernels 1.0 holds PTX for sm_90, which the driver compiles for 10.0",
        ),
        (
            row((), ("9.0",), ptx_cuda="13.1"),
            "10.0",
            None,
            "kernels 1.0 holds PTX for sm_90, which the driver compiles for 10.0 if it is for CUDA 13.1 or newer",
        ),
        (
            row((), ("9.0",), ptx_cuda="13.1"),
            "10.0",
            "12.8",
            "kernels 1.0 holds only PTX of CUDA 13.1 for 10.0, which a driver for CUDA 12.8 cannot compile",
        ),
        (row(()), "8.0", None, "kernels 1.0 for x86_64 holds no machine code; nothing of that runs on 8.0"),
        (row(("9.0a",), optional=True), "9.0", None, "kernels 1.0 (ops.abi3.so) holds sm_90a, made for 9.0"),
    ],
)
def test_the_sentence_says_why(held: Kernels, capability: str, driver: str | None, sentence: str) -> None:
    coverage = runs_on(held.native, held.ptx, capability, driver, ptx_cuda=held.ptx_cuda)
    assert coverage.sentence(held) == sentence


@pytest.mark.parametrize(("native", "capability"), [("sm_80", "8.6"), ("8.0b", "8.6"), ("8.0", "8"), ("8.0", "")])
def test_what_is_no_target_or_capability_is_said(native: str, capability: str) -> None:
    with pytest.raises(UsageError, match="is not a"):
        runs_on([native], [], capability, None)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_each_kernel_package_of_a_lock_has_a_row_that_decides(lock: Lock) -> None:
    rows = of_lock(lock, "9.0", None)
    pinned = {requirement.name for requirement in lock.requirements} & kernels.PACKAGES
    assert pinned
    assert {held.package for held, _ in rows if not held.optional} == pinned


def test_rows_are_well_formed_and_none_is_twice() -> None:
    rows = kernels.load()
    for held in rows:
        runs_on(held.native, held.ptx, "9.0", "13.0", ptx_cuda=held.ptx_cuda)
        assert held.native or held.ptx
        assert bool(held.ptx) == bool(held.ptx_cuda)
    assert len({(held.package, held.version, held.arch, held.library) for held in rows}) == len(rows)


def test_the_two_builds_of_sglangs_kernels_are_for_the_same_gpus() -> None:
    """The one for 9.0 does not decide there, which is right as long as both list the same."""
    for held in kernels.load():
        if held.library.startswith("sgl_kernel/sm90/"):
            (other,) = (
                one
                for one in kernels.load()
                if (one.package, one.version, one.arch) == (held.package, held.version, held.arch)
                and one.library == held.library.replace("sm90", "sm100")
            )
            assert (other.native, other.ptx) == (held.native, held.ptx)


@pytest.mark.parametrize(
    ("stack", "arch", "runs", "refused"),
    [
        ("sglang-0.5.6.post2", "x86_64", {"8.0", "8.6", "8.9", "9.0", "10.0", "12.0"}, {"7.5", "8.7", "10.3", "12.1"}),
        ("sglang-0.5.15.post1", "x86_64", {"8.0", "8.6", "9.0", "10.0", "10.3", "12.0"}, {"7.5", "12.1"}),
        ("sglang-0.5.15.post1", "aarch64", {"9.0", "10.0", "10.3", "11.0", "12.0", "12.1"}, {"7.5", "8.0", "8.6"}),
        ("sglang-0.5.23", "x86_64", {"8.0", "8.6", "9.0", "10.0", "10.3", "12.0"}, {"7.5", "12.1"}),
        ("sglang-0.5.23", "aarch64", {"9.0", "10.0", "10.3", "11.0", "12.0", "12.1"}, {"7.5", "8.0", "8.6"}),
        ("lmdeploy-0.12.3", "x86_64", {"7.0", "7.5", "8.0", "8.6", "8.9", "9.0"}, {"10.0", "12.0"}),
    ],
)
def test_which_gpus_a_stack_runs_on(stack: str, arch: str, runs: set[str], refused: set[str]) -> None:
    locks = [lock for lock in LOCKS if (lock.stack, lock.arch) == (stack, arch)]
    assert locks
    for lock in locks:
        fit = {
            capability
            for capability in runs | refused
            if all(coverage.runs for held, coverage in of_lock(lock, capability, "13.0") if not held.optional)
        }
        assert fit == runs


def test_a_lock_of_another_architecture_or_version_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text(f"kernels==1.0 \\\n    --hash=sha256:{'0' * 64}\n")
    lock = Lock(tmp_path / "l.txt", "l", "3.10", "x86_64")
    assert [one.library for one, _ in of_lock(lock, "8.0", None, [row(("8.0",))])] == ["kernels/ops.abi3.so"]
    assert not of_lock(lock, "8.0", None, [row(("8.0",), version="1.1"), row(("8.0",), arch="aarch64")])


def test_a_library_is_for_what_most_of_its_fat_binaries_hold() -> None:
    everywhere = frozenset({Code("elf", 80), Code("elf", 90), Code("ptx", 90, "", (8, 1)), Code("ptx", 90, "", (8, 3))})
    library = summarise(
        "l.so", {everywhere: 5, everywhere | {Code("elf", 120)}: 2, frozenset({Code("elf", 90, "a")}): 20}
    )
    assert (library.native, library.ptx, library.ptx_cuda, library.fat_binaries) == (
        ("8.0", "9.0"),
        ("9.0",),
        "12.3",
        27,
    )


def test_a_library_for_one_gpu_only_is_for_that_one() -> None:
    assert summarise("l.so", {frozenset({Code("elf", 90, "a"), Code("elf", 100, "a")}): 3}).native == ("9.0a", "10.0a")


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06", b"no zip at all"])
def test_a_file_that_is_no_wheel_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "k-1.0-py3-none-any.whl").write_bytes(content)
    with pytest.raises(UsageError, match="is not a wheel"):
        of_wheel(tmp_path / "k-1.0-py3-none-any.whl")


def test_a_wheel_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        of_wheel(tmp_path / "k.whl")


def test_a_wheel_with_a_damaged_library_is_said(tmp_path: Path) -> None:
    path = tmp_path / "k.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("k/ops.so", b"\x7fELF\x02\x01" + bytes(range(256)) * 50)
    path.write_bytes(path.read_bytes().replace(b"\x7fELF", b"\xff\xff\xff\xff"))
    raw = bytearray(path.read_bytes())
    raw[40:60] = b"\xff" * 20
    path.write_bytes(raw)
    with pytest.raises(UsageError):
        of_wheel(path)
