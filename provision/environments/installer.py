"""How an environment is made with uv, the only installer, and where its cache is.

uv's own configuration is honoured as far as it says where wheels come from (`uv.toml` of the user and the system,
`UV_DEFAULT_INDEX`, `UV_FIND_LINKS`, `UV_CACHE_DIR`, `UV_LINK_MODE`, proxies, certificates). pip's is not: uv does not
read `pip.conf` or `PIP_*`. What would change *which* wheels are installed is taken away: the lock alone says that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from provision.environments import uv
from provision.environments.layout import MADE, python_of
from provision.environments.manifest import walk
from provision.environments.sealing import Made
from provision.environments.stalls import Stall
from provision.host import Host, HostView
from provision.locks.lockfile import Lock

# None removes a variable. UV_PYTHON_DOWNLOADS: an environment step that silently fetched another Python would hide
# what the interpreter step is for. The last ones would put files into an environment that are in no wheel.
VARIABLES: dict[str, str | None] = {
    "UV_PYTHON_DOWNLOADS": "never",
    **dict.fromkeys(
        (
            *("UV_PYTHON", "UV_SYSTEM_PYTHON", "UV_BREAK_SYSTEM_PACKAGES"),
            *("UV_CONSTRAINT", "UV_OVERRIDE", "UV_EXCLUDE", "UV_BUILD_CONSTRAINT", "UV_EXCLUDE_NEWER"),
            *("UV_NO_VERIFY_HASHES", "UV_NO_BINARY", "UV_NO_BINARY_PACKAGE", "UV_TORCH_BACKEND"),
            *("UV_VENV_SEED", "UV_VENV_RELOCATABLE", "UV_COMPILE_BYTECODE", "UV_NO_INSTALLER_METADATA"),
        )
    ),
}
_NO_INDEX: dict[str, str | None] = dict.fromkeys(("UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL"))
_SYNC = ("--require-hashes", "--only-binary", ":all:")
# The pins of a lock with every wheel looked for by name, where all of them come from one place.
_BY_NAME = ".sgprov/by-name.txt"


def cache_directory(view: HostView) -> str:
    """Where uv keeps unpacked wheels: `UV_CACHE_DIR`, its configuration, or `~/.cache/uv`."""
    outcome = uv.query(view, "cache", "dir")
    if outcome.ok and outcome.out.strip():
        return outcome.out.strip()
    return uv.cache_directory(view)


def is_cached(view: HostView, lock: Lock, interpreter: str) -> bool:
    """Whether uv's cache holds every wheel of the lock, so that an install would download nothing."""
    # In a dry run uv says `Would download 3 packages` for those that it has not got.
    outcome = uv.query(view, "pip", "sync", "--dry-run", "--offline", *_SYNC, "--python", interpreter, _absolute(lock))
    return outcome.ok and "Would download" not in outcome.err


def make(host: Host, path: str, interpreter: str, *, name: str, lock: int) -> Made:
    """Make an empty environment at `path` from `interpreter`, in place of whatever is there; it may be moved later."""
    host.remove(path)
    host.make_directory(path)
    options = ("--no-python-downloads", "--relocatable", "--prompt", name, "--python", interpreter)
    uv.run(host, "venv", *options, path, variables={**VARIABLES, **_NO_INDEX}, lock=lock)
    host.write(f"{path}/{MADE}", "")
    return Made(names=frozenset(walk(path).files), since_ns=Path(path, MADE).stat().st_mtime_ns)


def drop(host: Host, packages: Iterable[str], *, lock: int) -> None:
    """Take packages out of uv's cache, so that they are fetched anew."""
    # Not `--refresh`: it leaves alone what was cached from a local folder of wheels (uv 0.13).
    uv.run(host, "cache", "clean", *sorted(packages), variables={**VARIABLES, **_NO_INDEX}, lock=lock)


def sync(
    host: Host,
    path: str,
    lock: Lock,
    *,
    held: int,
    wheels: str | None = None,
    offline: bool = False,
    on_line: Callable[[str], None] = lambda _: None,
) -> None:
    """Let uv install what the lock pins into the empty environment at `path`.

    `wheels` is a folder, or the address of a page, that has all of them: nothing else is asked then. `offline` takes
    them from the cache alone, and fails in a tenth of a second where one is not there; `held` is the descriptor of the
    prefix's lock. Raises `CommandFailed`, and `uv.Stalled` when nothing came any more.
    """
    pins, variables = (_by_name(host, path, lock), _only_from(wheels)) if wheels else (_absolute(lock), VARIABLES)
    variables = {**variables, "UV_LINK_MODE": _link_mode(host)}
    options = [*(["--no-index"] if wheels else []), *(["--offline"] if offline else [])]
    command = ("pip", "sync", *_SYNC, "--no-compile-bytecode", "--python", python_of(path), *options, pins)
    # Offline there is nobody to wait for.
    stall = None if offline else Stall(host, folder=f"{path}/lib/python{lock.python}/site-packages")
    uv.run(host, *command, variables=variables, on_line=on_line, lock=held, stall=stall)
    # uv's own lock, which it makes for everyone to write.
    host.remove(f"{path}/.lock")


def _link_mode(view: HostView) -> str:
    """Hard links, unless the user's variable asks for copies: an environment that is made of symbolic links is gone
    with the cache, and of clones nobody can tell that they are the cache's files."""
    asked = view.variable("UV_LINK_MODE")
    return asked if asked in {"copy", "clone"} else "hardlink"


def _absolute(lock: Lock) -> str:
    return str(lock.path.absolute())


def _by_name(host: Host, path: str, lock: Lock) -> str:
    pins = f"{path}/{_BY_NAME}"
    lines = (
        f"{pin.name}=={pin.version} {' '.join(f'--hash=sha256:{digest}' for digest in pin.sha256)}\n"
        for pin in lock.requirements
    )
    host.write(pins, "".join(lines))
    return pins


def _only_from(wheels: str) -> dict[str, str | None]:
    # By variable and not by option: an address may hold a token, and options are seen by every user.
    return {**VARIABLES, **_NO_INDEX, "UV_FIND_LINKS": wheels}
