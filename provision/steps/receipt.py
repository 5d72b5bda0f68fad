"""The step that writes down what was installed, once it is known to work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import structs

from provision import environments
from provision.containers import images
from provision.documents import decode_json
from provision.environments.receipts import LATEST
from provision.errors import StepFailed
from provision.host import Host, HostView
from provision.steps.base import Progress
from provision.steps.model_files import HubCopy
from provision.steps.switch import is_anothers


@dataclass(frozen=True, kw_only=True)
class WriteReceipt:
    """The latest receipt says the same as `receipt`, whose time is set when it is written.

    `smoke` is the file with the result of this run's smoke test, None where it has none. `program` is the container
    engine that knows the digest of the receipt's image. Several servers under one prefix have each their own as well,
    in the directory `server`. `hub` is where a model of the hub lies, whose commit is written down.
    """

    prefix: str
    receipt: environments.Receipt
    smoke: str | None = None
    program: str | None = None
    server: str | None = None
    hub: HubCopy | None = None

    @property
    def id(self) -> str:
        return "receipt"

    looks_only = False

    def preview(self) -> str:
        return f"write `{self.prefix}/receipt.json`"

    def satisfied(self, host: HostView) -> bool:
        latest = environments.read_receipt(host, self.server or self.prefix)
        # What was installed without a test and has passed one now is to say so.
        untold = self.smoke is not None and latest is not None and not latest.smoke
        # What a rollback or another server wrote last may name another environment than the one in use from now on.
        last = environments.environment_receipt(host, self.prefix) if self.receipt.environment else None
        named = self.receipt.environment is None or (last is not None and last.environment == self.receipt.environment)
        named = named or is_anothers(host, self.prefix, self.server)
        return self._whole(host).same_as(latest) and named and not untold

    def apply(self, host: Host, tell: Callable[[Progress], None]) -> str:
        tell(Progress(text=self.preview()))
        now = environments.current(host, self.prefix)
        ours = not self.receipt.environment or (now is not None and now.rsplit("/", 1)[-1] == self.receipt.environment)
        if not ours and not is_anothers(host, self.prefix, self.server):
            raise StepFailed(
                f"no receipt is written: `{self.receipt.environment}` is not in use",
                hint="without `--skip switch` the environment is put in use first",
            )
        receipt = structs.replace(self._whole(host), smoke=self._tested(host))
        # That of the prefix is of the environment in use, though it may be another server's.
        places = (*([self.prefix] if ours else []), *([self.server] if self.server else []))
        written = environments.write_receipt(host, self.prefix, receipt, places=places)
        return f"`{places[0]}/{LATEST}`, {written.time}"

    def _tested(self, view: HostView) -> dict[str, Any]:
        """What the smoke test measured; nothing where its result is damaged, for the receipt says what is installed."""
        text = view.read_state(self.smoke) if self.smoke else None
        try:
            return decode_json(text, dict[str, Any]) if text else {}
        except msgspec.DecodeError:
            return {}

    def _whole(self, view: HostView) -> environments.Receipt:
        """With what a moving name has only once it is here: the digest of the image, the commit of the model."""
        receipt = self.receipt
        if self.hub is not None:
            receipt = structs.replace(receipt, model_revision=self.hub.commit(view))
        if self.program is None or receipt.image is None:
            return receipt
        here = images.find(view, self.program, receipt.image)
        return structs.replace(receipt, image_digest=(here.digest or here.id) if here else None)
