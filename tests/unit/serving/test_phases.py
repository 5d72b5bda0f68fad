"""What the lines of a launch say, in the order in which a real one wrote them."""

from __future__ import annotations

import pytest

from provision.catalog.engines import engine
from provision.serving.phases import LaunchLog

# Shortened lines of launches: GPUs with 0.4.3, two of them with 0.5.15.post1, a CPU with 0.5.23.
GPU_0_4_3 = """\
[2025-01-23 19:35:02] server_args=ServerArgs(model_path='m', tp_size=8)
[2025-01-23 19:35:10 TP0] Init torch distributed begin.
[2025-01-23 19:35:12 TP0] Load weight begin. avail mem=78.84 GB
Loading safetensors checkpoint shards:  25% Completed | 1/4 [00:01<00:03,  1.10s/it]
[2025-01-23 19:35:19 TP0] Load weight end. type=LlamaForCausalLM, dtype=torch.bfloat16, avail mem=63.72 GB
[2025-01-23 19:35:20 TP0] Capture cuda graph begin. This can take up to several minutes.
 43%|####3     | 10/23 [00:02<00:04,  3.51it/s]
[2025-01-23 19:35:21 TP1] Load weight end. type=LlamaForCausalLM, dtype=torch.bfloat16, avail mem=63.72 GB
[2025-01-23 19:35:27 TP0] Capture cuda graph end. Time elapsed: 6.57 s
[2025-01-23 19:35:28] INFO:     Started server process [700]
[2025-01-23 19:35:28] INFO:     Uvicorn running on http://127.0.0.1:30000 (Press CTRL+C to quit)
[2025-01-23 19:35:31] The server is fired up and ready to roll!
"""
GPUS_0_5_15 = """\
[2026-11-21 10:39:16] server_args=ServerArgs(model_path='/m', tp_size=2)
[2026-11-21 10:39:31 TP1] Init torch distributed begin.
[2026-11-21 10:39:33 TP1] Load weight begin. avail mem=138.28 GB
[2026-11-21 10:39:33 TP1] Load weight end. elapsed=0.13 s, type=Qwen3ForCausalLM, avail mem=137.69 GB, mem usage=0.60 GB.
[2026-11-21 10:39:35 TP0] KV Cache is allocated. dtype: torch.bfloat16, #tokens: 2324266, K size: 62.06 GB, V size: 62.06 GB
[2026-11-21 10:39:35 TP0] Capture target prefill CUDA graph begin. backend=breakable, num_tokens=[4, 8192], avail mem=12.90 GB
Capturing num tokens (num_tokens=8192 avail_mem=12.70 GB):   0%|          | 0/58 [00:00<?, ?it/s]
Capturing num tokens (num_tokens=4 avail_mem=11.60 GB): 100%|##########| 58/58 [00:29<00:00,  1.96it/s]
[2026-11-21 10:40:04 TP1] Capture target prefill CUDA graph end. elapsed=29.77 s, mem usage=1.14 GB, avail mem=11.56 GB.
[2026-11-21 10:40:04 TP1] Capture target decode CUDA graph begin. backend=full, num_tokens_per_bs=1, bs=[1, 256], avail mem=11.56 GB
Capturing batches (bs=256 avail_mem=11.47 GB):   3%|3         | 1/36 [00:01<00:37,  1.08s/it]
[2026-11-21 10:40:04 TP0] Capture target decode CUDA graph begin. backend=full, num_tokens_per_bs=1, bs=[1, 256], avail mem=11.56 GB
[2026-11-21 10:40:09 TP0] Capture target decode CUDA graph end. elapsed=4.90 s, mem usage=0.61 GB, avail mem=10.96 GB.
[2026-11-21 10:40:10] INFO:     Started server process [1229]
[2026-11-21 10:40:10] INFO:     Uvicorn running on http://0.0.0.0:30000 (Press CTRL+C to quit)
[2026-11-21 10:40:16] The server is fired up and ready to roll!
"""
CPU_0_5_23 = """\
[2026-11-21 09:26:23] server_args={'model_path': '/m', 'device': 'cpu'}
[2026-11-21 09:26:59] Init parallel begin.
[2026-11-21 09:27:02] Load weight begin. avail mem=20.86 GB
[2026-11-21 09:27:02] Load weight end. elapsed=0.01 s, type=GPT2LMHeadModel, avail mem=20.86 GB, mem usage=0.00 GB.
[2026-11-21 09:27:03] INFO:     Started server process [13694]
[2026-11-21 09:27:03] INFO:     Uvicorn running on http://127.0.0.1:31700 (Press CTRL+C to quit)
[2026-11-21 09:27:04] The server is fired up and ready to roll!
"""


def watch_of(version: str, name: str = "sglang") -> LaunchLog:
    return LaunchLog(engine(name).log_of(version))


