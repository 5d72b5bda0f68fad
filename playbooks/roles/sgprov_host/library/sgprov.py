#!/usr/bin/python
"""Runs sgprov on a host and hands its report to Ansible; Python 3.10 and the standard library are all it needs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sgprov
short_description: Run sgprov on a host
description:
  - Runs one command of sgprov with C(--json) and returns its report.
  - A long command is started in the background and followed, so that a broken connection does not break the work.
options:
  executable:
    description: The path of sgprov on the host.
    type: str
    required: true
  command:
    description: The command and its arguments, without C(--json).
    type: list
    elements: str
    required: true
  state:
    description:
      - C(ran) runs the command to its end.
      - C(asked) does so with C(--dry-run), and is content with a host that has no sgprov yet.
      - C(started) starts it in the background, unless the same command runs there already.
      - C(finished) looks how far that is.
      - C(stopped) ends it.
    type: str
    choices: [ran, asked, started, finished, stopped]
    default: ran
  expect:
    description: The version of sgprov that is to be there, as the first letters of its wheel's sha256.
    type: str
  jobs:
    description: Where the background's output and result lie.
    type: path
    default: ~/.local/state/sgprov/fleet
  keys_file:
    description: A file of C(NAME=value) lines that only the user can read; they are put in the environment.
    type: path
  wheels:
    description: Where all wheels are taken from, instead of the index.
    type: str
  facts:
    description: Say what the machine is, too.
    type: bool
    default: false
  timeout:
    description: How many seconds the command may take.
    type: int
    default: 14400
author:
  - sgprov
"""

EXAMPLES = r"""
- name: Look for what is wrong
  sgprov:
    executable: /opt/sgprov/bin/sgprov
    command: [doctor]
"""

RETURN = r"""
report:
  description: The object that sgprov printed.
  type: dict
  returned: when it printed one
rc:
  description: Its exit status.
  type: int
  returned: always
finished:
  description: Whether there is nothing left to wait for.
  type: bool
  returned: always
machine:
  description: What the machine is, in a few words.
  type: dict
  returned: when asked for, and when a host that was asked has no answer
progress:
  description: The last line of what it said.
  type: str
  returned: while it runs
"""

import contextlib  # noqa: E402  # Ansible wants the documentation first
import grp  # noqa: E402
import hashlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import platform  # noqa: E402
import pwd  # noqa: E402
import re  # noqa: E402
import shlex  # noqa: E402
import signal  # noqa: E402
import stat  # noqa: E402
import subprocess  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402

_NOT_INSTALLED = 127
_TAIL_BYTES = 4096
_DETAIL = 1500


class Job:
    """A command in the background: `job.json` says what runs, `out` is its report, `err` its words, `rc` the end."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder).expanduser()

    def read(self, name: str) -> str:
        return _own_text(self.folder / name) or ""

    @property
    def known(self) -> dict:
        try:
            return json.loads(self.read("job.json"))
        except ValueError:
            return {}

    @property
    def running(self) -> bool:
        pid = self.known.get("pid")
        if not pid or self.read("rc"):
            return False
        # Another process may have got the number since.
        return self.known.get("started") == _start_time(pid)

    @property
    def progress(self) -> str:
        lines = [line.strip() for line in self.read("err")[-_TAIL_BYTES:].splitlines() if line.strip()]
        return lines[-1][:300] if lines else ""

    def start(self, argv: list, environment: dict, timeout: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _refuse_foreign(self.folder)
        for name in ("out", "err", "rc", "job.json"):
            (self.folder / name).unlink(missing_ok=True)
        # `timeout` is the deadline: whoever started this may be gone by then.
        command = f"timeout -k 30 {timeout} {shlex.join(argv)} >out 2>err; echo $? >rc.new; mv rc.new rc"
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            close_fds=True,
        )
        known = {"argv": argv, "pid": process.pid, "started": _start_time(process.pid), "wheels": _mark(environment)}
        (self.folder / "job.json").write_text(json.dumps(known))

    def stop(self) -> bool:
        if not self.running:
            return False
        # SIGINT to the group: sgprov cleans up after itself; the shell waits for it.
        for number, patience in ((signal.SIGINT, 20.0), (signal.SIGKILL, 2.0)):
            with contextlib.suppress(OSError):
                os.killpg(self.known["pid"], number)
                for child in _descendants(self.known["pid"]):
                    os.kill(child, number)
            end = time.monotonic() + patience
            while self.running and time.monotonic() < end:
                time.sleep(0.2)
        return True


class Foreign(Exception):
    """Another user could decide what stands there."""


def _refuse_foreign(path: Path) -> None:
    """Raise `Foreign` for a place that is neither this user's nor root's, or that others can write; also above it.

    A folder that all may write and that is sticky, as `/tmp` is, may stand above: what is ours in it nobody can move.
    """
    place = Path(os.path.realpath(path.parent)) / path.name
    for each in (place, *place.parents):
        try:
            status = each.lstat()
        except FileNotFoundError:
            continue
        sticky = each != place and stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
        # Whoever owns `/` has the machine anyway; in a container it may be nobody.
        if stat.S_ISLNK(status.st_mode) or (status.st_uid not in {0, os.geteuid()} and each != Path("/")):
            raise Foreign(f"{each} belongs to another user, or is a link: {path} is not used")
        others = status.st_mode & stat.S_IWOTH
        others |= status.st_mode & stat.S_IWGRP and not _is_private_group(status.st_uid, status.st_gid)
        if others and not sticky:
            raise Foreign(f"{each} can be written by other users: {path} is not used (chmod go-w {each})")


def _refuse_foreign_program(executable: str) -> None:
    """Raise `Foreign` where another user could have put it there, or could; one that is to be installed too."""
    for path in (os.path.dirname(executable), executable) if "/" in executable else ():
        _refuse_foreign(Path(os.path.realpath(path)))


def _is_private_group(uid: int, gid: int) -> bool:
    """Whether a group is called as its owner's, who is its only member: so Ubuntu and Fedora make home directories."""
    try:
        owner, group = pwd.getpwuid(uid), grp.getgrgid(gid)
    except KeyError:
        return False
    if gid == 0 or group.gr_name != owner.pw_name or owner.pw_gid != gid or set(group.gr_mem) - {owner.pw_name}:
        return False
    return all(user.pw_uid == uid for user in pwd.getpwall() if user.pw_gid == gid)


