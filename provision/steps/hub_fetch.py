"""Fetch a model with the engine's own huggingface_hub; run by that environment's Python, so it imports nothing of ours.

One argument: a JSON object with `model`, `revision`, `free_bytes`, `weights`, `allow_pickle` and the patterns `ignore`,
`pickles` and `only` (null for all). Prints one JSON object a line, with an
`event`: `planned`, `progress`, `done`, or `error` with its `kind`. The token comes by `HF_TOKEN` in the environment.
"""

from __future__ import annotations

import fnmatch
import importlib
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PERIOD_S = 1.0
# Names of exception classes: they moved between modules, and from requests to httpx, from one release to the next.
_KINDS = (
    ("gated", {"GatedRepoError"}),
    ("no-revision", {"RevisionNotFoundError"}),
    ("not-found", {"RepositoryNotFoundError"}),
    ("offline", {"OfflineModeIsEnabled"}),
    ("no-space", {"FileNotEnoughSpaceError"}),
    ("unreachable", {"ConnectionError", "Timeout", "TransportError", "TimeoutException", "LocalEntryNotFoundError"}),
)
_FULL_DISK = 28


def say(**event: Any) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def kind_of(error: BaseException) -> str:
    """What went wrong, from the exception and its causes."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    names = {base.__name__ for one in chain for base in type(one).__mro__}
    if any(isinstance(one, OSError) and one.errno == _FULL_DISK for one in chain):
        return "no-space"
    statuses = {getattr(getattr(one, "response", None), "status_code", None) for one in chain}
    if statuses & {401, 403} and "RepositoryNotFoundError" not in names:
        return "gated"
    return next((kind for kind, classes in _KINDS if names & classes), "other")


def wanted(hub: Any, info: Any, ignore: list[str]) -> Iterator[tuple[str, int]]:
    """(name, bytes) of each file that is to be fetched and is not in the cache."""
    for sibling in info.siblings:
        if any(fnmatch.fnmatch(sibling.rfilename, pattern) for pattern in ignore):
            continue
        cached = hub.try_to_load_from_cache(info.id, sibling.rfilename, revision=info.sha)
        if not isinstance(cached, str):
            yield sibling.rfilename, sibling.size or 0


def weigh(folder: Path) -> int:
    """Bytes in the blobs of a cached repository, those that are still coming in included."""
    total = 0
    for path in folder.glob("blobs/*"):
        try:
            total += path.stat().st_size
        except OSError:
            continue
    return total


def fetch(hub: Any, request: dict[str, Any]) -> None:
    model, revision = request["model"], request["revision"]
    info = hub.HfApi().model_info(model, revision=revision, files_metadata=True, timeout=30)
    names = [sibling.rfilename for sibling in info.siblings]
    pickles = [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in request["pickles"])]
    others = any(name.endswith((".safetensors", ".gguf")) for name in names)
    if pickles and not others and request["weights"] and not request["allow_pickle"]:
        say(event="error", kind="pickle", names=pickles[:3])
        return
    # Other formats of the same weights are fetched only where there are no safetensors; pickles only where asked for.
    ignore = [] if request["allow_pickle"] else request["pickles"]
    if any(name.endswith(".safetensors") for name in names):
        ignore = request["ignore"]
    only = request.get("only")
    if only:
        hub.snapshot_download(model, revision=revision, allow_patterns=only)
        say(event="done", files=len(only), bytes=0)
        return
    files = list(wanted(hub, info, ignore))
    total = sum(size for _, size in files)
    say(event="planned", files=len(files), bytes=total)
    if total > request["free_bytes"]:
        say(event="error", kind="no-space", bytes=total, free=request["free_bytes"])
        return
    folder = Path(hub.constants.HF_HUB_CACHE) / f"models--{model.replace('/', '--')}"
    before, over = weigh(folder), threading.Event()

    def watch() -> None:
        while not over.wait(_PERIOD_S):
            say(event="progress", done=min(max(0, weigh(folder) - before), total), total=total)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        path = hub.snapshot_download(model, revision=revision, ignore_patterns=ignore)
    finally:
        over.set()
        thread.join(_PERIOD_S)
    say(event="done", path=str(path), files=len(files), bytes=total)


def main(argv: list[str]) -> int:
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        say(event="error", kind="no-library", text=str(error))
        return 0
    try:
        fetch(hub, json.loads(argv[1]))
    except Exception as error:  # noqa: BLE001  # every way to fail is told apart by the caller, which has the words
        say(event="error", kind=kind_of(error), text=str(error)[:2000])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
