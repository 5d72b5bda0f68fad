"""The step that makes an installed environment whole again, from what the environment itself remembers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from provision.environments import layout
from provision.errors import StepFailed
from provision.host import HostView
from provision.host.scratch import scratch
from provision.locks.lockfile import Lock
from provision.steps.environment import Environment

_NAME_PARTS = 3


@contextmanager
def step(view: HostView, prefix: str, path: str, packages: tuple[str, ...]) -> Iterator[Environment]:
    """The step that fetches `packages` of the environment at `path` anew, by the lock that it was made from.

    Its lock lies in a file of its own meanwhile: today's lockfile may be another, and the environment's own copy
    goes with the environment where that has to be made anew. Raises `StepFailed` for one that was interrupted.
    """
    stamp, text = layout.read_stamp(view, path), view.read_state(f"{path}/{layout.LOCK}")
    # Such as `sglang-0.5.9-cpu.cp312.x86_64.txt`.
    parts = stamp.lock.removesuffix(".txt").rsplit(".", 2) if stamp else []
    if stamp is None or text is None or len(parts) != _NAME_PARTS:
        raise StepFailed(f"`{path}` is not complete", hint="`sgprov bootstrap` makes it anew")
    stack, _, arch = parts
    with scratch(view) as folder:
        file = folder / stamp.lock
        file.write_text(text, encoding="utf-8")
        lock = Lock(file, stack, ".".join(stamp.python.split(".")[:2]), arch)
        if layout.path_for(prefix, lock) != path:
            raise StepFailed(
                f"`{path}` is not what its lock makes", hint="`sgprov bootstrap` installs today's beside it"
            )
        yield Environment(
            prefix=prefix,
            lock=lock,
            interpreter=stamp.interpreter if view.stat(stamp.interpreter) else None,
            reinstall=packages,
            anew=True,
        )
