"""One playbook run through ansible-runner: told event by event, ended when asked, leaving nothing behind."""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from provision import config
from provision.catalog.shipped import folder
from provision.errors import UsageError

_INSTALL = "pip install 'sgprov[fleet]'"
_FORKS = 16


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How Ansible goes about it; `user_arguments` are handed to `ansible-playbook` as they are."""

    inventory: str
    forks: int = _FORKS
    connect_timeout_s: int = 10
    user_arguments: tuple[str, ...] = ()


@dataclass
class Run:
    """A run and how it ended: "successful", "failed", "canceled", or "timeout"."""

    status: str = "starting"
    output: str = ""
    cancel: threading.Event = field(default_factory=threading.Event)


class Workshop:
    """A private folder for what a run needs: removed with everything in it, secrets too."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.path = Path(tempfile.mkdtemp(prefix="sgprov-fleet-"))
        # The path of a socket has room for 107 characters, which a user's own TMPDIR may use up.
        self.control = Path(tempfile.mkdtemp(prefix="sgprov-", dir="/tmp"))

    def close(self) -> None:
        for folder_ in (self.path, self.control):
            shutil.rmtree(folder_, ignore_errors=True)

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
        run: Run | None = None,
    ) -> Run:
        """Run one of our playbooks to its end. Raises `UsageError` where Ansible cannot start at all."""
        import yaml  # noqa: PLC0415

        runner = _runner()
        run = run or Run()
        private = Path(tempfile.mkdtemp(dir=self.path))
        given = private / "values.yml"
        # In a file of ours and not as `extravars`: those are written, in clear, into the artifacts.
        given.touch(mode=0o600)
        given.write_text(yaml.safe_dump({**(values or {}), **(secrets or {})}))
        playbooks = folder("playbooks")
        arguments = ["--extra-vars", f"@{given}", *self.settings.user_arguments]
        if tags:
            arguments += ["--tags", tags]
        if limit:
            # By file: a command line holds some thousand names only.
            names = private / "limit"
            names.write_text("\n".join(limit) + "\n")
            arguments += ["--limit", f"@{names}"]

        def on_event(event: Mapping[str, Any]) -> bool:
            # Read by now: a controller that is killed leaves no key behind.
            given.unlink(missing_ok=True)
            tell(event)
            if event.get("event") == "error" or "ERROR!" in str(event.get("stdout", "")):
                run.output += str(event.get("stdout", ""))
            # The event's file is of no use to anyone.
            return False

        def work() -> None:
            with suppress(Exception):
                ended = runner.run(
                    private_data_dir=str(private),
                    project_dir=str(playbooks),
                    playbook=playbook,
                    inventory=str(Path(self.settings.inventory).absolute()),
                    cmdline=shlex.join(arguments),
                    envvars=self._variables(ssh_arguments),
                    event_handler=on_event,
                    cancel_callback=run.cancel.is_set,
                    suppress_env_files=True,
                    suppress_ansible_output=True,
                    quiet=True,
                    settings={"pexpect_timeout": 1, "idle_timeout": None},
                )
                run.status = ended.status
                if ended.status != "successful" and not run.output:
                    run.output = _last_words(ended)

        # In a thread: an interruption then reaches us, and not some place inside the runner.
        thread = threading.Thread(target=work, daemon=True)
        with config.ready_for_ansible(str(Path(sys.executable).parent)):
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

    def _variables(self, ssh_arguments: str) -> dict[str, str]:
        """What docs/fleet.md measured, and nothing of the caller's own `ansible.cfg` that would change it."""
        return {
            "ANSIBLE_CONFIG": str(folder("playbooks") / "ansible.cfg"),
            "ANSIBLE_HOME": str(self.path / "ansible"),
            "ANSIBLE_FORKS": str(self.settings.forks),
            "ANSIBLE_HOST_KEY_CHECKING": "True",
            "ANSIBLE_PIPELINING": "True",
            "ANSIBLE_TIMEOUT": str(self.settings.connect_timeout_s),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.control),
            "ANSIBLE_SSH_ARGS": _SSH,
            "ANSIBLE_SSH_EXTRA_ARGS": ssh_arguments,
            "ANSIBLE_GATHERING": "explicit",
            "ANSIBLE_CACHE_PLUGIN": "memory",
            "ANSIBLE_LOCALHOST_WARNING": "False",
            # Looking for a better one is a round trip more for every host and run; an inventory may name another.
            "ANSIBLE_PYTHON_INTERPRETER": "python3",
            "ANSIBLE_DEPRECATION_WARNINGS": "False",
        }


# A host that stops answering is noticed within a minute, and not when TCP gives up.
_SSH = "-o ControlMaster=auto -o ControlPersist=60s -o ServerAliveInterval=10 -o ServerAliveCountMax=3"


def hosts_of(inventory: str, limit: str | None) -> tuple[str, ...]:
    """The names of the hosts, from the inventory itself: a host that is never reached gives no event.

    Raises `UsageError` where there is none.
    """
    _runner()
    from ansible.inventory.manager import InventoryManager  # noqa: PLC0415
    from ansible.parsing.dataloader import DataLoader  # noqa: PLC0415

    if not Path(inventory).exists():
        raise UsageError(f"there is no inventory at `{inventory}`", hint="`playbooks/inventory.example` shows one")
    manager = InventoryManager(loader=DataLoader(), sources=[str(Path(inventory).absolute())])
    if limit:
        manager.subset(limit)
    # Plain text: Ansible's own kind of string carries where it was read.
    names = tuple("".join(host.name) for host in manager.get_hosts("all"))
    if not names:
        raise UsageError(f"no host of `{inventory}` is meant" + (f" by `--limit {limit}`" if limit else ""))
    return names


def _runner() -> Any:
    try:
        import ansible  # noqa: F401, PLC0415
        import ansible_runner  # noqa: PLC0415
    except ImportError as error:
        raise UsageError("a fleet needs ansible-core and ansible-runner", hint=_INSTALL) from error
    return ansible_runner


def _last_words(ended: Any) -> str:
    with suppress(Exception):
        return str(ended.stdout.read())[-2000:]
    return ""
