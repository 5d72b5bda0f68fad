"""Cases of the checks of Python, build tools, environments and models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import msgspec
from unit.checks.machines import A40, HOME, PREFIX, SPARK_NATIVE, Case, answer, info, machine, problem

from provision.checks.base import Context
from provision.config import Options
from provision.environments import Receipt, Stamp, path_for
from provision.facts.model import Python
from provision.host import Outcome
from provision.locks.lockfile import Lock
from provision.report import Severity

_TOOLS = {
    "cc --version": answer("cc 11.4.0"),
    "c++ --version": answer("c++ 11.4.0"),
    "nvcc --version": answer("Cuda compilation tools, release 12.4, V12.4.131"),
}
_MODEL = f"{HOME}/model"
_CONFIG = json.dumps({"architectures": ["Qwen3ForCausalLM"]})


def _lock(context: Context) -> Lock:
    assert context.decision and context.decision.lock
    return context.decision.lock


def _installed(
    *,
    without: str = "",
    stamped: bool = True,
    linked: bool = True,
    digest: str | None = None,
    receipt: str | None = "",
    library: int = 4,
    python: bool = True,
    module: bool = True,
) -> Context:
    """A machine with the environment of the CPU's stack, less what a test takes away."""
    lock = _lock(machine())
    path = path_for(PREFIX, lock)
    name = path.rsplit("/", 1)[-1]
    site = f"{path}/lib/python{lock.python}/site-packages"
    files = {
        f"{site}/{pin.name}-{pin.version}.dist-info/METADATA": "" for pin in lock.requirements if pin.name != without
    }
    files |= {
        f"{site}/{each}/__init__.py": "" for each in ("torch", "sglang", "transformers") if module or each != "sglang"
    }
    files[f"{site}/torch-{lock.version('torch')}.dist-info/RECORD"] = "torch/lib/libtorch.so,sha256=x,4\n"
    files[f"{site}/torch/lib/libtorch.so"] = "x" * library
    if python:
        files[f"{path}/bin/python"] = ""
    stamp = Stamp(
        name=name,
        lock=lock.name,
        lock_digest=digest or lock.digest,
        python=f"{lock.python}.1",
        interpreter="/usr/bin/python3.12",
        sgprov="0.1.0",
        time="2026-01-31T10:20:30Z",
    )
    if stamped:
        files[f"{path}/.sgprov/stamp.json"] = msgspec.json.encode(stamp).decode()
    if receipt is not None:
        files[f"{PREFIX}/receipt.json"] = msgspec.json.encode(
            Receipt(target="cpu", environment=receipt or name)
        ).decode()
    return machine(files=files, links={f"{PREFIX}/current": f"environments/{name}"} if linked else {})


def _python(*, venv: bool = True, headers: bool = True) -> Context:
    pythons = (Python(path="/usr/bin/python3.10", version="3.10.12", venv=venv, headers=headers),)
    made = machine(A40)
    return replace(made, facts=replace(made.facts, pythons=pythons))


def _spark(variables: Mapping[str, str] | None = None, answers: Mapping[str, Outcome] | None = None) -> Context:
    return machine(SPARK_NATIVE, variables=variables, answers=answers)


def _model(files: Mapping[str, str], *, megabytes: int = 0) -> Context:
    weights = {f"{_MODEL}/model.safetensors": info(size=megabytes << 20)} if megabytes else {}
    here = {f"{_MODEL}/{name}": text for name, text in files.items()} | dict.fromkeys(weights, "")
    return machine(
        A40, files=here, paths=weights, wishes=Options(target="a40", model=_MODEL), gpus={"memory_mib": 46068}
    )


def _ptx() -> Context:
    """A GPU that the locked kernels serve by PTX alone."""
    made = machine("gpu=A40,driver=535.104.05,cuda=12.2,python=3.10", wishes=Options(target="runpod-a40-cu121"))
    return replace(made, gpus=tuple(replace(gpu, compute_capability="12.0") for gpu in made.gpus))


def _without_torch() -> Context:
    made = _installed()
    lock = _lock(made)
    site = f"{path_for(PREFIX, lock)}/lib/python{lock.python}/site-packages"
    made.view.remove(f"{site}/torch-{lock.version('torch')}.dist-info")  # type: ignore[attr-defined]
    return made


def _without_ninja(answers: Mapping[str, Outcome]) -> Context:
    """A stack whose lock holds no ninja."""
    for wishes in (Options(target="a40-lmdeploy"), Options(target="a40-lmdeploy", stack="lmdeploy-0.6.0")):
        made = machine(A40, wishes=wishes, answers=answers)
        if not _lock(made).version("ninja"):
            return made
    raise AssertionError("every lock holds ninja")


def _decided_with_a_warning() -> Context:
    made = machine()
    assert made.decision
    return replace(made, decision=replace(made.decision, findings=(problem("stack-note", severity=Severity.WARNING),)))


