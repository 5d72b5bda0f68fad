"""The step that has a container image on this machine, for its architecture, with room for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from provision.containers import images
from provision.containers.images import Remote
from provision.errors import CheckFailed, StepFailed
from provision.host import RESERVE_BYTES, Host, HostView
from provision.report import Finding, Severity
from provision.steps.base import Applied, Progress
from provision.steps.environment import estimate

_GB = 1e9
_GIB = 1024**3
# Layers lie on the disk packed while they are unpacked to about twice that.
_UNPACKED = 3


@dataclass(frozen=True, kw_only=True)
class PullImage:
    """The image `reference` is here, for `arch`. `instead` names one that is for it, where this one may not be.

    `known` is the digest that the reference had when this server was last verified with it: a tag may move.
    """

    program: str
    reference: str
    arch: str
    size_gib: float | None = None
    instead: str | None = None
    known: str | None = None

    looks_only = False

    @property
    def id(self) -> str:
        return "image"

    def preview(self) -> str:
        return f"pull `{self.reference}` for {self.arch}"

    def estimate(self) -> str | None:
        """Bytes and time of what `apply` will fetch; None where they are not known."""
        return estimate(int(self.size_gib * _GIB)) if self.size_gib else None

    def satisfied(self, host: HostView) -> bool:
        here = images.find(host, self.program, self.reference)
        return here is not None and here.arch == self.arch

    def moved(self, view: HostView) -> Finding | None:
        """That the image which is here is another than the one that the last receipt names."""
        if self.known is None:
            return None
        here = images.find(view, self.program, self.reference)
        now = (here.digest or here.id) if here else None
        if now in {None, self.known}:
            return None
        return Finding(
            check="image-moved",
            severity=Severity.WARNING,
            text=f"`{self.reference}` is another image than the one that was verified: {now}, not {self.known}",
            fix=(f"`--image {_untagged(self.reference)}@{self.known}` stays with that one",),
            data={"known": self.known, "now": now},
        )

    def check(self, view: HostView) -> None:
        if not self.satisfied(view):
            self._check_disk(view, None)

    def apply(self, host: Host, tell: Callable[[Progress], None]) -> Applied:
        tell(Progress(text=self.preview()))
        remote = images.ask(host, self.reference, self.arch)
        if remote and remote.archs and self.arch not in remote.archs:
            raise self._wrong(", ".join(remote.archs))
        here = images.find(host, self.program, self.reference)
        if remote is None and here and here.arch != self.arch:
            raise self._wrong(here.arch)
        self._check_disk(host, remote)

        def progress(text: str, done: int | None, total: int | None) -> None:
            tell(Progress(text=text, done=done, total=total))

        images.pull(host, self.program, self.reference, arch=self.arch, remote=remote, tell=progress)
        here = images.find(host, self.program, self.reference)
        if here is None:
            raise StepFailed(f"`{self.program} pull` ended well, and `{self.reference}` is not here")
        if here.arch != self.arch:
            raise self._wrong(here.arch)
        moved = self.moved(host)
        return Applied(
            findings=(moved,) if moved else (),
            note=f"`{self.reference}`, {here.size_bytes / _GB:.1f} GB, {here.digest or here.id}",
            data={"image_digest": here.digest, "image_id": here.id},
        )

    def _wrong(self, archs: str) -> StepFailed:
        return StepFailed(
            f"`{self.reference}` is for {archs}, this machine is {self.arch}",
            hint=f"take `{self.instead}`, which is for {self.arch}" if self.instead else "`sgprov targets`",
        )

    def _check_disk(self, host: HostView, remote: Remote | None) -> None:
        size = remote.download_bytes if remote else int((self.size_gib or 0) * _GIB)
        place = images.store(host, self.program)
        disk = host.disk(place)
        needed = size * _UNPACKED + RESERVE_BYTES
        if size and disk and disk.free < needed:
            raise CheckFailed(
                f"`{self.reference}` needs {needed / _GB:.1f} GB under `{place}`, {disk.free / _GB:.1f} GB are free",
                hint=f"`{self.program} system df` says what lies there; `{self.program} image prune` helps",
            )


def _untagged(reference: str) -> str:
    """Such as `host:5000/a` of `host:5000/a:1`."""
    path, _, last = reference.rpartition("/")
    return f"{path}/{last.partition(':')[0]}".lstrip("/")
