from __future__ import annotations

import re

import pytest

from provision.diagnosis import topics
from provision.diagnosis.matcher import diagnose_text
from provision.diagnosis.model import Found
from provision.diagnosis.signatures import CATEGORIES, Signature
from provision.diagnosis.words import compile_pattern, required_words

# Failures that no signature knows, in words of our own.
UNKNOWN = {
    "gpu-arch": "error: the fancy op was built for sm_90 and this gpu computes sm_75",
    "python-wheels": "error: pip gave up on frobnicate==1.2, whose wheel lacks its metadata",
    "cuda-driver": "fatal: dkms could make nothing of the kernel headers for nvidia.ko",
    "port": "error: somebody else has a listener on port 30000, the bind came to nothing",
    "memory": "error: the allocator gave up, the kv cache wants more memory",
    "model-access": "error: the snapshot from huggingface broke off in the middle of a shard",
    "container-registry": "error: the kubelet gave the pod no container runtime",
    "multi-node": "error: the ranks of this torchrun disagree on the world size",
    "server-config": "error: --frobnicate is no argument that goes with this quantization",
}


def first(text: str) -> Found:
    return diagnose_text(text).findings[0]


@pytest.mark.parametrize("category", UNKNOWN)
def test_a_failure_that_nobody_knows_is_placed_by_its_words(category: str) -> None:
    found = first(UNKNOWN[category])
    assert found.signature.category == category
    assert found.signature.confidence == "low"
    assert found.lines[0].number == 1
    assert found.signature.remedy


@pytest.mark.parametrize("category", UNKNOWN)
def test_the_same_words_without_alarm_are_nothing(category: str) -> None:
    quiet = re.sub(r"^(?:error|fatal): ", "note: ", UNKNOWN[category]).replace("no ", "one ")
    assert not diagnose_text(quiet).findings


@pytest.mark.parametrize("category", UNKNOWN)
@pytest.mark.parametrize(
    "level", ["INFO ", "2026-10-30 10:00:00,123 - DEBUG - ", 'level=warning msg="', "I0306 20:39:40 "]
)
def test_what_a_logger_says_below_error_is_nothing(category: str, level: str) -> None:
    assert not diagnose_text(level + UNKNOWN[category]).findings


def test_all_categories_have_words() -> None:
    assert set(UNKNOWN) == set(CATEGORIES) - {"harmless"}


def test_the_lines_beside_count_but_less() -> None:
    beside = "  in nccl_wrapper, all_reduce\n"
    assert first(beside + "AssertionError").signature.category == "multi-node"
    assert first(beside + "it crashed on port 30000").signature.category == "port"


def test_the_lines_beside_alone_count_only_where_something_failed() -> None:
    assert not diagnose_text("docker dkms modprobe nvcc\nit could not be told").findings


def test_a_signature_that_knows_the_reason_comes_first() -> None:
    text = UNKNOWN["port"] + "\nCUDA error: no kernel image is available for execution on the device"
    assert first(text).signature.id == "no-kernel-image"


def test_a_server_that_came_up_was_not_harmed() -> None:
    ready = "\nThe server is fired up and ready to roll!\n"
    crash = "a helper crashed over the kv cache"
    assert first(crash).signature.category == "memory"
    assert not diagnose_text(crash + ready).findings
    assert first(crash + ready + crash).lines[0].number == 3


def test_a_mild_word_counts_in_an_excerpt_and_not_in_a_whole_log() -> None:
    line = "the docker compose plugin is missing\n"
    assert first(line).signature.category == "container-registry"
    assert not diagnose_text(line + "all is well\n" * 200).findings


def test_settings_far_into_a_line_are_not_an_alarm() -> None:
    settings = "started with " + ", ".join(f"setting_{number}=None" for number in range(60)) + ", on_error=None"
    assert not diagnose_text(settings).findings


def test_a_tie_is_no_answer() -> None:
    assert not diagnose_text("it crashed: docker dkms").findings


@pytest.mark.parametrize("row", topics.pointers(), ids=lambda row: row.id)
def test_every_pointer_can_be_looked_up(row: Signature) -> None:
    for pattern in row.patterns:
        compile_pattern(pattern)
        assert all(required_words(pattern)), pattern


@pytest.mark.parametrize("name", ["ZMQError", "RuntimeError", "FrobnicationError"])
def test_the_name_of_any_error_is_an_alarm(name: str) -> None:
    assert first(f"{name}: the listener on port 30000 is none").signature.category == "port"


@pytest.mark.parametrize(
    ("text", "category"),
    [
        # The same code of HTTP: the host decides whose it is.
        (
            "HTTPError: 500 Server Error for url: https://hub.example/some-model/resolve/main/config.json",
            "model-access",
        ),
        ("HTTPError: 500 Server Error for http+docker://localhost/images/create", "container-registry"),
        # One says which GPU, the other which model.
        ("int4 quantization is not supported for architectures between 10 and 12", "gpu-arch"),
        ("int4 quantization is not supported for this checkpoint", "server-config"),
        ("error at fmha_runner.cuh:37: Unsupported architecture", "gpu-arch"),
        ("Unsupported architecture: FrobnicatorForCausalLM", "server-config"),
        # What every engine says of a process that died is no reason.
        ("CUDA error (hopper/some_kernel.h:12): invalid argument\nEngine core initialization failed.", "gpu-arch"),
        ("DistNetworkError: broken\nname: EADDRINUSE, message: address already in use", "port"),
        ('File "C:\\venv\\huggingface_hub\\hub.py", line 7, in get', "model-access"),
        ("Loading checkpoint shards: 50%|##   | 1/2 [00:01<00:01]Killed", "memory"),
        ("Building the image: my/engine:1.2 image not found", "container-registry"),
        ("| NVIDIA-SMI 500.1    Driver Version: 500.1    CUDA Version: ERR!  |", "cuda-driver"),
        ("ValueError: Current node has no GPU available. current_node_resource={'CPU': 8.0}", "multi-node"),
    ],
)
def test_the_whole_line_decides(text: str, category: str) -> None:
    assert first(text).signature.category == category


@pytest.mark.parametrize(
    "text",
    [
        "custom_all_reduce: Registering 35 cuda graph addresses",
        "invoke-rc.d: could not determine current runlevel",
        "debconf: delaying package configuration, since apt-utils is not installed",
        "Disabling parallelism to avoid deadlocks...",
        "W1030 10:00:00.000 1598 run.py:793] OMP_NUM_THREADS is unset: the docker error count is 0",
        "srun: debug: spank: the plugin stack of pyxis was opened",
    ],
)
def test_everyday_lines_are_nothing(text: str) -> None:
    assert not diagnose_text(text).findings
