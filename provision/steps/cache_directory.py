"""The step that gives a container a cache that its user can write, and nobody else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from provision import trust
from provision.containers.run import confined
from provision.errors import CommandFailed, StepFailed
from provision.host import Host, HostView
from provision.steps.base import Progress

_ASK_S = 60.0
_OTHERS_WRITE = 0o022


@dataclass(frozen=True, kw_only=True)
class CacheDirectory:
    """The directory `path` belongs to the user that the container runs as, and only that user can write it.

    `user` is `uid:gid`; None for the image's own user, who is asked for when the image is here (as root only).
    """

    path: str
    program: str
    image: str
    user: str | None

    looks_only = False

    @property
    def id(self) -> str:
        return "cache"

    def preview(self) -> str:
        user = f"user {self.user}" if self.user else "the user of the image"
        return f"give `{self.path}` to {user}, writable for no other"

    def satisfied(self, host: HostView) -> bool:
        info = host.stat(self.path)
        owner = self._owner(host)
        return bool(info and info.is_directory and info.uid == owner and not info.mode & _OTHERS_WRITE)

    def apply(self, host: Host, tell: Callable[[Progress], None]) -> str:
        tell(Progress(text=self.preview()))
        owner = self._owner(host)
        if owner is None:
            raise StepFailed(f"`{self.image}` does not say as which user it runs")
        if host.stat(self.path) is None:
            host.make_directory(self.path, mode=0o755)
        # It may be another user's, the image's; the way to it may not.
        trust.require(self.path, itself=False)
        info = host.stat(self.path)
        if info and info.is_directory and info.uid != owner:
            self._give(host, owner, info.owner)
        if info and info.mode & _OTHERS_WRITE:
            host.run(["chmod", "go-w", self.path], timeout_s=_ASK_S)
        if not self.satisfied(host):
            raise StepFailed(f"`{self.path}` is not a directory of user {owner}", hint=f"`ls -ld {self.path}`")
        return f"`{self.path}` belongs to user {owner}"

    def _give(self, host: Host, owner: int, before: str) -> None:
        try:
            host.run(["chown", "--recursive", "--no-dereference", str(owner), self.path], timeout_s=_ASK_S)
        except CommandFailed:
            raise StepFailed(
                f"`{self.path}` belongs to {before}, and the container runs as user {owner}",
                hint=f"`sudo chown -R {owner} {self.path}`, or name another directory with `--cache-directory`",
            ) from None

    def _owner(self, view: HostView) -> int | None:
        if self.user:
            return int(self.user.partition(":")[0])
        # The name of a user means a number only inside of the image.
        alone = ("--rm", "--network", "none", "--pull", "never", *confined())
        argv = [self.program, "run", *alone, "--entrypoint", "id", self.image, "-u"]
        outcome = view.query(argv, timeout_s=_ASK_S)
        return int(outcome.out) if outcome.ok and outcome.out.strip().isdigit() else None
