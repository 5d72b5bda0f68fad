"""Which packages a log names in which versions, and whether they are those of the release."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from provision.diagnosis.model import Found, Line
from provision.diagnosis.signatures import Signature
from provision.secrets import mask

# What the tools print where an index has another name.
_NAMES = {
    "pytorch": "torch",
    "sgl-kernel version": "sgl-kernel",
    "flashinfer": "flashinfer-python",
    "cudnn": "nvidia-cudnn",
}
# Two names of one package: the kernels were renamed in 0.5.10, the import was not.
_SAME = {"sgl-kernel": "sglang-kernel", "sglang-kernel": "sgl-kernel"}

_VERSION = (
    r"(?P<version>\d{1,4}(?:\.\d{1,5}){1,3}(?:(?:a|b|rc)\d{1,3})?(?:\.?post\d{1,3})?(?:\.dev\d{1,10})?"
    r"(?:\+[\w.]{1,40})?)"
)
_PACKAGE = (
    r"sglang-kernel|sglang|sgl[-_]kernel|sgl[-_]router|torchvision|torchaudio|torchao|torch|flashinfer[-_]python"
    r"|flashinfer[-_]cubin|flashinfer[-_]jit[-_]cache|flashinfer|transformers|tokenizers|triton|xgrammar|vllm|lmdeploy"
    r"|nvidia-[a-z]{2,20}(?:-cu\d\d)?|numpy|outlines|compressed[-_]tensors|huggingface[-_]hub|flash[-_]attn|pytorch"
)
_PATTERNS = (
    # pip freeze, and uv's `+ torch==2.9.1`; not a requirement inside an error's sentence, which is followed by words.
    rf"^(?:[+~] )?(?P<name>{_PACKAGE})\s?==\s?{_VERSION}(?: \\)?(?: --hash=.{{0,200}}| ?;.{{0,200}})?$",
    # check_env: `sgl_kernel: 0.3.21`, `PyTorch: 2.9.1+cu128`
    rf"^(?P<name>{_PACKAGE})(?: version)?: {{1,30}}{_VERSION}$",
    # pip list: `torch   2.9.1`
    rf"^(?P<name>{_PACKAGE}) {{1,60}}{_VERSION}$",
    # In a sentence: `torch version 2.9.1+cu128`, `PyTorch version: 2.9.1`, `sglang v0.5.9`
    rf"\b(?P<name>{_PACKAGE})(?: (?:api server|engine))?(?: version| version:| v|: v|-v| \(v) ?{_VERSION}",
    # pip's last line: `Successfully installed sglang-0.5.9 torch-2.9.1`
    rf"(?<=[ ])(?P<name>{_PACKAGE})-{_VERSION}(?= |$)",
)
_ANY = tuple(re.compile(pattern, re.IGNORECASE) for pattern in _PATTERNS)
_MOST_VERSIONS = 4

_PREFIX = "version-of-"
# So that the index hands over lines which may name a version; they are never shown as findings.
SIGNATURES: tuple[Signature, ...] = tuple(
    Signature(id=f"{_PREFIX}{number}", patterns=(rf"{word}\b",), cause="a version", source="", category="python-wheels")
    for number, word in enumerate(
        (
            *("sglang", "sgl[-_]kernel", "sgl[-_]router", "torch", "pytorch", "torchvision", "torchaudio", "vllm"),
            *("flashinfer", "flashinfer[-_]python", "flashinfer[-_]cubin", "flashinfer[-_]jit[-_]cache"),
            *("transformers", "triton", "xgrammar", "lmdeploy", "nvidia", "numpy", "huggingface[-_]hub"),
        )
    )
)

_MISMATCH = Signature(
    id="version-mismatch",
    patterns=(r"\bversion\b",),
    cause="the log names other versions than the release is pinned to",
    remedy=(
        "`sgprov bootstrap` installs the pinned set into a new environment",
        "`sgprov doctor` compares what is installed",
    ),
    source="https://packaging.python.org/en/latest/specifications/version-specifiers/",
    severity="warning",
    kind="symptom",
    confidence="medium",
    category="python-wheels",
)


def parse_versions(text: str) -> Iterator[tuple[str, str]]:
    """The packages and versions that one cleaned line names, by their canonical names."""
    for pattern in _ANY if text.startswith("Successfully installed ") else _ANY[:-1]:
        for match in pattern.finditer(text):
            name = canonicalize_name(match["name"])
            yield _NAMES.get(name, name), match["version"]


def names_version(signature: Signature) -> bool:
    """Whether the signature is one of those that only point at lines with versions."""
    return signature.id.startswith(_PREFIX)


@dataclass
class Versions:
    """The versions one log names, and the first line of each."""

    seen: dict[str, tuple[str, ...]] = field(default_factory=dict)
    lines: dict[tuple[str, str], Line] = field(default_factory=dict)

    def add(self, number: int, text: str) -> bool:
        """Note what the line names; whether any of it is new."""
        news = False
        for name, version in parse_versions(text):
            known = self.seen.get(name, ())
            if version not in known and len(known) < _MOST_VERSIONS:
                self.seen[name] = (*known, version)
                self.lines[name, version] = Line(number, mask(text)[:400])
                news = True
        return news

    def mismatches(self, pins: Mapping[str, str]) -> list[Found]:
        """One finding with a line for each package that is not what `pins` say; none where all are."""
        pinned = {canonicalize_name(name): version for name, version in pins.items()}
        wrong = [
            Line(line.number, f"{name} {version}, pinned {pin}: {line.text}")
            for (name, version), line in self.lines.items()
            if (pin := pinned.get(canonicalize_name(name)) or pinned.get(canonicalize_name(_SAME.get(name, ""))))
            and not _is_pinned(version, pin)
        ]
        return [Found(_MISMATCH, tuple(wrong))] if wrong else []


def _is_pinned(version: str, pin: str) -> bool:
    """Whether they are the same release; a local label such as `+cu128` counts only where both have one."""
    try:
        given, wanted = Version(version), Version(pin)
    except InvalidVersion:
        return version == pin
    if given.local and wanted.local:
        return given == wanted
    return given.public == wanted.public
