"""Checks of the disks: room, inodes, and file systems that behave."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from provision.checks.base import Context, bootstrap, check, error, has_lock, info, warning
from provision.host import DiskSpace
from provision.report import Finding
from provision.steps.disk import check_disk, check_links

_check = partial(check, "disk")
_GIB = 1 << 30
# An environment of 200 wheels is some 85,000 files; with uv's cache linked they count once.
_INODES = 200_000
_INODES_LEAST = 90_000
_TEMPORARY_LEAST = _GIB
_MODEL_ROOM = 20 * _GIB
_NETWORK_TYPES = ("nfs", "cifs", "smb", "fuse", "9p", "ceph", "glusterfs", "beegfs", "lustre", "gpfs", "wekafs")


@_check(
    "disk-environment",
    "The environment fits on the disk",
    looks_at="the free space of the prefix and of uv's cache, against what the locked wheels weigh",
    why="an install that fills the disk stops half way and takes other programs with it",
    remedy="free what the finding says, or `sgprov bootstrap --prefix DIR` with `UV_CACHE_DIR` on the same disk",
    applies=has_lock,
)
def disk_environment(context: Context) -> Iterator[Finding]:
    decision = context.decision
    if decision and decision.lock:
        short = check_disk(
            context.view, prefix=context.places.prefix, lock=decision.lock, interpreter=decision.interpreter
        )
        if short:
            yield short


@_check(
    "disk-links",
    "uv can link from its cache",
    looks_at="whether uv's cache and the prefix are on one file system",
    why="otherwise every wheel is copied: slower, and everything lies on the disk twice",
    remedy="`export UV_CACHE_DIR=DIR` with a directory on the file system of the prefix",
    applies=has_lock,
)
def disk_links(context: Context) -> Iterator[Finding]:
    if found := check_links(context.view, prefix=context.places.prefix):
        yield found


@_check(
    "disk-models",
    "The disk has room for a model",
    looks_at="the free space of the models' directory and of the Hugging Face cache",
    why="a download that stops 500 MB before the end of a 10 GB file starts again",
    remedy="`hf cache delete`, or other places: `--model-directory`, `--cache-directory`",
    applies=lambda context: context.serve.model is not None and not context.serve.model.startswith("builtin:"),
)
def disk_models(context: Context) -> Iterator[Finding]:
    for place in (context.places.models, context.places.huggingface):
        disk = context.view.disk(place)
        if disk and disk.free < _MODEL_ROOM:
            yield warning(
                f"{disk.free / _GIB:.1f} GiB are free on the disk of `{place}`; a model of 8 B parameters takes 16",
                "`du -sh ~/.cache/huggingface/hub/*` shows what can go; or `--model-directory` on another disk",
            )
            return


@_check(
    "disk-inodes",
    "The disks have inodes to spare",
    looks_at="free inodes of every directory that is written to",
    why="an environment is some 85,000 files: a disk with space and without inodes is full all the same",
    remedy="`sgprov environments` and `uv cache prune` remove what is no longer used",
)
def disk_inodes(context: Context) -> Iterator[Finding]:
    for mount, disk in _disks(context).items():
        if disk.inodes_free is not None and disk.inodes_free < _INODES:
            say = error if disk.inodes_free < _INODES_LEAST else warning
            yield say(
                f"{disk.inodes_free:,} inodes are free on {mount}, an environment takes 85,000",
                "`uv cache prune`, or `--prefix` on another disk",
            )


@_check(
    "disk-answers",
    "Every disk answers",
    looks_at="the file system of every directory of the target, with a limit on the wait",
    why="a path on a dead network mount blocks whatever touches it, for ever",
    remedy="`findmnt` lists mounts, `sudo umount -l PATH` lets go of a dead one",
)
def disk_answers(context: Context) -> Iterator[Finding]:
    for problem in context.facts.problems:
        if problem.check == "facts.disks":
            yield error(problem.text, "`findmnt` lists mounts, `sudo umount -l PATH` lets go of a dead one")


@_check(
    "disk-network",
    "The prefix is on a disk of this host",
    looks_at="the type of the prefix's file system",
    why="85,000 small files over a network: imports take minutes, and locks of caches do not always hold",
    remedy="`sgprov bootstrap --prefix DIR` on a local disk; models may stay where they are",
)
def disk_network(context: Context) -> Iterator[Finding]:
    disk = context.view.disk(context.places.prefix)
    if disk and disk.filesystem.startswith(_NETWORK_TYPES):
        # A pod's volume is over a network, and the only place that survives the pod.
        say = info if context.facts.surroundings.runpod else warning
        yield say(
            f"`{context.places.prefix}` is on {disk.mount} ({disk.filesystem}), over a network",
            f"{bootstrap(context, '--prefix DIR')} on a local disk",
        )


@_check(
    "disk-executable",
    "Programs may run and files be written under the prefix",
    looks_at="the mount options `noexec` and `ro` of the prefix's file system",
    why="on `noexec` the environment's Python cannot start and libraries cannot be loaded",
    remedy="`sudo mount -o remount,exec,rw MOUNT`, or another `--prefix`",
)
def disk_executable(context: Context) -> Iterator[Finding]:
    disk = context.view.disk(context.places.prefix)
    options = _options(context, disk.mount) if disk else frozenset[str]()
    if disk and (wrong := options & {"noexec", "ro"}):
        yield error(
            f"`{context.places.prefix}` is on {disk.mount}, mounted with {' and '.join(sorted(wrong))}",
            f"`sudo mount -o remount,exec,rw {disk.mount}`, or another `--prefix`",
        )


@_check(
    "disk-temporary",
    "There is room for temporary files",
    looks_at="the free space of TMPDIR or /tmp",
    why="kernels are compiled there, and sockets of the engine's processes lie there",
    remedy="`export TMPDIR=DIR` on a disk with room",
)
def disk_temporary(context: Context) -> Iterator[Finding]:
    place = context.view.variable("TMPDIR") or "/tmp"  # noqa: S108  # looked at, not written to
    disk = context.view.disk(place)
    if disk and disk.free < _TEMPORARY_LEAST:
        yield warning(f"{disk.free / _GIB:.2f} GiB are free in `{place}`", "`export TMPDIR=DIR` on a disk with room")


@_check(
    "disk-survives",
    "What is installed survives the pod",
    looks_at="on RunPod: whether the prefix is on a volume of its own and not on the container's disk",
    why="the container's disk is gone with the pod, and with it environment, models and compiled kernels",
    remedy="`sgprov bootstrap --prefix /workspace/sgprov`, in a pod with a volume",
    applies=lambda context: context.facts.surroundings.runpod,
)
def disk_survives(context: Context) -> Iterator[Finding]:
    disk = context.view.disk(context.places.prefix)
    if disk and disk.mount == "/":
        yield warning(
            f"`{context.places.prefix}` is on the container's own disk, which is gone with the pod",
            f"{bootstrap(context, '--prefix /workspace/sgprov')}, in a pod with a volume mounted at /workspace",
        )


def _disks(context: Context) -> dict[str, DiskSpace]:
    """The file systems of all places, by mount point."""
    places = (context.places.prefix, context.places.models, context.places.huggingface)
    return {disk.mount: disk for place in places if (disk := context.view.disk(place))}


def _options(context: Context, mount: str) -> frozenset[str]:
    """Mount options, from lines such as `/dev/vda1 /data ext4 rw,noexec 0 0`; the last mount of a place counts."""
    found = frozenset[str]()
    for line in (context.view.read("/proc/self/mounts") or "").splitlines():
        fields = line.split()
        if len(fields) > 3 and fields[1].replace("\\040", " ") == mount:  # noqa: PLR2004  # options are the fourth
            found = frozenset(fields[3].split(","))
    return found


CHECKS = (
    *(disk_environment, disk_links, disk_models, disk_inodes, disk_answers, disk_network, disk_executable),
    *(disk_temporary, disk_survives),
)
