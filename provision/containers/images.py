"""Images: what is here, what a pull would fetch, and the pull itself, layer by layer."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from provision.containers import engine
from provision.containers.names import checked_reference
from provision.errors import CommandFailed, StepFailed
from provision.host import Host, HostView
from provision.host.addresses import is_loopback

_MANIFEST_S = 30.0
_ATTEMPTS, _PAUSE_S = 3, 5.0
# Such as `a3ed95caeb02: Pull complete`.
_LAYER = re.compile(r"^([0-9a-f]{12}): (Pull complete|Already exists|Download complete)$")
_BROKEN_OFF = re.compile(
    r"unexpected EOF|: EOF$|connection reset|i/o timeout|TLS handshake timeout|Client\.Timeout|broken pipe|short read",
    re.IGNORECASE | re.MULTILINE,
)
_LOGIN = re.compile(
    r"unauthorized|denied: |authentication required|401 Unauthorized|403 Forbidden|no basic auth", re.IGNORECASE
)
_ABSENT = re.compile(r"manifest unknown|not found|repository does not exist", re.IGNORECASE)
_NO_PLATFORM = re.compile(r"no matching manifest for|no image found .* for (?:architecture|platform)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Here:
    """An image that is on this machine. `digest` is the registry's name for it, None for one that was never pushed."""

    id: str
    arch: str
    digest: str | None
    size_bytes: int
    user: str


@dataclass(frozen=True, kw_only=True)
class Remote:
    """What a registry offers under a name: the sizes of the layers for our architecture, and all architectures."""

    archs: tuple[str, ...]
    layers: dict[str, int] = field(default_factory=dict)

    @property
    def download_bytes(self) -> int:
        return sum(self.layers.values())


def find(view: HostView, program: str, reference: str) -> Here | None:
    """The image of that name, where it is here. Raises `StepFailed` where the engine does not say."""
    outcome = view.query([program, "image", "inspect", "--format", "{{json .}}", checked_reference(reference)])
    if outcome.ok:
        return parse_image(outcome.out)
    said = outcome.err.strip() or outcome.out.strip()
    # Without an engine there is no image; with one that gives no reason, neither.
    if not outcome.installed or engine.GONE.search(said) or (outcome.rc is not None and not said):
        return None
    raise engine.unasked(program, f"has `{reference}`", said.splitlines()[-1] if said else outcome.ending)


def parse_image(text: str) -> Here:
    """Parse, e.g., `{"Id": "sha256:…", "RepoDigests": ["a@sha256:…"], "Architecture": "amd64", "Size": 7, …}`."""
    found = json.loads(text)
    # Podman says it as a list of one.
    given: dict[str, Any] = found[0] if isinstance(found, list) else found
    digests = given.get("RepoDigests") or []
    return Here(
        id=str(given["Id"]),
        arch=str(given.get("Architecture", "")),
        digest=str(digests[0]).partition("@")[2] if digests else None,
        size_bytes=int(given.get("Size") or 0),
        user=str((given.get("Config") or {}).get("User") or ""),
    )


def ask(view: HostView, reference: str, arch: str) -> Remote | None:
    """What the registry has, asked with Docker's own login; None where it cannot be told (Podman cannot ask)."""
    insecure = ["--insecure"] if is_loopback(reference.partition("/")[0]) else []
    argv = ["docker", "manifest", "inspect", *insecure, "--verbose", checked_reference(reference)]
    outcome = view.query(argv, timeout_s=_MANIFEST_S)
    return parse_manifests(outcome.out, arch) if outcome.ok else None


def parse_manifests(text: str, arch: str) -> Remote | None:
    """Parse, e.g., `[{"Descriptor": {"platform": {"architecture": "arm64"}}, "OCIManifest": {"layers": […]}}, …]`."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        return None
    archs, layers = [], dict[str, int]()
    for one in given if isinstance(given, list) else [given]:
        own = ((one.get("Descriptor") or {}).get("platform") or {}).get("architecture", "")
        # Attestations are listed as images of an unknown architecture.
        if own in {"", "unknown"}:
            continue
        archs.append(own)
        if own == arch:
            manifest = one.get("OCIManifest") or one.get("SchemaV2Manifest") or {}
            layers = {
                layer["digest"].partition(":")[2][:12]: int(layer["size"]) for layer in manifest.get("layers", [])
            }
    return Remote(archs=tuple(dict.fromkeys(archs)), layers=layers)


def store(view: HostView, program: str) -> str:
    """The directory that images are unpacked in."""
    field_of = "{{.DockerRootDir}}" if program == "docker" else "{{.Store.GraphRoot}}"
    outcome = view.query([program, "info", "--format", field_of])
    return outcome.out.strip() or "/var/lib/docker"


def pull(
    host: Host,
    program: str,
    reference: str,
    *,
    arch: str,
    remote: Remote | None = None,
    tell: Callable[[str, int | None, int | None], None] = lambda _text, _done, _total: None,
) -> None:
    """Fetch an image for an architecture; after a broken connection that the engine gave up on it is begun again.

    The engine itself goes on where a layer broke off, a few times. Raises `StepFailed` with the remedy.
    """
    checked_reference(reference)
    layers, seen = remote.layers if remote else {}, set[str]()

    def line(text: str) -> None:
        if not (found := _LAYER.match(text.strip())):
            return
        seen.add(found[1])
        total = sum(layers.values()) if layers else None
        done = sum(layers.get(layer, 0) for layer in seen) if layers else None
        tell(f"{len(seen)}{f' of {len(layers)}' if layers else ''} layers", done, total)

    for attempt in range(_ATTEMPTS):
        try:
            host.run([program, "pull", "--platform", f"linux/{arch}", reference], on_line=line)
        except CommandFailed as error:
            if attempt + 1 < _ATTEMPTS and _BROKEN_OFF.search(str(error)):
                tell("the connection broke off; going on", None, None)
                time.sleep(_PAUSE_S)
                continue
            raise explain(error, reference, arch) from error
        return


def explain(error: CommandFailed, reference: str, arch: str) -> StepFailed:
    """What a pull that failed says, in our words."""
    said, registry = str(error), reference.partition("/")[0]
    if _NO_PLATFORM.search(said):
        return StepFailed(f"`{reference}` has no image for {arch}", hint="`sgprov targets` names what fits")
    if _LOGIN.search(said):
        name = "ngc" if registry == "nvcr.io" else registry
        return StepFailed(
            f"`{registry}` does not let this machine fetch `{reference}`",
            hint=f"`sgprov login {name} --image {reference}` says whether it is the key or what the key may have",
        )
    if _ABSENT.search(said):
        return StepFailed(f"`{registry}` has no image `{reference}`", hint="look at the name and the tag")
    if "no space left" in said:
        return StepFailed(
            f"the disk is full while unpacking `{reference}`", hint="`docker system df`, `docker image prune`"
        )
    return error
