"""A bootstrap from a bundle: the machine's wishes, variables and wheels, all taken from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from provision.bundle import known, model, use
from provision.bundle.reading import Tell, nobody
from provision.bundle.use import Bundle
from provision.catalog.load import Catalog
from provision.config import Options
from provision.decision.choose import places_of
from provision.errors import UsageError
from provision.host.local import LocalHost
from provision.plan import Plan
from provision.steps.environment import Environment


@dataclass(frozen=True, kw_only=True)
class Carried:
    """A verified bundle and what it makes of the call: `wishes` name its target, `host` starts nothing that fetches."""

    bundle: Bundle
    wishes: Options
    host: LocalHost
    prefix: str

    @classmethod
    def open(cls, host: LocalHost, path: Path, wishes: Options, tell: Tell = nobody) -> Carried:
        """Raises what `use.verify` raises, and `UsageError` where the wishes are for something else."""
        bundle = use.verify(path, arch=host.query(["uname", "-m"]).out.strip(), tell=tell)
        manifest = bundle.manifest
        if manifest.target is None or manifest.python is None:
            raise UsageError(f"`{path}` holds sgprov alone", hint="make one with `sgprov bundle create --target`")
        for name, wished, held in (
            ("target", wishes.target, manifest.target),
            ("stack", wishes.stack, manifest.stack),
        ):
            if wished and wished != held:
                raise UsageError(f"the bundle is for {name} `{held}`, not `{wished}`", hint=f"leave `--{name}` out")
        known.require(manifest)
        wishes = replace(wishes, target=manifest.target, stack=manifest.stack, python=wishes.python or manifest.python)
        layout = Catalog().target(manifest.target).layout
        prefix = places_of(layout, wishes, host.variable("HOME") or "/root").prefix
        host.require_trusted(prefix)
        # Whatever still wants to ask the network is to fail at once and by name, not after a minute of waiting.
        variables = {"UV_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
        if manifest.interpreter:
            # uv reads a list on this machine without a network; the tarball it names lies beside it.
            variables = {"UV_PYTHON_DOWNLOADS_JSON_URL": use.downloads_list(prefix), "HF_HUB_OFFLINE": "1"}
        return cls(bundle=bundle, wishes=wishes, host=host.with_variables(variables), prefix=prefix)

    @property
    def wheels(self) -> str:
        return str(self.bundle.place(self.prefix) / model.WHEELS)

    def unpack(self, plan: Plan, tell: Tell = nobody) -> None:
        """Have its files at hand, unless the environment is complete. Raises `UsageError` where locks differ."""
        lock, manifest = plan.decision.lock, self.bundle.manifest
        if lock is None or lock.digest != manifest.lock_digest:
            raise UsageError(
                f"the bundle holds `{manifest.lock}` as sgprov {manifest.sgprov} pins it; this one pins other wheels",
                hint="install the sgprov of the bundle: `sh install.sh` in it",
            )
        if all(step.satisfied(self.host) for step in plan.steps if isinstance(step, Environment)):
            return
        folder = use.unpack(self.host, self.bundle, self.prefix, tell)
        use.list_python(self.host, self.bundle, folder, self.prefix)

    def clear(self) -> None:
        """Remove what was unpacked; a folder that the user unpacked is the user's."""
        if self.bundle.folder is None:
            self.host.remove(str(self.bundle.place(self.prefix)))
