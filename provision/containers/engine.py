"""Ask Docker or Podman about containers, end them, and say what their errors mean."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from provision.containers.answers import as_object
from provision.containers.run import LABEL
from provision.errors import CommandFailed, ServingFailed, StepFailed
from provision.host import Host, HostView

GONE = re.compile(r"no such (?:object|container|image)|no container with name|image not known", re.IGNORECASE)
_LISTED = "{{.Names}}\t{{.Image}}"
_STOP_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A container as its engine knows it. `pid` is that of its first process on this machine, 0 when it is not running.

    `label` is whose server it is, None where it is not ours; `started` when its latest life began; `published` are the
    ports of this machine that lead to it.
    """

    name: str
    state: str
    pid: int
    exit_status: int
    out_of_memory: bool
    restarts: int
    label: str | None
    started: str = ""
    published: frozenset[int] = frozenset()

    @property
    def runs(self) -> bool:
        return self.state == "running" and self.pid > 0

    @property
    def ending(self) -> str:
        """How it ended, such as `was killed by signal 9` (status 137)."""
        if self.out_of_memory:
            return "was killed: out of memory"
        if self.exit_status > 128:  # noqa: PLR2004  # a shell's convention, which engines keep
            return f"was killed by signal {self.exit_status - 128}"
        return f"exited {self.exit_status}"


@dataclass(frozen=True, kw_only=True)
class Silent:
    """The engine gave no answer: its daemon is down, or this user may not ask."""

    reason: str


def look(view: HostView, program: str, name: str) -> Seen | Silent | None:
    """One container; None where there is none by that name."""
    outcome = view.query([program, "container", "inspect", "--format", "{{json .}}", name])
    if outcome.ok:
        return parse_container(outcome.out)
    said = outcome.err.strip() or outcome.out.strip()
    return (
        None if GONE.search(said) else Silent(reason=said.splitlines()[0] if said else f"`{program}` {outcome.ending}")
    )


def parse_container(text: str) -> Seen:
    """Parse, e.g., `{"Name": "/a", "RestartCount": 0, "State": {"Status": "exited", "ExitCode": 137, "Pid": 0}, …}`."""
    given = as_object(text)
    state, config = as_object(given.get("State")), as_object(given.get("Config"))
    return Seen(
        name=str(given.get("Name", "")).lstrip("/"),
        state=str(state.get("Status", "")),
        pid=int(state.get("Pid") or 0),
        exit_status=int(state.get("ExitCode") or 0),
        out_of_memory=bool(state.get("OOMKilled")),
        restarts=int(given.get("RestartCount") or 0),
        label=as_object(config.get("Labels")).get(LABEL),
        started=str(state.get("StartedAt") or ""),
        published=frozenset(_published(as_object(given.get("NetworkSettings")).get("Ports"))),
    )


def _published(ports: object) -> Iterator[int]:
    """Such as 8000 of `{"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8000"}], "9000/tcp": null}`."""
    for places in as_object(ports).values():
        for place in places if isinstance(places, list) else ():
            number = str(as_object(place).get("HostPort", ""))
            if number.isdecimal():
                yield int(number)


def on_port(view: HostView, port: int) -> tuple[tuple[str, str, str], ...]:
    """(engine, name, image) of the containers that publish a port of this machine."""
    found = []
    for program in ("docker", "podman"):
        outcome = view.query([program, "ps", "--filter", f"publish={port}", "--format", _LISTED])
        for line in outcome.out.splitlines() if outcome.ok else ():
            name, _, image = line.partition("\t")
            found.append((program, name, image))
    return tuple(found)


def end(host: Host, program: str, name: str, *, grace_s: float) -> bool:
    """Stop a container of ours and remove it, so that its name and port are free; whether there was one.

    Raises `ServingFailed` where the engine does not answer, or the container is somebody else's.
    """
    seen = look(host, program, name)
    if seen is None:
        return False
    if isinstance(seen, Silent):
        raise ServingFailed(f"`{program}` cannot be asked about `{name}`: {seen.reason}", hint=_remedy(seen.reason))
    if seen.label is None:
        raise ServingFailed(
            f"a container called `{name}` is here, and sgprov did not start it",
            hint=f"`{program} rm --force {name}`, or choose another name with `--name`",
        )
    if seen.state in {"running", "restarting", "paused"}:
        host.run([program, "stop", "--time", str(round(grace_s)), name], timeout_s=grace_s + _STOP_S)
    host.run([program, "rm", "--force", name], timeout_s=_STOP_S)
    return True


def explain(error: CommandFailed, *, program: str, port: int, view: HostView) -> StepFailed | ServingFailed:
    """What a `docker run` that failed says, in our words, with what to do."""
    said = str(error)
    if "port is already allocated" in said or "address already in use" in said:
        owners = " and ".join(f"the container `{name}` ({image})" for _, name, image in on_port(view, port))
        return ServingFailed(
            f"port {port} is taken by {owners or 'another process'}",
            hint="choose another with `--port`, or `--port auto`",
        )
    return meant(error, program=program)


def meant(error: CommandFailed, *, program: str) -> StepFailed:
    """What an engine's command that failed says, in our words; as it is where it says nothing that is known."""
    for sign, text, hint in _MEANINGS:
        if re.search(sign, str(error), re.IGNORECASE):
            return StepFailed(text.format(program=program), hint=hint)
    return error


def unasked(program: str, what: str, reason: str) -> StepFailed:
    """The error where an engine did not say whether it has something: that is another answer than no."""
    meanings = (text.format(program=program) for sign, text, _ in _MEANINGS if re.search(sign, reason, re.IGNORECASE))
    return StepFailed(f"`{program}` does not say whether it {what}: {next(meanings, reason)}", hint=_remedy(reason))


def _remedy(reason: str) -> str | None:
    return next((hint for sign, _, hint in _MEANINGS if re.search(sign, reason, re.IGNORECASE)), None)


_RUNTIME = "`sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker`"
# What engines print when they cannot start a container: (sign, what it means, what helps).
_MEANINGS = (
    (
        r"permission denied.*docker.*sock",
        "this user may not use {program}",
        "`sudo usermod -aG docker $USER`, then log in again",
    ),
    (
        r"cannot connect to the docker daemon|is the docker daemon running",
        "the Docker daemon is not running",
        "`sudo systemctl start docker`",
    ),
    (
        r"could not select device driver|unknown or invalid runtime name: nvidia|unknown runtime",
        "{program} cannot hand out GPUs: it has no NVIDIA runtime",
        f"`sudo apt-get install -y nvidia-container-toolkit`, then {_RUNTIME}",
    ),
    (
        r"unresolvable CDI devices|CDI device injection failed|nvidia\.com/gpu=\S+: no such file",
        "{program} does not know the GPU: there is no CDI file for it, or it is an old one",
        "`sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`",
    ),
    (
        r"exec format error|image platform .* does not match|requested image's platform",
        "the image is for another CPU architecture than this machine's",
        "`sgprov targets` names what fits",
    ),
    (r"no such image|image not known", "the image is not on this machine", "`sgprov bootstrap` pulls it"),
    (
        r"bind source path does not exist",
        "a directory that is to be mounted is not there",
        "`sgprov bootstrap` makes it",
    ),
    (
        r"nvidia-container-cli: .*(?:driver|nvml)",
        "the NVIDIA driver does not answer the container runtime",
        "`sgprov doctor`",
    ),
)