def _own_text(path: Path) -> str | None:
    """What a file of ours holds, None where there is none. Raises `Foreign`."""
    _refuse_foreign(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with open(descriptor, encoding="utf-8", errors="replace") as stream:
        return stream.read() if stat.S_ISREG(os.fstat(descriptor).st_mode) else None


def _mark(environment: dict) -> str:
    """Which controller the wheels come from, without its token."""
    return hashlib.sha256(environment.get("SGPROV_WHEELS", "").encode()).hexdigest()[:16]


def _descendants(pid: int) -> list:
    found = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in listed.read_text().split():
            found += [int(child), *_descendants(int(child))]
    return found


def _start_time(pid: int) -> str:
    """When a process started, in ticks, from `/proc/<pid>/stat`; empty where there is none or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def _environment(module: AnsibleModule) -> dict:
    environment = dict(os.environ)
    if module.params["wheels"]:
        environment["SGPROV_WHEELS"] = module.params["wheels"]
    if module.params["keys_file"]:
        for line in (_own_text(Path(module.params["keys_file"])) or "").splitlines():
            name, separator, value = line.partition("=")
            if separator and re.fullmatch(r"[A-Z][A-Z0-9_]*", name):
                environment[name] = value
                module.no_log_values.add(value)
    return environment


def _installed(executable: str) -> str:
    """Which sgprov is there: the folder that its link leads into is called after it."""
    try:
        link = os.readlink(executable)
    except OSError:
        return "unknown" if os.path.exists(executable) else ""
    return link.split("/versions/")[-1].split("/")[0] if os.path.exists(executable) else ""


def _report(text: str) -> dict:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _end(module: AnsibleModule, rc: int, out: str, err: str, **more: object) -> None:
    """Hand over the report; a status other than 0 is a failure, told in sgprov's own words."""
    report = _report(out)
    result = {"rc": rc, "report": report, "changed": bool(report.get("changed")), "finished": True, **more}
    wanted = module.params["facts"] or (module.params["state"] == "asked" and rc != 0)
    if wanted:
        result["machine"] = _machine(module)
    if rc == 0 and report:
        module.exit_json(**result)
    module.fail_json(msg=_message(rc, report, err), **result)


def _machine(module: AnsibleModule) -> dict:
    """GPUs, driver, operating system, as `sgprov facts` has them; empty where it gives no answer."""
    command = [os.path.expanduser(module.params["executable"]), "facts", "--json"]
    try:
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    facts = _report(ended.stdout.decode(errors="replace"))
    system = facts.get("os") or {}
    return {
        "arch": facts.get("arch"),
        "os": f"{system.get('id')} {system.get('version')}" if system else None,
        "glibc": facts.get("glibc"),
        "driver": (facts.get("driver") or {}).get("version"),
        "gpus": [gpu.get("name") for gpu in facts.get("gpus") or ()],
    }


def _message(rc: int, report: dict, err: str) -> str:
    error = report.get("error") or {}
    if error:
        return error.get("text", "") + (f"\nhint: {error['hint']}" if error.get("hint") else "")
    failed = next((step for step in report.get("steps", ()) if step.get("status") == "failed"), None)
    if failed:
        return f"{failed['step']}: {failed.get('error')}" + (f"\nhint: {failed['hint']}" if failed.get("hint") else "")
    errors = [finding for finding in report.get("findings", ()) if finding.get("severity") == "error"]
    if errors:
        return "\n".join(f"{finding['check']}: {finding['text']}" for finding in errors)[:_DETAIL]
    return f"sgprov ended with status {rc}: {err.strip()[-_DETAIL:]}"


def _run(module: AnsibleModule, argv: list, **more: object) -> None:
    try:
        ended = subprocess.run(
            argv,
            env=_environment(module),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=module.params["timeout"],
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError:
        module.fail_json(msg=f"there is no sgprov at {argv[0]}", rc=_NOT_INSTALLED, finished=True, **more)
    except subprocess.TimeoutExpired:
        module.fail_json(msg=f"no answer in {module.params['timeout']} s", rc=124, finished=True, **more)
    _end(module, ended.returncode, ended.stdout, ended.stderr, **more)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "executable": {"type": "str", "required": True},
            "command": {"type": "list", "elements": "str", "required": True},
            "state": {
                "type": "str",
                "choices": ["ran", "asked", "started", "finished", "stopped"],
                "default": "ran",
            },
            "expect": {"type": "str"},
            "jobs": {"type": "path", "default": "~/.local/state/sgprov/fleet"},
            "keys_file": {"type": "path", "no_log": False},
            "wheels": {"type": "str", "no_log": True},
            "facts": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 14400},
        },
        supports_check_mode=True,
    )
    # What it writes is nobody else's; sgprov sets a mask of its own for what others are to read.
    os.umask(0o077)
    try:
        _do(module)
    except Foreign as error:
        module.fail_json(msg=str(error), rc=5, finished=True)


