"""One playbook run through ansible-runner: told event by event, ended when asked, leaving nothing behind."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from provision import config, trust
from provision.catalog.shipped import folder
from provision.errors import NotPermitted, ProvisionError, UntrustedPath, UsageError
from provision.host import files
from provision.output import readable

_SYSTEM_COLLECTIONS = "/usr/share/ansible/collections"
_INSTALL = "pip install 'sgprov[fleet]'"
_FORKS = 16
_NAMES = "limit"
_SOCKET_PATH = 70
# What `ansible-playbook` ends with where it did its work: 0, or a sum of 2, 4 and 8 for hosts that failed, that were
# unreachable, or that ended a play.
_ENDS = range(0, 16, 2)
# How much of Ansible's own words is kept.
_OUTPUT = 20_000


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How Ansible goes about it; `user_arguments` are handed to `ansible-playbook` as they are."""

    inventory: str
    forks: int = _FORKS
    connect_timeout_s: int = 10
    user_arguments: tuple[str, ...] = ()


@dataclass
class Run:
    """A run and how it ended: "successful", "failed", "canceled", or "timeout"; `broke` where Ansible itself failed."""

    status: str = "starting"
    output: str = ""
    broke: bool = False
    cancel: threading.Event = field(default_factory=threading.Event)

    @property
    def last_line(self) -> str:
        """The last of its words that is one."""
        lines = [line.strip() for line in readable(self.output).splitlines() if line.strip()]
        return lines[-1] if lines else self.status


