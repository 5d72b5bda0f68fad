"""The step that writes down what was installed, once it is known to work."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from msgspec import structs

from provision import environments
from provision.host import Host, HostView
from provision.steps.base import Progress


@dataclass(frozen=True, kw_only=True)
class WriteReceipt:
    """The latest receipt says the same as `receipt`, whose time is set when it is written.

    `smoke` is the file with the result of the smoke test, where there was one.
    """

    prefix: str
    receipt: environments.Receipt
    smoke: str | None = None

    @property
    def id(self) -> str:
        return "receipt"

    looks_only = False

    def preview(self) -> str:
        return f"write `{self.prefix}/receipt.json`"

    def satisfied(self, host: HostView) -> bool:
        return self.receipt.same_as(environments.read_receipt(host, self.prefix))

    def apply(self, host: Host, tell: Callable[[Progress], None]) -> str:
        tell(Progress(text=self.preview()))
        text = host.read(self.smoke) if self.smoke else None
        receipt = structs.replace(self.receipt, smoke=json.loads(text)) if text else self.receipt
        written = environments.write_receipt(host, self.prefix, receipt)
        return f"`{self.prefix}/receipt.json`, {written.time}"
