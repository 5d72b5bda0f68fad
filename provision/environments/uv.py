"""Every call of uv: the program that came with sgprov, in a private directory, with no configuration but the user's.

By itself uv takes settings from `uv.toml` and `pyproject.toml` in its working directory and in all above that: below
`/tmp`, or a prefix that several users share, anybody could name another index or interpreter. So none is looked for.
What the user names is honoured: `UV_*` variables, the file of `UV_CONFIG_FILE`, and the `uv.toml` of the user and of
the system, each only where nobody else can write it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from provision.environments.stalls import Stall
from provision.errors import CommandFailed, NotPermitted, StepFailed, UntrustedPath
from provision.host import CHANGE_TIMEOUT_S, QUERY_TIMEOUT_S, Host, HostView, Outcome
from provision.host.scratch import scratch
from provision.report import Finding, Severity

# None removes a variable: what would have uv stand elsewhere, or put colours into error messages.
VARIABLES: dict[str, str | None] = {
    "NO_COLOR": "1",
    **dict.fromkeys(
        ("FORCE_COLOR", "CLICOLOR_FORCE", "UV_CONFIG_FILE", "UV_NO_CONFIG", "UV_PROJECT", "UV_WORKING_DIR")
    ),
}
CHECK = "uv-configuration"
_IN_ROOT = ("--directory", "/")
_NONE = ("--no-config",)
_FINDING = threading.Lock()


class Stalled(CommandFailed):
    """uv was ended because nothing came any more."""

    def __init__(self, stall: Stall) -> None:
        super().__init__(
            f"nothing came for {stall.patience_s:.0f} s: uv waited for {stall.waits_for}",
            hint="set a mirror (`UV_DEFAULT_INDEX`) or a proxy (`HTTPS_PROXY`), or run it again; "
            "`UV_HTTP_TIMEOUT=300` waits longer",
        )


def program() -> str:
    """The path of uv, from the wheel that sgprov depends on. Raises `StepFailed` where it is not there."""
    import uv  # noqa: PLC0415  # only where something is installed

    try:
        # It asks Python's `sysconfig`, which is not ready for two threads at its first use.
        with _FINDING:
            return str(uv.find_uv_bin())
    except FileNotFoundError:
        raise StepFailed("the program `uv` is missing", hint="install sgprov again: uv comes with it") from None


def query(view: HostView, *words: str, timeout_s: float = QUERY_TIMEOUT_S) -> Outcome:
    """Ask uv something. Looking makes no folder of its own: it stands in `/`, where root alone can write."""
    options = [option for option in configuration(view) if option not in _IN_ROOT]
    return view.query([program(), *words, *_IN_ROOT, *options], timeout_s=timeout_s)


def run(
    host: Host,
    *words: str,
    variables: Mapping[str, str | None] | None = None,
    timeout_s: float = CHANGE_TIMEOUT_S,
    on_line: Callable[[str], None] | None = None,
    lock: int | None = None,
    stall: Stall | None = None,
) -> Outcome:
    """Let uv change something. Paths among `words` and in variables are absolute.

    Raises `CommandFailed`, and `UntrustedPath` where somebody else could have put the files of wheels into its cache.
    `lock` is the descriptor of a lock that it holds, too: should we be killed, nobody comes in as long as it lives.
    With a `stall` it is ended when nothing comes any more, which raises `Stalled`.
    """
    _make_cache(host)
    try:
        with scratch(host) as folder:
            return host.run(
                [program(), *words, *configuration(host)],
                variables={**VARIABLES, **(variables or {})},
                timeout_s=timeout_s,
                directory=str(folder),
                on_line=on_line,
                # An environment is for every user to run, and never for others to change.
                umask=0o022,
                pass_fds=() if lock is None else (lock,),
                end_when=stall,
            )
    except CommandFailed as error:
        if stall and stall.waits_for:
            raise Stalled(stall) from error
        raise


def fetch(
    host: Host, *words: str, variables: Mapping[str, str | None] | None = None, timeout_s: float = CHANGE_TIMEOUT_S
) -> Outcome:
    """Let uv fetch something, a second time where nothing came any more. Raises as `run` does."""
    try:
        return run(host, *words, variables=variables, timeout_s=timeout_s, stall=Stall(host))
    except Stalled:
        return run(host, *words, variables=variables, timeout_s=timeout_s, stall=Stall(host))


def cache_directory(view: HostView) -> str:
    """Where uv keeps unpacked wheels: where its configuration says, if there is one."""
    if named := view.variable("UV_CACHE_DIR"):
        return named
    if configuration(view) != _NONE:
        asked = query(view, "cache", "dir")
        if asked.ok and asked.out.startswith("/"):
            return asked.out.strip()
    home = view.variable("HOME") or "/root"
    return f"{view.variable('XDG_CACHE_HOME') or f'{home}/.cache'}/uv"


def _make_cache(host: Host) -> None:
    """Its cache, which nobody else has to enter: uv lets everyone write the locks in it."""
    if host.variable("UV_NO_CACHE"):
        return
    try:
        host.make_directory(str(Path(cache_directory(host)).absolute()), mode=0o700)
    except UntrustedPath as error:
        raise UntrustedPath(f"uv's cache: {error}", hint=f"{error.hint}; `UV_CACHE_DIR` names another cache") from error


def configuration(view: HostView) -> tuple[str, ...]:
    """The options that say which configuration uv reads."""
    if view.variable("UV_NO_CONFIG") not in {None, "", "0", "false"}:
        return _NONE
    if named := view.variable("UV_CONFIG_FILE"):
        return ("--config-file", str(Path(named).absolute()))
    files = [file for file in _files(view) if not _foreign(view, file)]
    if not files:
        return _NONE
    if len(files) == 1 or _nearer(view):
        return ("--config-file", files[0])
    # uv puts the user's over the system's itself; in `/` there is no other to be found.
    return _IN_ROOT


def check(view: HostView) -> Iterator[Finding]:
    """A warning for each configuration that uv would read by itself and that is left out, as others can write it."""
    for file in _files(view):
        if _foreign(view, file):
            yield Finding(
                check=CHECK,
                severity=Severity.WARNING,
                text=f"`{file}` is not read: somebody else owns it, or can write it or a directory above it",
                fix=(f"make it yours alone, or name it: `UV_CONFIG_FILE={file}`",),
            )


def _files(view: HostView) -> list[str]:
    """The configuration of the user, then the first of the system, where they are."""
    home = view.variable("XDG_CONFIG_HOME") or f"{view.variable('HOME') or '/root'}/.config"
    shared = [*(view.variable("XDG_CONFIG_DIRS") or "/etc/xdg").split(":"), "/etc"]
    system = next((file for folder in shared if view.stat(file := f"{folder}/uv/uv.toml")), None)
    user = f"{home}/uv/uv.toml"
    return [*([user] if view.stat(user) else []), *([system] if system else [])]


def _nearer(view: HostView) -> bool:
    return any(view.stat(file) for file in ("/uv.toml", "/pyproject.toml"))


def _foreign(view: HostView, file: str) -> bool:
    """Whether somebody other than the caller and root can write the file, or put another in its place."""
    try:
        view.require_trusted(file)
    except (UntrustedPath, NotPermitted):
        return True
    return False