CASES = (
    Case(
        "python-version",
        "bootstrap lets uv fetch it",
        lambda: machine("gpu=none,python=3.8"),
        machine,
    ),
    Case(
        "python-version",
        "`UV_PYTHON_DOWNLOADS=never`",
        lambda: machine("gpu=none", variables={"UV_PYTHON_DOWNLOADS": "never"}),
        machine,
    ),
    Case("python-headers", "has no headers", lambda: _python(headers=False), _python),
    Case("python-venv", "no ensurepip", lambda: _python(venv=False), _python),
    Case(
        "python-externally-managed",
        "3.12 is managed",
        lambda: machine(files={"/usr/lib/python3.12/EXTERNALLY-MANAGED": ""}),
        machine,
    ),
    Case(
        "python-starts",
        "something is wrong",
        lambda: machine(problems=(problem("facts.pythons", severity=Severity.WARNING),)),
        machine,
    ),
    Case("build-compiler", "no C compiler", lambda: machine(A40), lambda: machine(A40, answers=_TOOLS)),
    Case("build-cxx-compiler", "no C++ compiler", lambda: machine(A40), lambda: machine(A40, answers=_TOOLS)),
    Case("build-nvcc", "no nvcc", lambda: machine(A40), lambda: machine(A40, answers=_TOOLS)),
    Case(
        "build-nvcc-version",
        "nvcc is of CUDA 13.0, the stack is built for 12.8",
        lambda: machine(A40, answers={"nvcc --version": answer("release 13.0, V13.0.88")}),
        lambda: machine(A40, answers=_TOOLS),
    ),
    Case(
        "build-nvcc-version",
        "the driver supports 13.0",
        lambda: _spark(answers={"nvcc --version": answer("release 13.1, V13.1.80")}),
        lambda: _spark(answers={"nvcc --version": answer("release 13.0, V13.0.88")}),
    ),
    Case(
        "build-ninja",
        "no ninja",
        lambda: _without_ninja({}),
        lambda: _without_ninja({"ninja --version": answer("1.11.1")}),
    ),
    Case(
        "build-ptxas",
        "no ptxas of CUDA 13.0 or newer for 12.1",
        _spark,
        lambda: _spark(answers={"nvcc --version": answer("release 13.0, V13.0.88")}),
    ),
    Case(
        "build-ptxas",
        "which is not there",
        lambda: _spark(variables={"TRITON_PTXAS_PATH": "/opt/ptxas"}),
        lambda: _spark(answers={"nvcc --version": answer("release 13.0, V13.0.88")}),
    ),
    Case(
        "build-caches",
        "is not writable",
        lambda: machine(A40, paths={f"{HOME}/.triton": info(owner="root", is_directory=True, writable=False)}),
        lambda: machine(A40, paths={f"{HOME}/.triton": info(is_directory=True)}),
    ),
    Case(
        "build-caches",
        "1 lock files",
        lambda: machine(A40, files={f"{HOME}/.cache/flashinfer/0.5.3/86/cached_ops/rope/rope.lock": ""}),
        lambda: machine(A40),
    ),
    Case("environment-installed", "nothing is installed", machine, _installed),
    Case("environment-installed", "none is in use", lambda: _installed(linked=False), _installed),
    Case("environment-interrupted", "is not complete", lambda: _installed(stamped=False), _installed),
    Case("environment-python", "leads nowhere", lambda: _installed(python=False), _installed),
    Case("environment-lock", "today's lock is", lambda: _installed(digest="0" * 64), _installed),
    Case("environment-packages", "lacks torch==", _without_torch, _installed),
    Case("environment-imports", "`sglang` cannot be imported", lambda: _installed(module=False), _installed),
    Case("environment-files", "libtorch.so", lambda: _installed(library=3), _installed),
    Case("environment-receipt", "no readable receipt", lambda: _installed(receipt=None), _installed),
    Case("environment-receipt", "is of `another`", lambda: _installed(receipt="another"), _installed),
    Case(
        "environment-library-path",
        "/opt/cuda/libcudnn.so.9",
        lambda: machine(variables={"LD_LIBRARY_PATH": "/opt/cuda"}, files={"/opt/cuda/libcudnn.so.9": ""}),
        lambda: machine(variables={"LD_LIBRARY_PATH": "/opt/cuda"}),
    ),
    Case(
        "kernels-compiled-at-start",
        "which the driver compiles for 12.0",
        _ptx,
        lambda: machine(A40),
    ),
    Case(
        "kernels-optional",
        "nothing of that runs on 8.6",
        lambda: machine(A40),
        lambda: machine(A40, wishes=Options(target="a40-lmdeploy")),
    ),
    Case(
        "target-warnings",
        "something is wrong",
        _decided_with_a_warning,
        machine,
    ),
    Case(
        "model-there",
        "there is no model at `/nowhere`",
        lambda: machine(A40, wishes=Options(target="a40", model="/nowhere")),
        lambda: _model({"config.json": _CONFIG}),
    ),
    Case(
        "model-there",
        "models/mine`",
        lambda: machine(A40, wishes=Options(target="a40", model="mine")),
        lambda: _model({"config.json": _CONFIG}),
    ),
    Case(
        "model-there",
        "bootstrap fetches it",
        lambda: machine(A40, wishes=Options(target="a40", model="Qwen/Qwen3-0.6B")),
        lambda: _model({"config.json": _CONFIG}),
    ),
    Case(
        "model-whole",
        "has no tokenizer",
        lambda: _model({"config.json": _CONFIG}),
        lambda: _model({"config.json": _CONFIG, "tokenizer.json": "{}"}),
    ),
    Case(
        "model-pickle",
        "are pickle files",
        lambda: _model({"config.json": _CONFIG, "pytorch_model.bin": "pickle"}),
        lambda: _model({"config.json": _CONFIG, "pytorch_model.bin": "pickle", "model.safetensors": ""}),
    ),
    Case(
        "model-pickle",
        "are pickle files",
        lambda: replace(_model({"config.json": _CONFIG, "model.ckpt": "pickle"}), allow_pickle=True),
        lambda: _model({"config.json": _CONFIG, "model.gguf": ""}),
    ),
    Case(
        "model-code",
        "brings code of its own",
        lambda: _model({"config.json": '{"model_type": "x", "auto_map": {"AutoModel": "m.M"}}'}),
        lambda: _model({"config.json": _CONFIG}),
    ),
    Case(
        "model-fits",
        "the weights take 80,000 MiB",
        lambda: _model({"config.json": _CONFIG}, megabytes=80_000),
        lambda: _model({"config.json": _CONFIG}, megabytes=16_000),
    ),
)
