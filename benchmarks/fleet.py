#!/usr/bin/env python3
"""A fleet's wall times and bytes, on containers with sshd of this machine; prints the table of docs/fleet.md.

    python benchmarks/fleet.py [--hosts 8] [--runs 3] [--settings | --thousand]

The stacks are real ones with small locks (three wheels of 0.3 MB): what is measured is the fleet, not the wheels.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT))

import yaml  # noqa: E402
from live import hosts as containers  # noqa: E402
from live import small  # noqa: E402
from live.hosts import Hosts  # noqa: E402
from live.small import Small  # noqa: E402

BIN = Path(sys.executable).parent
STUB = """#!/bin/sh
cat {answer}
"""


@contextmanager
def fleet(count: int) -> Iterator[tuple[Small, Hosts]]:
    """A new controller with nothing cached of its own, and as many new hosts."""
    with tempfile.TemporaryDirectory() as made:
        controller = small.make(Path(made))
        server = controller.index.serve()
        there = containers.make(Path(made) / "hosts")
        try:
            for number in range(count):
                there.add(f"host-{number}")
            there.ready()
            # sgprov's own bundle is made once for a version of sgprov, not once for a run.
            controller.sgprov("bundle", "tool", "-o", f"{controller.home}/.cache/sgprov/tool-x86_64.tar")
            yield controller, there
        finally:
            there.close()
            server.shutdown()


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def bootstrap(controller: Small, there: Hosts, *more: str) -> dict[str, object]:
    arguments = ("fleet", "bootstrap", "-i", there.inventory(), "--target", "cpu", "--no-smoke", *more)
    status, found, told = controller.sgprov(*arguments)
    if status:
        raise SystemExit(f"the run failed:\n{json.dumps(found, indent=1)[:3000]}\n{told}")
    return found


def cpu_s(there: Hosts, name: str) -> float:
    """What a container has computed since it was made, in seconds: cgroups of either version."""
    script = "cat /sys/fs/cgroup/cpuacct/cpuacct.usage 2>/dev/null || sed -n 's/usage_usec //p' /sys/fs/cgroup/cpu.stat"
    count = int(there.run(name, script) or 0)
    return count / 1e9 if count > 10**8 and not Path("/sys/fs/cgroup/cgroup.controllers").exists() else count / 1e6


def ping(there: Hosts, home: Path, **settings: str) -> None:
    """`ansible -m ping` with the same way to the hosts, and a connection that is opened anew as the fleet's is."""
    with tempfile.TemporaryDirectory() as control:
        environment = {
            **os.environ,
            "HOME": str(home),
            "ANSIBLE_CONFIG": str(ROOT / "playbooks" / "ansible.cfg"),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": control,
            "ANSIBLE_PYTHON_INTERPRETER": "auto_silent",
            **settings,
        }
        command = [str(BIN / "ansible"), "-i", there.inventory(), "all", "-m", "ansible.builtin.ping"]
        subprocess.run(command, check=True, capture_output=True, env=environment)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=8)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--settings", action="store_true", help="compare Ansible's settings, nothing else")
    parser.add_argument("--thousand", action="store_true", help="ask 1,000 simulated hosts")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, shared by the controller and all hosts; load {os.getloadavg()[0]:.1f}")
    if arguments.thousand:
        thousand()
        return 0
    if arguments.settings:
        with fleet(arguments.hosts) as (controller, there):
            settings(controller, there, arguments.runs)
        return 0
    walls, sent = {}, {}
    for count, batch in ((1, "100%"), (arguments.hosts, "100%"), (arguments.hosts, "1,25")):
        with fleet(count) as (controller, there):
            name = f"{count} hosts, --batch {batch}"
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            before = used.ru_utime + used.ru_stime
            walls[name] = timed(lambda: bootstrap(controller, there, "--batch", batch))  # noqa: B023  # called here
            sent[name] = sum(controller.index.sent.values())
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            hosts_s, ours_s = sum(cpu_s(there, one) for one in there.addresses), used.ru_utime + used.ru_stime - before
            print(
                f"{name}: {walls[name]:.1f} s, {sent[name]} bytes from the index; CPU: hosts {hosts_s:.1f} s, "
                f"controller {ours_s:.1f} s, so at least {(hosts_s + ours_s) / (os.cpu_count() or 1):.1f} s here",
                flush=True,
            )
            if batch == "1,25":
                compare(controller, there, arguments.runs)
    return 0


def compare(controller: Small, there: Hosts, runs: int) -> None:
    """Nothing to do, beside a ping: in turns, because other work on the machine is not constant."""
    no_op, pings = [], []
    for _ in range(runs):
        no_op.append(timed(lambda: bootstrap(controller, there)))
        pings.append(timed(lambda: ping(there, controller.home)))
    first, second = statistics.median(no_op), statistics.median(pings)
    print(f"nothing to do: {first:.2f} s (min {min(no_op):.2f}), ansible ping: {second:.2f} s (min {min(pings):.2f}), ")
    print(f"ratio of medians {first / second:.2f}, of minima {min(no_op) / min(pings):.2f}", flush=True)


