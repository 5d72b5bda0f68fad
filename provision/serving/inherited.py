"""Which variables of the caller an engine gets: what engines and their libraries read, and no login.

A server outlives the shell that started it, and whoever breaks into it reads its environment. So it inherits what is in
this table, and nothing else: not the logins of package indexes and clouds, not what is sgprov's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Row:
    """Names (`X_*` for all that begin so), why an engine gets them, whether in a container too, and with a login."""

    names: tuple[str, ...]
    why: str
    inside: bool = True
    logins: bool = False


# The first row that means a name decides.
TABLE = (
    Row(names=("PATH", "HOME", "USER", "LOGNAME", "SHELL"), why="who it runs as, and where programs are", inside=False),
    Row(names=("LANG", "LANGUAGE", "LC_*", "TZ"), why="the language and the time of its log", inside=False),
    Row(
        names=("LD_LIBRARY_PATH", "LD_PRELOAD", "LIBRARY_PATH", "CPATH", "CC", "CXX", "NVCC*"),
        why="libraries and compilers of this machine, for kernels that are compiled at their first use",
        inside=False,
    ),
    Row(names=("XDG_CACHE_HOME", "XDG_RUNTIME_DIR"), why="where it may keep what it compiled", inside=False),
    Row(
        names=tuple(
            name for one in ("http", "https", "all", "no") for name in (f"{one}_proxy", f"{one.upper()}_PROXY")
        ),
        why="the way to the hub; a login in it is part of that way",
        logins=True,
    ),
    Row(
        names=("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
        why="a company's own certificates",
        inside=False,
    ),
    Row(
        names=("HF_*", "HUGGINGFACE_*", "TRANSFORMERS_*", "SAFETENSORS_*", "TOKENIZERS_*"),
        why="settings of the hub's libraries",
    ),
    Row(
        names=("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_*"),
        why="which GPUs it sees: in a container those that it is given",
        inside=False,
    ),
    Row(names=("CUDA_*", "CUBLAS_*", "CUDNN_*"), why="settings of CUDA"),
    Row(
        names=("NCCL_*", "GLOO_*", "UCX_*", "FI_*", "RDMAV_*", "NVSHMEM_*", "MC_*", "MOONCAKE_*", "TP_SOCKET_*"),
        why="how its processes, and those of other nodes, talk to each other",
    ),
    Row(names=("SGLANG_*", "SGL_*", "LMDEPLOY_*", "TM_*", "VLLM_*", "NIM_*"), why="settings of the engines"),
    Row(
        names=("TORCH_*", "TORCHINDUCTOR_*", "PYTORCH_*", "TRITON_*", "FLASHINFER_*", "DG_*", "TVM_*", "XGRAMMAR_*"),
        why="settings of what compiles and runs kernels",
    ),
    Row(
        names=("OMP_*", "MKL_*", "KMP_*", "GOMP_*", "OPENBLAS_*", "NUMEXPR_*", "NUMBA_*", "MALLOC_*"),
        why="threads and memory",
    ),
    Row(
        names=("MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_*"),
        why="its place among the nodes of a job",
        inside=False,
    ),
    Row(
        names=("PYTHONUNBUFFERED", "PYTHONFAULTHANDLER", "PYTHONHASHSEED", "PYTHONWARNINGS"),
        why="settings of Python",
        inside=False,
    ),
)
# What is a credential by its name, whatever row means it: a model is fetched before, and the engine asks nobody.
_CREDENTIAL = re.compile(r"TOKEN$|TOKEN_PATH$|KEY$|SECRET|PASSW|CREDENTIAL|AUTH$|AUTHORIZATION$|JWT", re.IGNORECASE)
# One by its value, whatever it is called: the login in an address (of a mirror of the hub, of an object store).
_LOGIN = re.compile(r"://[^\s/?#@]+@")
# A place on this machine is none in a container.
_PLACE = re.compile(r"_(?:DIR|DIRECTORY|HOME|PATH|FILE|BASE|CACHE)$")


def passes(name: str, value: str = "", *, inside: bool = False) -> bool:
    """Whether an engine inherits that variable: on this machine, or `inside` a container."""
    row = next((row for row in TABLE if _meant(name, row)), None)
    if row is None or _CREDENTIAL.search(name) or (_LOGIN.search(value) and not row.logins):
        return False
    return not inside or (row.inside and not _PLACE.search(name))


def withheld(environment: Mapping[str, str]) -> dict[str, None]:
    """What an engine on this machine does not inherit, as the variables to be taken away."""
    return {name: None for name, value in environment.items() if not passes(name, value)}


def for_container(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The names of those that a container gets beside what it is told."""
    return tuple(sorted(name for name, value in environment.items() if passes(name, value, inside=True)))


def _meant(name: str, row: Row) -> bool:
    return any(name.startswith(one[:-1]) if one.endswith("*") else name == one for one in row.names)
