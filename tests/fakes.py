"""A machine in memory, and wheels made on the spot."""

from __future__ import annotations

import base64
import hashlib
import os
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from provision.errors import CommandFailed, UntrustedPath
from provision.host import DiskSpace, Listener, Outcome, PathInfo, Process, Reach

GIB = 1 << 30


class FakeHost:
    """Files, links and answers to commands. A command nobody gave an answer for is not installed.

    `answers` maps the beginning of a command line to its outcome; what `run` and `signal` were called with is kept.
    """

    name = "fake"
    recorded = False

    def __init__(self, files: Mapping[str, str] | None = None, answers: Mapping[str, Outcome] | None = None) -> None:
        self.files = dict(files or {})
        self.links: dict[str, str] = {}
        self.answers = dict(answers or {})
        self.disks: dict[str, int] = {"/": 1000 * GIB}
        self.variables: dict[str, str] = {}
        self.reached: dict[str, Reach] = {}
        self.paths: dict[str, PathInfo] = {}
        self.unbindable: dict[str, str] = {}
        self.ears: list[Listener] = []
        self.running: list[Process] = []
        self.untrusted: set[str] = set()
        self.commands: list[tuple[str, ...]] = []
        self.given: list[Mapping[str, str | None]] = []
        self.stdins: list[str | None] = []
        self.signals: list[tuple[int, int]] = []
        self.on_run: Callable[[tuple[str, ...]], None] = lambda _: None
        self.on_signal: Callable[[int, int], None] = lambda _pid, _number: None

    def query(self, argv: Sequence[str], *, timeout_s: float = 10) -> Outcome:
        line = " ".join(argv)
        found = next((outcome for start, outcome in self.answers.items() if line.startswith(start)), None)
        return found or Outcome(tuple(argv), None, installed=False)

    def read(self, path: str) -> str | None:
        return self.files.get(self._followed(path))

    def read_bytes(self, path: str, limit: int) -> bytes | None:
        text = self.read(path)
        return None if text is None else text.encode()[:limit]

    def require_trusted(self, path: str) -> None:
        if path in self.untrusted:
            raise UntrustedPath(f"`{path}` belongs to mallory", hint=f"`mv {path} {path}.untrusted`")

    def read_state(self, path: str) -> str | None:
        return self.read(path)

    def read_link(self, path: str) -> str | None:
        return self.links.get(path)

    def glob(self, pattern: str) -> tuple[str, ...]:
        known = {str(parent) for path in self.files for parent in Path(path).parents} | set(self.files)
        wanted = pattern.split("/")
        return tuple(
            sorted(
                path
                for path in known
                if len(path.split("/")) == len(wanted)
                and all(fnmatchcase(*pair) for pair in zip(path.split("/"), wanted, strict=True))
            )
        )

    def stat(self, path: str) -> PathInfo | None:
        path = self._followed(path)
        if path in self.paths:
            return self.paths[path]
        text, inside = self.files.get(path), any(known.startswith(f"{path}/") for known in self.files)
        if text is None and not inside:
            return None
        return info(size=len(text or ""), is_directory=inside)

    def disk(self, path: str) -> DiskSpace | None:
        mount = max((mount for mount in self.disks if Path(path).is_relative_to(mount)), key=len, default=None)
        if mount is None:
            return None
        return DiskSpace(path=path, mount=mount, filesystem="ext4", total=2000 * GIB, free=self.disks[mount])

    def listeners(self) -> tuple[Listener, ...]:
        return tuple(self.ears)

    def processes(self) -> tuple[Process, ...]:
        return tuple(self.running)

    def variable(self, name: str) -> str | None:
        return self.variables.get(name)

    def environment(self) -> dict[str, str]:
        return dict(self.variables)

    def reach(self, host: str, port: int, *, timeout_s: float) -> Reach | None:
        return self.reached.get(f"{host}:{port}")

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float = 10,
        variables: Mapping[str, str | None] | None = None,
        directory: str | None = None,
        on_line: Callable[[str], None] | None = None,
        stdin: str | None = None,
        umask: int | None = None,
        pass_fds: Sequence[int] = (),
        end_when: Callable[[int], bool] | None = None,
    ) -> Outcome:
        self.stdins.append(stdin)
        self.commands.append(tuple(argv))
        self.given.append(variables or {})
        self.on_run(tuple(argv))
        outcome = self.query(argv)
        for line in outcome.out.splitlines() if on_line else ():
            on_line(line) if on_line else None
        if not outcome.ok:
            raise CommandFailed(f"`{' '.join(argv)}` {outcome.ending}:\n{outcome.out}")
        return outcome

    def start(self, argv: Sequence[str], *, log: str, variables: Mapping[str, str | None] | None = None) -> int:
        raise NotImplementedError

    def bind_problem(self, address: str) -> str | None:
        return self.unbindable.get(address)

    def exit_status(self, pid: int) -> int | None:
        return None

    def signal(self, pid: int, number: int, *, only_if: Callable[[], bool] = lambda: True) -> bool:
        if not only_if():
            return False
        self.signals.append((pid, number))
        self.on_signal(pid, number)
        return True

    def write(self, path: str, text: str, *, mode: int = 0o644) -> None:
        self.files[self._followed(path)] = text

    def write_output(self, path: str, text: str, *, mode: int = 0o644) -> None:
        self.write(path, text, mode=mode)

    def open_state(self, path: str, flags: int, *, mode: int = 0o600) -> int:
        return os.memfd_create(path.rpartition("/")[2])

    def make_directory(self, path: str, *, mode: int = 0o755) -> None:
        self.paths.setdefault(path, info(mode=mode, is_directory=True))

    def move(self, path: str, target: str) -> None:
        self.files[target] = self.files.pop(path)

    def link(self, path: str, target: str) -> None:
        self.links[path] = target

    def remove(self, path: str) -> None:
        self.files = {
            name: text for name, text in self.files.items() if name != path and not name.startswith(f"{path}/")
        }

    def _followed(self, path: str) -> str:
        for link, target in self.links.items():
            if path.startswith(f"{link}/"):
                return f"{Path(link).parent}/{target}{path[len(link) :]}"
        return path


