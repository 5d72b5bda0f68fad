"""What the controller prepares for its hosts: bundles of sgprov alone, and the wheels of the locks that they want."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from provision.bundle import create
from provision.bundle.fetch import Fetched, fetch
from provision.bundle.logins import logins
from provision.bundle.sources import Machine, Source, of_pins
from provision.catalog.load import Catalog
from provision.catalog.shipped import folder
from provision.host.local import LocalHost
from provision.host.scratch import scratch
from provision.locks.lockfile import Lock, available

Say = Callable[[str], None]


def bundles(controller: LocalHost, architectures: Iterable[str], say: Say) -> dict[str, str]:
    """Architecture to the bundle of sgprov for it, which is made where it is not in the caller's cache already."""
    home = controller.variable("HOME") or "/root"
    cache = f"{controller.variable('XDG_CACHE_HOME') or f'{home}/.cache'}/sgprov"
    controller.make_directory(cache)
    found = {}
    for arch in sorted(set(architectures)):
        say(f"making sgprov's own bundle for {arch}")
        found[arch] = f"{cache}/tool-{arch}.tar"
        create.tool(controller, arch, Path(found[arch]))
    return found


def wheels(controller: LocalHost, locks: Iterable[Lock], place: Path, say: Say) -> tuple[tuple[Source, ...], Fetched]:
    """Have every wheel of these locks in `place`, each fetched once and by its hash."""
    catalog, found = Catalog(), dict[str, Source]()
    with scratch(controller) as folder_:
        for lock in locks:
            machine = Machine(python=lock.python, arch=lock.arch, glibc=catalog.stack(lock.stack).minimum_glibc)
            say(f"fetching the {len(lock.requirements)} wheels of `{lock.name}`, once for all hosts")
            found |= {source.name: source for source in of_pins(controller, lock.requirements, machine, folder_)}
    certificates = controller.variable("SSL_CERT_FILE")
    fetched = fetch(tuple(found.values()), place, certificates=certificates, logins=logins(controller))
    say(f"{fetched.files} wheels fetched ({fetched.bytes / 1e6:.1f} MB), {fetched.kept} were here")
    return tuple(found.values()), fetched


def lock_of(name: str) -> Lock | None:
    """The lock of this sgprov that is called so."""
    stack = name.rsplit(".cp3", 1)[0]
    return next((lock for lock in available(folder("lockfiles"), stack) if lock.name == name), None)