def _do(module: AnsibleModule) -> None:
    given = module.params
    executable = os.path.expanduser(given["executable"])
    _refuse_foreign_program(executable)
    argv = [executable, *given["command"]]
    # What stands behind `--` is the engine's.
    end = argv.index("--") if "--" in argv else len(argv)
    argv[end:end] = ["--json"]
    job = Job(given["jobs"])
    state = given["state"]
    if state == "asked":
        _ask(module, argv, job)
    elif state == "stopped":
        running = job.running
        module.exit_json(changed=job.stop() if not module.check_mode else running, rc=0, finished=True)
    elif state == "finished" and not module.check_mode:
        if job.running:
            module.exit_json(changed=False, rc=0, finished=False, progress=job.progress)
        rc = job.read("rc").strip()
        _end(module, int(rc) if rc.isdigit() else 1, job.read("out"), job.read("err") or "it was stopped from outside")
    elif state == "started":
        _start(module, argv, job)
    elif module.check_mode:
        _run(module, _dry(argv))
    else:
        _run(module, argv)


def _dry(argv: list) -> list:
    return [*argv[:2], "--dry-run", *argv[2:]] if argv[1] == "bootstrap" else argv


def _start(module: AnsibleModule, argv: list, job: Job) -> None:
    """Begin in the background, unless it is under way already; in check mode say what would be done."""
    if module.check_mode and not _installed(argv[0]):
        module.exit_json(changed=True, rc=0, finished=True, report={}, msg="it can say more once sgprov is there")
    if module.check_mode:
        _run(module, _dry(argv))
    if job.running and job.known.get("argv") != argv:
        module.fail_json(msg=f"another run is under way: {shlex.join(job.known['argv'][1:])}", rc=5, finished=True)
    environment = _environment(module)
    if job.running and module.params["wheels"] and job.known.get("wheels") != _mark(environment):
        # It takes its wheels from a controller that is gone; what it has fetched is kept.
        job.stop()
    if not job.running:
        job.start(argv, environment, module.params["timeout"])
    module.exit_json(changed=False, rc=0, finished=False)


def _ask(module: AnsibleModule, argv: list, job: Job) -> None:
    """What this host has, and what would be done; a host without the wanted sgprov only says so."""
    tool = _installed(argv[0])
    wanted = module.params["expect"]
    known = {
        "arch": platform.machine(),
        "home": os.path.expanduser("~"),
        "tool": tool,
        "needs_tool": not tool or bool(wanted and tool != wanted),
        "running": job.running,
    }
    if known["needs_tool"]:
        module.exit_json(changed=True, rc=0, finished=True, report={}, **known)
    _run(module, _dry(argv), **known)


if __name__ == "__main__":
    main()
