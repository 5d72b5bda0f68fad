"""The step that sees to a login, and to the keys that the container will need, before anything is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from provision import config
from provision.errors import StepFailed
from provision.host import Host, HostView
from provision.login import keys, store
from provision.report import Severity
from provision.steps.base import Applied, Progress


@dataclass(frozen=True, kw_only=True)
class RegistryLogin:
    """Whoever runs this may fetch `image`, and the variables `secrets` are set."""

    registry: str
    image: str
    secrets: tuple[str, ...] = ()

    looks_only = False

    @property
    def id(self) -> str:
        return "login"

    def preview(self) -> str:
        return f"log in to `{self.registry}`, proved by asking for `{self.image}`"

    def satisfied(self, host: HostView) -> bool:
        return store.find(host, self.registry) is not None and not self._missing()

    def check(self, view: HostView) -> None:
        if not self.satisfied(view):
            self._key()

    def apply(self, host: Host, tell: Callable[[Progress], None]) -> Applied:
        from provision.login import registry  # noqa: PLC0415  # it asks over HTTP: 70 ms that a plan does not pay

        tell(Progress(text=self.preview()))
        wanted, user, key = self._key()
        proved = registry.prove(wanted, key, user=user, image=self.image)
        finding = store.finding(store.save(host, self.registry, user=user, key=key), self.registry)
        return Applied(note=proved, findings=(finding,) if finding.severity is Severity.WARNING else ())

    def _key(self) -> tuple[keys.Service, str, keys.Key]:
        """The service, its user and the key to log in with. Raises `StepFailed` where there is none."""
        wanted = keys.service(self.registry)
        if missing := self._missing():
            raise StepFailed(
                f"{' and '.join(missing)} is not set, and the container needs it",
                hint=f"`export {missing[0]}=…`, with a key from {wanted.where}",
            )
        key = keys.from_environment(wanted)
        if key is None or wanted.user is None:
            raise StepFailed(f"there is no login for `{self.registry}`", hint=f"`sgprov login {self.registry}`")
        keys.check_shape(key, wanted)
        return wanted, wanted.user, key

    def _missing(self) -> tuple[str, ...]:
        return tuple(name for name in self.secrets if not config.secret(name))
