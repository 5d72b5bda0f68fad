"""Which servers a command is about: found by their records, and by their processes where a record was lost."""

from __future__ import annotations

from dataclasses import dataclass

from provision import config
from provision.errors import NotPermitted, ProvisionError, UntrustedPath, UsageError
from provision.host import HostView
from provision.remembered import prefixes
from provision.report import Finding, Severity, notice
from provision.serving import processes, record, server
from provision.serving.record import Server


@dataclass(frozen=True, kw_only=True)
class Place:
    """A server by its name, in the directory of all servers of a prefix."""

    servers: str
    name: str

    @property
    def directory(self) -> str:
        return record.directory_of(self.servers, self.name)

    @property
    def prefix(self) -> str:
        return self.servers.removesuffix("/servers")


def everyone(view: HostView, wishes: config.Options) -> list[Place]:
    """Every server that was ever started. Raises `NotPermitted` where others have servers, and this user none."""
    found, refused = list[Place](), list[ProvisionError]()
    for prefix in prefixes(view, wishes):
        servers = f"{prefix}/servers"
        try:
            found += [Place(servers=servers, name=name) for name in record.names(view, servers)]
        except (NotPermitted, UntrustedPath) as error:
            refused.append(error)
    if refused and not found:
        raise refused[0]
    for problem in refused:
        fix = (problem.hint,) if problem.hint else ()
        notice(Finding(check="servers-ignored", severity=Severity.WARNING, text=f"not looked at: {problem}", fix=fix))
    if not found:
        _refuse_to_overlook(view)
    return found


def one(view: HostView, wishes: config.Options) -> Place:
    """The server of that name, or the only one. Raises `UsageError` with the names there are."""
    all_ = everyone(view, wishes)
    those = [each for each in all_ if wishes.name in {None, each.name}]
    if len(those) == 1:
        return those[0]
    names = ", ".join(f"`{each.name}`" for each in all_)
    if not all_:
        raise UsageError(
            f"no server was ever started here{looked_at(view, wishes)}",
            hint="`sgprov bootstrap` starts one; `--prefix DIR` looks elsewhere",
        )
    if not those:
        raise UsageError(f"there is no server `{wishes.name}`", hint=f"there are {names}")
    raise UsageError("there are several servers", hint=f"name one of {names}")


def find_one(view: HostView, wishes: config.Options) -> tuple[str, Server]:
    """(directory of servers, record) of that server. Raises `UsageError` where there is none, or it is damaged."""
    place = one(view, wishes)
    return place.servers, server.known(view, place.servers, name=place.name)


def looked_at(view: HostView, wishes: config.Options) -> str:
    """` (under DIR, DIR)`, where there was anything to look at."""
    places = ", ".join(prefixes(view, wishes))
    return f" (under {places})" if places else ""


def _refuse_to_overlook(view: HostView) -> None:
    """Raise `NotPermitted` where another user runs a server: not to be asked is not the same as not there."""
    others = processes.of_others(view)
    if not others:
        return
    pid, user, prefix = others[0]
    raise NotPermitted(
        f"user `{user}` runs a server under `{prefix}` (pid {pid}), which this user may not look at; none of this user"
        " was ever started here",
        hint=f"run this as that user: `sudo -u {user} sgprov serve status --prefix {prefix}`",
    )