def info(
    *, mode: int = 0o755, owner: str = "me", size: int = 0, is_directory: bool = False, writable: bool = True
) -> PathInfo:
    return PathInfo(mode=mode, uid=1000, owner=owner, size=size, is_directory=is_directory, writable=writable)


def answer(out: str = "", *, rc: int = 0, err: str = "") -> Outcome:
    return Outcome((), rc, out, err)


def make_wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    *,
    data: bytes = b"",
    modules: Mapping[str, str] | None = None,
    top: Mapping[str, str] | None = None,
) -> str:
    """A wheel with one module and, with `data`, one file of it, and with `modules` more; its line for a lock.

    `top` are files beside its package, which another wheel may bring, too.
    """
    information = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": f"VERSION = {version!r}\n".encode(),
        f"{name}/data.bin": data,
        **{f"{name}/{module}.py": text.encode() for module, text in (modules or {}).items()},
        **{file: text.encode() for file, text in (top or {}).items()},
        f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{information}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{information}/RECORD"] = (record(files) + f"{information}/RECORD,,\n").encode()
    path = folder / f"{name}-{version}-py3-none-any.whl"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for inside, content in files.items():
            archive.writestr(inside, content)
    return (
        f"{name.replace('_', '-')}=={version} \\\n    --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"
    )


def record(files: Mapping[str, bytes]) -> str:
    """RECORD's lines, such as `alpha/__init__.py,sha256=pHZ…,18`."""
    lines = []
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(content)}\n")
    return "".join(lines)


def untar(path: Path, folder: Path) -> None:
    """Unpack as the program `tar` does; Debian 12's Python has no filters yet, newer ones want to be told of one."""
    with tarfile.open(path) as tar:
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        tar.extractall(folder)  # noqa: S202  # what the tests packed themselves
