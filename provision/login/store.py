"""Keep a proved login where Docker and Podman look for it, and find out what is kept there."""

from __future__ import annotations

from dataclasses import dataclass

from provision.containers.answers import as_object
from provision.errors import StepFailed
from provision.host import Host, HostView
from provision.host.addresses import is_loopback
from provision.login.keys import Key
from provision.report import Finding, Severity

_LOGIN_S = 60.0
_OTHERS = 0o077
PROGRAMS = ("docker", "podman")
# Docker Hub's logins are kept under the address it once had.
_HUB = "https://index.docker.io/v1/"


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Where a login is. `helper` is the program that holds it encrypted, None where the file holds it itself."""

    path: str
    helper: str | None


def config_path(view: HostView) -> str:
    """The file that Docker writes and that Podman reads as well."""
    home = view.variable("HOME") or "/root"
    return f"{view.variable('DOCKER_CONFIG') or f'{home}/.docker'}/config.json"


def token_path(view: HostView) -> str:
    """Where the hub's own library looks for its token.

    https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables#hftokenpath
    """
    home = view.variable("HOME") or "/root"
    cache = view.variable("HF_HOME") or f"{view.variable('XDG_CACHE_HOME') or f'{home}/.cache'}/huggingface"
    return view.variable("HF_TOKEN_PATH") or f"{cache}/token"


def find(view: HostView, registry: str) -> Kept | None:
    """The login for a registry, None where there is none. What it holds is not looked at."""
    path, name = config_path(view), _HUB if registry == "docker.io" else registry
    given = as_object(view.read(path))
    helper = as_object(given.get("credHelpers")).get(registry) or given.get("credsStore")
    entry = as_object(given.get("auths")).get(name)
    if as_object(given.get("credHelpers")).get(registry):
        return Kept(path=path, helper=str(helper))
    if not isinstance(entry, dict):
        return None
    return Kept(path=path, helper=None if entry.get("auth") else str(helper))


def save(host: Host, registry: str, *, user: str, key: Key, insecure: bool = False) -> Kept:
    """Log in for good; the key goes through a pipe. What was kept before stays until the new login is accepted."""
    program = _program(host)
    # Whoever could write there would read the key, or have it sent elsewhere.
    host.require_trusted(config_path(host))
    # Podman's own place is gone with the session; this one is not, and it reads it too.
    place = ["--authfile", config_path(host)] if program == "podman" else []
    secure = ["--tls-verify=false"] if program == "podman" and (insecure or is_loopback(registry)) else []
    argv = [program, "login", *place, *secure, "--username", user, "--password-stdin", registry]
    host.run(argv, timeout_s=_LOGIN_S, stdin=key.value)
    kept = find(host, registry)
    if kept is None:
        raise StepFailed(f"`{program} login` ended well, and `{config_path(host)}` has no login for `{registry}`")
    info = host.stat(kept.path)
    if kept.helper is None and info and info.mode & _OTHERS:
        host.run(["chmod", "600", kept.path], timeout_s=_LOGIN_S)
    return kept


def forget(host: Host, registry: str) -> bool:
    """Log out; whether there was a login."""
    if find(host, registry) is None:
        return False
    host.require_trusted(config_path(host))
    program = _program(host)
    place = ["--authfile", config_path(host)] if program == "podman" else []
    host.run([program, "logout", *place, registry], timeout_s=_LOGIN_S)
    return True


def finding(kept: Kept, registry: str) -> Finding:
    """What there is to say of a place where a login is kept."""
    if kept.helper:
        text = f"the login for `{registry}` is kept by `docker-credential-{kept.helper}`"
        return Finding(check="login-store", severity=Severity.OK, text=text)
    return Finding(
        check="login-store",
        severity=Severity.WARNING,
        text=f"`{kept.path}` (mode 600) holds the login for `{registry}` itself: base64 is no protection from root",
        fix=("set `credsStore` there, with docker-credential-pass or -secretservice", f"`sgprov logout {registry}`"),
    )


def _program(host: HostView) -> str:
    for program in PROGRAMS:
        if host.query([program, "--version"]).installed:
            return program
    raise StepFailed("neither Docker nor Podman is here to log in with", hint="`sudo apt-get install -y docker.io`")