class Workshop:
    """What a run needs, in a private folder at `path` that whoever made it removes, secrets too."""

    def __init__(self, settings: Settings, path: Path) -> None:
        self.settings, self.path = settings, path
        # The path of a socket has room for 107 characters, of which SSH and Ansible need some 35.
        self.control = path if len(str(path)) < _SOCKET_PATH else Path(tempfile.mkdtemp(prefix="sgprov-", dir="/tmp"))

    def close(self) -> None:
        shutil.rmtree(self.control, ignore_errors=True)

    def play(
        self,
        playbook: str,
        tell: Callable[[Mapping[str, Any]], None],
        *,
        limit: Sequence[str] = (),
        tags: str | None = None,
        values: Mapping[str, Any] | None = None,
        secrets: Mapping[str, Any] | None = None,
        ssh_arguments: str = "",
        ssh_attempts: int = 0,
        run: Run | None = None,
    ) -> Run:
        """Run one of our playbooks to its end.

        Raises `UsageError` where Ansible cannot start at all, `StepFailed` where nothing can be written for it.
        """
        runner = _runner()
        run = run or Run()
        private, given = self._written({**(values or {}), **(secrets or {})}, limit)
        arguments = ["--extra-vars", f"@{given}", *self.settings.user_arguments]
        if tags:
            arguments += ["--tags", tags]
        if limit:
            arguments += ["--limit", f"@{private / _NAMES}"]
        call = {
            "private_data_dir": str(private),
            "project_dir": str(folder("playbooks")),
            "playbook": playbook,
            "inventory": str(Path(self.settings.inventory).absolute()),
            "cmdline": shlex.join(arguments),
            "envvars": {"ANSIBLE_SSH_EXTRA_ARGS": ssh_arguments, "ANSIBLE_SSH_RETRIES": str(ssh_attempts)},
            "event_handler": _Listener(run, given, tell),
            "cancel_callback": run.cancel.is_set,
            "suppress_env_files": True,
            "suppress_ansible_output": True,
            "quiet": True,
            "settings": {"pexpect_timeout": 1, "idle_timeout": None},
        }
        # In a thread: an interruption then reaches us, and not some place inside the runner.
        thread = threading.Thread(target=_work, args=(runner, call, run), daemon=True)
        with self._ready():
            thread.start()
            try:
                while thread.is_alive():
                    thread.join(0.2)
            except BaseException:
                run.cancel.set()
                thread.join(10)
                raise
            finally:
                shutil.rmtree(private, ignore_errors=True)
        return run

    def _written(self, values: Mapping[str, Any], limit: Sequence[str]) -> tuple[Path, Path]:
        """A folder for one run, and the file in it with the variables of that run."""
        try:
            private = Path(tempfile.mkdtemp(dir=self.path))
            given = private / "values.yml"
            # In a file of ours and not as `extravars`: those are written, in clear, into the artifacts.
            given.touch(mode=0o600)
            given.write_text(literal(values))
            # By file: a command line holds some thousand names only.
            (private / _NAMES).write_text("\n".join(limit) + "\n")
        except OSError as error:
            raise files.failed("written", str(self.path), error) from error
        return private, given

    def hosts(self, limit: str | None) -> tuple[str, ...]:
        """The names of the hosts, from the inventory itself: a host that is never reached gives no event.

        Raises `UsageError` where there is none.
        """
        inventory = self.settings.inventory
        _runner()
        # Ansible would read a pipe or a device without end.
        if not (Path(inventory).is_file() or Path(inventory).is_dir()):
            raise UsageError(f"there is no inventory at `{inventory}`", hint="`playbooks/inventory.example` shows one")
        path = Path(inventory).absolute()
        require_own("the inventory", path, *_with_inventory(path))
        # Ansible reads its settings while it is imported: those of whatever directory this happens to be, otherwise.
        with self._ready():
            from ansible.errors import AnsibleError  # noqa: PLC0415
            from ansible.inventory.manager import InventoryManager  # noqa: PLC0415
            from ansible.parsing.dataloader import DataLoader  # noqa: PLC0415

            try:
                manager = InventoryManager(loader=DataLoader(), sources=[str(Path(inventory).absolute())])
                if limit:
                    manager.subset(limit)
            except (AnsibleError, ValueError, RecursionError) as error:
                raise UsageError(f"`{inventory}` cannot be read as an inventory: {error}") from error
            # Plain text: Ansible's own kind of string carries where it was read.
            names = tuple("".join(host.name) for host in manager.get_hosts("all"))
        if odd := next((name for name in names if not name.isprintable()), None):
            raise UsageError(f"`{inventory}` is not an inventory: a host of it is called {odd!a}")
        if not names:
            raise UsageError(f"no host of `{inventory}` is meant" + (f" by `--limit {limit}`" if limit else ""))
        return names

    def _ready(self) -> AbstractContextManager[None]:
        """What docs/fleet.md measured, and nothing that a directory or a host could add to it.

        Code comes from our playbooks, from Ansible itself, and from collections that nobody else can write.
        """
        playbooks = folder("playbooks")
        variables = {
            "ANSIBLE_CONFIG": str(playbooks / "ansible.cfg"),
            "ANSIBLE_HOME": str(self.path / "ansible"),
            "ANSIBLE_ROLES_PATH": str(playbooks / "roles"),
            "ANSIBLE_COLLECTIONS_PATH": _collections(),
            "ANSIBLE_FORKS": str(self.settings.forks),
            "ANSIBLE_HOST_KEY_CHECKING": "True",
            "ANSIBLE_PIPELINING": "True",
            "ANSIBLE_TIMEOUT": str(self.settings.connect_timeout_s),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.control),
            "ANSIBLE_SSH_ARGS": _SSH,
            "ANSIBLE_GATHERING": "explicit",
            # What a host says of itself is no variable: it would overrule the inventory's.
            "ANSIBLE_INJECT_FACT_VARS": "False",
            "ANSIBLE_CACHE_PLUGIN": "memory",
            "ANSIBLE_LOCALHOST_WARNING": "False",
            # Looking for a better one is a round trip more for every host and run; an inventory may name another.
            "ANSIBLE_PYTHON_INTERPRETER": "python3",
            "ANSIBLE_DEPRECATION_WARNINGS": "False",
        }
        return config.ready_for_ansible(str(Path(sys.executable).parent), variables)


def require_own(what: str, path: Path, *more: Path) -> None:
    """Raise `UsageError` where another user could have written what Ansible runs code from: a path, or `more`."""
    try:
        for one in (path, *more):
            trust.require(str(one))
    except (UntrustedPath, NotPermitted) as error:
        raise UsageError(f"{what} `{path}` is not read: {error}", hint=error.hint) from error


