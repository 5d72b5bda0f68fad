"""The shapes of the catalog's rows. Every unknown key in a data file is an error that names its path."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class Row(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row of data; `source` links to where its statements are written."""


class Serve(Row, frozen=True, kw_only=True):
    """How a server is to run, in the field's terms; `engines.yml` says which flag each is in which engine version.

    `mem_fraction` is the share of GPU memory for weights and KV cache, `context_length` in tokens, sizes of
    parallelism in GPUs. None leaves the engine's default. `extra` is handed to the engine as it is.
    """

    model: str | None = None
    revision: str | None = None
    served_name: str | None = None
    chat_template: str | None = None
    host: str = "127.0.0.1"
    port: int = 30000
    device: Literal["cuda", "cpu"] = "cuda"
    context_length: int | None = None
    mem_fraction: float | None = None
    max_total_tokens: int | None = None
    tensor_parallel: int | None = None
    data_parallel: int | None = None
    pipeline_parallel: int | None = None
    quantization: str | None = None
    attention_backend: str | None = None
    sampling_backend: str | None = None
    load_format: str | None = None
    schedule_policy: str | None = None
    torch_compile: bool = False
    cuda_graph: bool = True
    cache_report: bool = True
    deepgemm: bool = True
    extra: tuple[str, ...] = ()


class Layout(Row, frozen=True, kw_only=True):
    """Where things lie on the host. `~` is the user's home; `prefix` holds environments, servers and receipts.

    `variables` move the caches of tools and engines, where the user has not moved them already.
    """

    prefix: str = "~/.local/share/sgprov"
    models: str = "~/.local/share/sgprov/models"
    huggingface: str = "~/.cache/huggingface"
    nim: str = "~/.cache/nim"
    variables: dict[str, str] = {}


class Target(Row, frozen=True, kw_only=True):
    """A named row the user asks for.

    `compute_capabilities` are the GPUs it is for ("8.6"); none means that it needs no GPU. `stacks` and `images`
    are in order of preference. `python` enforces one
    version. `rank` orders the choice without `--target` (lowest first; None is never chosen by itself).
    `assume` is the machine it is for, for `plan --assume`. `model_to_fetch` stands in for a model of `serve` that
    somebody has to put there, where nobody did.
    """

    name: str
    summary: str
    source: str
    compute_capabilities: tuple[str, ...] = ()
    gpu_names: tuple[str, ...] = ()
    minimum_gpus: int = 0
    stacks: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    prefer: Literal["stack", "image"] = "stack"
    python: str | None = None
    rank: int | None = None
    rank_needs: tuple[Literal["runpod"], ...] = ()
    layout: Layout = Layout()
    serve: Serve = Serve()
    model_to_fetch: str | None = None
    assume: dict[str, str] = {}
    notes: tuple[str, ...] = ()


class Kernels(Row, frozen=True, kw_only=True):
    """The GPU code in one library of one wheel for one CPU architecture.

    `native` are the targets of its machine code ("8.0", "9.0a", "12.0f"), `ptx` those a driver can compile further,
    if it is as new as `ptx_cuda`. Both list what most fat binaries of the library hold, so what holds for its kernels
    as a whole. An `optional` library serves one kind of model or GPU, and does not decide whether a stack runs.
    """

    package: str
    version: str
    arch: Literal["x86_64", "aarch64"]
    library: str
    native: tuple[str, ...]
    ptx: tuple[str, ...] = ()
    ptx_cuda: str | None = None
    optional: bool = False
    source: str


class Stack(Row, frozen=True, kw_only=True):
    """An engine with its exact versions, installed as wheels; its lockfiles are found by name.

    `cuda` is what its torch was built for, `min_driver` the floor of that CUDA family, `minimum_glibc` what its
    wheels are tagged for.
    """

    name: str
    engine: Literal["sglang", "lmdeploy"]
    version: str
    cuda: str
    min_driver: str
    minimum_glibc: str
    source: str
    needs: tuple[Literal["nvcc", "python-headers"], ...] = ()
    notes: tuple[str, ...] = ()


class Image(Row, frozen=True, kw_only=True):
    """A container image, by digest where one is known.

    `native` is the machine code it holds, by Docker's name of the architecture (`amd64`, `arm64`); an empty list where
    the image finds out by itself what it can run (NIM). `model` is the one it is made for, by the name it serves it
    under. Inside, the server listens on `port` (None: the one it is given), keeps what it downloads in `cache`, and
    needs the `secrets`. It runs as whoever calls sgprov: called by root as root without a capability, or as the image's
    own user (`called_by_root`).
    """

    name: str
    reference: str
    engine: Literal["sglang", "nim"]
    version: str
    cuda: str
    min_driver: str
    native: dict[Literal["amd64", "arm64"], tuple[str, ...]]
    source: str
    digests: dict[str, str] = {}
    size_gib: float | None = None
    registry: str = "docker.io"
    login: bool = False
    model: str | None = None
    python: str = "python3"
    port: int | None = None
    cache: str | None = None
    secrets: tuple[str, ...] = ()
    called_by_root: Literal["root", "image"] = "root"
    shm_gib: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def archs(self) -> tuple[str, ...]:
        return tuple(self.native)


class Component(Row, frozen=True, kw_only=True):
    """Something built into an image beside the stack; `run` is shell, with `{version}` to fill in."""

    name: str
    version: str
    run: str
    source: str


class CudaFamily(Row, frozen=True, kw_only=True):
    """A CUDA major version and the driver that runs any minor of it."""

    family: str
    min_driver: str
    source: str


class CudaToolkit(Row, frozen=True, kw_only=True):
    """The driver that came with a CUDA toolkit: what its PTX needs."""

    toolkit: str
    driver: str
