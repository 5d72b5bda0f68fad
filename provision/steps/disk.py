"""Whether an environment fits on the disk, asked before the first byte is fetched."""

from __future__ import annotations

from provision.environments import installer, layout
from provision.host import RESERVE_BYTES, HostView
from provision.locks import sizes
from provision.locks.lockfile import Lock
from provision.report import Finding, Severity

CHECK = "disk-environment"
LINKS_CHECK = "disk-links"
_GB = 1e9


def check_disk(view: HostView, *, prefix: str, lock: Lock, interpreter: str | None = None) -> Finding | None:
    """An error where the disks cannot take what `lock` installs; None where they can, or where sizes are unknown.

    With `interpreter` (a path) an environment whose wheels are all in uv's cache is known to need no more space.
    """
    path, known = layout.path_for(prefix, lock), sizes.of(lock)
    # An interrupted install has put an unknown part of its bytes on the disk already: it may be the rest that fits.
    if (
        known is None
        or layout.is_stamped(view, path, lock)
        or view.read(f"{layout.staging_of(path)}/{layout.MADE}") is not None
    ):
        return None
    installed = known.disk_bytes
    cache = installer.cache_directory(view)
    places, linked = (prefix, cache), _linked(view, prefix, cache)
    short = _shortest(view, places, installed, linked=linked)
    if short and interpreter and installer.is_cached(view, lock, interpreter):
        short = None if linked else _shortest(view, (prefix,), installed, linked=False)
    if short is None:
        return None
    place, needed, free = short
    return Finding(
        check=CHECK,
        severity=Severity.ERROR,
        text=f"`{lock.name}` needs {needed / _GB:.1f} GB on the disk of `{place}`, {free / _GB:.1f} GB are free",
        fix=(
            f"free {(needed - free) / _GB:.1f} GB there, or name other disks: `--prefix` and `UV_CACHE_DIR`",
            "`sgprov environments clear` removes environments that are no longer used, `uv cache prune` their wheels",
        ),
        data={"path": place, "needed_bytes": needed, "free_bytes": free, "download_bytes": known.download_bytes},
    )


def check_links(view: HostView, *, prefix: str) -> Finding | None:
    """A warning where uv has to copy from its cache: slower, and everything lies on disk twice."""
    cache = installer.cache_directory(view)
    if view.variable("UV_LINK_MODE") or _linked(view, prefix, cache):
        return None
    return Finding(
        check=LINKS_CHECK,
        severity=Severity.WARNING,
        text=f"uv's cache (`{cache}`) and `{prefix}` are on different file systems: wheels are copied, not linked",
        fix=(f"set `UV_CACHE_DIR` to a directory on the file system of `{prefix}`",),
    )


def _linked(view: HostView, prefix: str, cache: str) -> bool:
    """Whether the files of an environment are those of the cache, at no further cost."""
    here, there = view.disk(prefix), view.disk(cache)
    if here is None or there is None:
        return True
    return here.mount == there.mount and (view.variable("UV_LINK_MODE") or "hardlink") in {"hardlink", "clone"}


def _shortest(view: HostView, places: tuple[str, ...], installed: int, *, linked: bool) -> tuple[str, int, int] | None:
    """The first place whose file system lacks space: (path, bytes needed, bytes free)."""
    needed: dict[str, int] = {}
    for place in places:
        if disk := view.disk(place):
            before = needed.get(disk.mount)
            needed[disk.mount] = installed if before is None or linked else before + installed
    for place in places:
        disk = view.disk(place)
        if disk and disk.free < needed[disk.mount] + RESERVE_BYTES:
            return place, needed[disk.mount] + RESERVE_BYTES, disk.free
    return None