# Each other choice beside what docs/fleet.md chose: variables of Ansible, and what the play itself says.
_CHOICES: dict[str, tuple[dict[str, str], dict[str, object]]] = {
    "pipelining off": ({"ANSIBLE_PIPELINING": "False"}, {}),
    "no ControlPersist": ({"ANSIBLE_SSH_ARGS": "-o ControlMaster=no"}, {}),
    "forks 2": ({"ANSIBLE_FORKS": "2"}, {}),
    "forks 4": ({"ANSIBLE_FORKS": "4"}, {}),
    "strategy free": ({}, {"strategy": "free"}),
    "facts gathered": ({}, {"gather_facts": True}),
    "few facts gathered": ({}, {"gather_facts": True, "gather_subset": ["!all", "!min", "distribution"]}),
    "interpreter looked for": ({"ANSIBLE_PYTHON_INTERPRETER": "auto_silent"}, {}),
}
_TASKS = 5


def settings(controller: Small, there: Hosts, runs: int) -> None:
    """A play of some small tasks with each choice in turn, and as chosen before and after each: other work on the
    machine is not constant.
    """

    def once(variables: dict[str, str], words: dict[str, object]) -> tuple[float, float]:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        wall = timed(lambda: play(there, controller.home, variables, words))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    ratios: dict[str, list[tuple[float, float]]] = {name: [] for name in _CHOICES}
    chosen = [once({}, {})]
    for _ in range(runs):
        for name, (variables, words) in _CHOICES.items():
            wall, cpu = once(variables, words)
            chosen.append(once({}, {}))
            (wall_before, cpu_before), (wall_after, cpu_after) = chosen[-2:]
            ratios[name].append((2 * wall / (wall_before + wall_after), 2 * cpu / (cpu_before + cpu_after)))
    walls, cpus = zip(*chosen, strict=True)
    print(f"{_TASKS} tasks, {len(there.addresses)} hosts, {runs} rounds, load {os.getloadavg()[0]:.1f}")
    print(f"as chosen: {statistics.median(walls):.2f} s, controller's CPU {statistics.median(cpus):.2f} s")
    for name, found in ratios.items():
        wall, cpu = (statistics.median(one[place] for one in found) for place in (0, 1))
        spread = f"{min(one[0] for one in found):.2f} to {max(one[0] for one in found):.2f}"
        print(f"{name:24} wall x {wall:.2f} ({spread})   controller's CPU x {cpu:.2f}", flush=True)


def play(there: Hosts, home: Path, variables: dict[str, str], words: dict[str, object]) -> None:
    """A play of some small tasks, with playbooks/ansible.cfg but for what is given; connections are opened anew."""
    tasks = [{"name": f"Task {number}", "ansible.builtin.ping": {}} for number in range(_TASKS)]
    with tempfile.TemporaryDirectory() as control:
        path = Path(control) / "play.yml"
        path.write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": tasks, **words}]))
        environment = {
            **os.environ,
            "HOME": str(home),
            "ANSIBLE_CONFIG": str(ROOT / "playbooks" / "ansible.cfg"),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": control,
            **variables,
        }
        command = [str(BIN / "ansible-playbook"), "-i", there.inventory(), str(path)]
        subprocess.run(command, check=True, capture_output=True, env=environment)


def thousand() -> None:
    """1,000 simulated hosts: Ansible's own processes for each, a stub that prints what a real host answered."""
    with tempfile.TemporaryDirectory() as made:
        controller = small.make(Path(made))
        answer = Path(made) / "answer.json"
        ran = subprocess.run(
            [sys.executable, "-m", "provision", "bootstrap", "--target", "cpu", "--dry-run", "--no-smoke", "--json"],
            env=controller.environment(),
            capture_output=True,
            check=True,
        )
        answer.write_bytes(ran.stdout)
        stub = Path(made) / "tool" / "versions"
        digest = subprocess.run(
            [sys.executable, "-c", "from provision.bundle import own; print(own.wheel_digest()[:12])"],
            env=controller.environment(),
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        program = stub / digest / "bin" / "sgprov"
        program.parent.mkdir(parents=True)
        program.write_text(STUB.format(answer=answer))
        program.chmod(0o755)
        link = Path(made) / "tool" / "bin" / "sgprov"
        link.parent.mkdir()
        link.symlink_to(f"../versions/{digest}/bin/sgprov")
        common = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "sgprov_host_command": str(link),
        }
        inventory = Path(made) / "inventory.yml"
        inventory.write_text(yaml.safe_dump({"all": {"hosts": {f"h{n:04}": {} for n in range(1000)}, "vars": common}}))
        start = time.perf_counter()
        status, found, told = controller.sgprov(
            "fleet", "bootstrap", "-i", str(inventory), "--target", "cpu", "--no-smoke", "--dry-run",
            "--html", f"{made}/page.html",
        )  # fmt: skip
        if status:
            raise SystemExit(told[-3000:])
        # The largest of our descendants: the controller, or one of Ansible's processes.
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(f"1,000 simulated hosts asked and reported: {time.perf_counter() - start:.1f} s, {found['summary']}")
        print(f"largest process {peak:.0f} MiB, page {Path(made, 'page.html').stat().st_size / 1e6:.2f} MB")
        shutil.rmtree(controller.home, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