def _with_inventory(inventory: Path) -> Iterator[Path]:
    """The folder of an inventory, and what Ansible reads of it beside a file: templates in all of that are run here."""
    base = inventory if inventory.is_dir() else inventory.parent
    beside = [base / name for name in ("group_vars", "host_vars")]
    yield from (base, *beside)
    for top in [inventory] if inventory.is_dir() else beside:
        for root, folders, names in os.walk(top):
            yield from (Path(root, name) for name in (*folders, *names))


def _collections() -> str:
    """Where an inventory's plugins may come from: the caller's own collections, where nobody else can write them."""
    own = Path.home() / ".ansible" / "collections"
    with suppress(ProvisionError):
        trust.require(str(own))
        return f"{own}:{_SYSTEM_COLLECTIONS}"
    return _SYSTEM_COLLECTIONS


def _work(runner: Any, call: Mapping[str, Any], run: Run) -> None:
    try:
        ended = runner.run(**call)
        run.status = ended.status
        run.broke = ended.status == "failed" and ended.rc not in _ENDS
        if ended.status != "successful" and not run.output:
            run.output = _last_words(ended)
    except Exception as error:  # noqa: BLE001  # this thread has nobody else to tell
        run.status, run.output = "failed", f"{type(error).__name__}: {error}"


class _Listener:
    """Hears the events of a run, and hands on those that are Ansible's own.

    The runner takes what looks like an event out of everything that is printed, what hosts say included. They do not
    know the number that Ansible gave this run.
    """

    def __init__(self, run: Run, given: Path, tell: Callable[[Mapping[str, Any]], None]) -> None:
        self._run, self._given, self._tell = run, given, tell
        self._number: str | None = None

    def __call__(self, event: Mapping[str, Any]) -> bool:
        # Read by now: a controller that is killed leaves no key behind.
        self._given.unlink(missing_ok=True)
        if self._is_genuine(event):
            self._tell(event)
        if event.get("event") == "error" or "ERROR!" in str(event.get("stdout", "")):
            self._run.output = (self._run.output + str(event.get("stdout", "")))[-_OUTPUT:]
        # The event's file is of no use to anyone.
        return False

    def _is_genuine(self, event: Mapping[str, Any]) -> bool:
        data = event.get("event_data")
        number = data.get("playbook_uuid") if isinstance(data, Mapping) else None
        # Told before any host is asked for anything.
        if self._number is None and event.get("event") == "playbook_on_start":
            self._number = number
        return number is not None and number == self._number


def literal(values: Mapping[str, Any]) -> str:
    """Variables as YAML for Ansible, in which no text is a template, whatever it looks like."""
    import yaml  # noqa: PLC0415

    class Text(str):
        __slots__ = ()

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002  # PyYAML's
            return True

    def marked(value: Any) -> Any:
        if isinstance(value, str):
            return Text(value)
        if isinstance(value, Mapping):
            return {str(key): marked(one) for key, one in value.items()}
        return [marked(one) for one in value] if isinstance(value, list | tuple) else value

    Dumper.add_representer(Text, lambda dumper, text: dumper.represent_scalar("!unsafe", str(text), style='"'))
    return yaml.dump(marked(values), Dumper=Dumper, allow_unicode=False, width=sys.maxsize)


# A host that stops answering is noticed within a minute, and not when TCP gives up. It gets no way back: no agent, no
# display, no tunnel but the one to the wheels, and no word in `known_hosts`.
_SSH = (
    "-o ControlMaster=auto -o ControlPersist=60s -o ServerAliveInterval=10 -o ServerAliveCountMax=3 "
    "-o ForwardAgent=no -o ForwardX11=no -o Tunnel=no -o PermitLocalCommand=no -o UpdateHostKeys=no"
)


def _runner() -> Any:
    try:
        import ansible  # noqa: F401, PLC0415
        import ansible_runner  # noqa: PLC0415
    except ImportError as error:
        raise UsageError("a fleet needs ansible-core and ansible-runner", hint=_INSTALL) from error
    return ansible_runner


def _last_words(ended: Any) -> str:
    with suppress(Exception), ended.stdout as words:
        return str(words.read())[-2000:]
    return ""