def phases(version: str, text: str) -> list[str]:
    watch = watch_of(version)
    seen = [watch.phase.name]
    for line in text.splitlines():
        if watch.feed(line) and watch.phase.name != seen[-1]:
            seen.append(watch.phase.name)
    assert watch.ready and watch.death is None
    return seen


def test_a_launch_on_gpus_goes_through_its_phases_and_never_back() -> None:
    assert phases("0.4.3", GPU_0_4_3) == [
        *("imports", "workers", "parallel", "weights", "memory", "cuda-graphs", "http", "warmup"),
    ]


def test_graphs_for_prompts_and_for_generation_are_two_phases_each_with_its_own_percentage() -> None:
    assert phases("0.5.15.post1", GPUS_0_5_15) == [
        *("imports", "workers", "parallel", "weights", "memory", "prefill-graphs", "cuda-graphs", "http", "warmup"),
    ]
    watch, said = watch_of("0.5.15.post1"), list[tuple[str, int | None]]()
    for line in GPUS_0_5_15.splitlines():
        if watch.feed(line) and "graphs" in watch.phase.name:
            said.append((watch.phase.name, watch.phase.percent))
    prompts, generation = "prefill-graphs", "cuda-graphs"
    assert said == [(prompts, None), (prompts, 0), (prompts, 100), (generation, None), (generation, 3)]


def test_a_launch_on_a_cpu_has_no_graphs() -> None:
    assert phases("0.5.23", CPU_0_5_23) == ["imports", "workers", "parallel", "weights", "memory", "http", "warmup"]


@pytest.mark.parametrize(
    ("line", "phase"),
    [
        ("[2026-01-01 00:00:00 TP0] Entering DeepGEMM JIT Pre-Compile session. It may take a long time", "jit"),
        ("DeepGEMM warmup:  12%|#2        | 2048/16384 [00:30<03:20]", "jit"),
        ("[2026-01-01 00:00:00] Running FlashInfer autotune with cache: /c", "autotune"),
        ("[2026-01-01 00:00:00 TP0] Capture cuda graph bs [1, 2, 4, 8]", "cuda-graphs"),
        ("[2026-01-01 00:00:00] Capture prefill CUDA graph begin. backend=full, num_tokens=[4096]", "prefill-graphs"),
        ("[2026-01-01 00:00:00] Capture draft extend CUDA graph begin. step=1, ", "cuda-graphs"),
    ],
)
def test_what_takes_minutes_has_a_name(line: str, phase: str) -> None:
    watch = watch_of("0.5.23")
    assert watch.feed(line)
    assert watch.phase.name == phase


def test_a_progress_bar_is_a_percentage_of_its_phase() -> None:
    watch = watch_of("0.5.6.post2")
    watch.feed("[2026-01-01 00:00:00] Capture cuda graph begin. This can take up to several minutes.")
    watch.feed("Capturing batches (bs=1 avail_mem=2.91 GB):  45%|####5     | 9/20")
    assert str(watch.phase) == "capturing CUDA graphs for generation (45 %)"
    watch.feed("[2026-01-01 00:01:00] INFO:     Started server process [700]")
    assert str(watch.phase) == "starting the HTTP server"


@pytest.mark.parametrize(
    "line",
    [
        "[2026-11-21 09:30:21] Subprocess scheduler_0 (pid=14053) crashed with exit code -9. Triggering SIGQUIT",
        "[2026-11-21 09:30:21] SIGQUIT received. signum=None, frame=None. It usually means one child failed.",
        "[2025-06-01 10:00:00] Received sigquit from a child process. It usually means the child failed.",
        "[2025-06-01 10:00:00 TP0] Scheduler hit an exception: Traceback (most recent call last):",
        "[2025-06-01 10:00:00] Initialization failed. warmup error: Traceback (most recent call last):",
    ],
)
def test_a_lost_server_is_known_before_it_is_gone(line: str) -> None:
    watch = watch_of("0.5.23")
    watch.feed(line)
    assert watch.death == line and not watch.ready


def test_falling_back_to_a_general_implementation_is_noticed() -> None:
    watch = watch_of("0.5.4")
    watch.feed("[2025-11-01 00:00:00] Load weight end. type=TransformersForCausalLM, dtype=torch.bfloat16")
    assert watch.fell_back


def test_lmdeploy_is_ready_when_http_listens() -> None:
    watch = watch_of("0.12.3", "lmdeploy")
    watch.feed("HINT:    Please open http://0.0.0.0:23333 in a browser for detailed api usage!!!")
    assert watch.phase.name == "http" and not watch.ready
    watch.feed("INFO:     Uvicorn running on http://0.0.0.0:23333 (Press CTRL+C to quit)")
    assert watch.ready
