"""Files fetched by hash: several at a time, taken up where they broke off, kept only if they are what was locked."""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from provision.bundle.logins import Login, netrc_login, origin
from provision.bundle.sources import Source
from provision.errors import StepFailed
from provision.http_client import Authorization, Limits, NoAnswer, Reply, asking

_AT_ONCE = 8
_BLOCK_BYTES = 1 << 20
# What is lost of a download that breaks off.
_PIECE_BYTES = 1 << 16
_ATTEMPTS = 4
# Hours for a large file are well; half a minute with next to nothing is not.
_LIMITS = Limits(most_bytes=None, stall_s=30.0, least_bytes=32 * 1024)
_REDIRECTS = 5
_PARTIAL = ".part"
_OK, _NOT_FOUND = 200, 404
_NOT_LET_IN = {401, 403}
_PARTIAL_CONTENT = 206
_NO_SUCH_RANGE = 416


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What crossed the line, and what was there already."""

    files: int = 0
    bytes: int = 0
    kept: int = 0

    def __add__(self, other: Fetched) -> Fetched:
        return Fetched(files=self.files + other.files, bytes=self.bytes + other.bytes, kept=self.kept + other.kept)


def fetch(
    sources: Sequence[Source],
    folder: Path,
    *,
    certificates: str | None = None,
    logins: Mapping[str, Login] | None = None,
    tell: Callable[[int], None] = lambda _: None,
) -> Fetched:
    """Have every source in `folder`; `tell` hears how many bytes have arrived in all. `logins` are by origin.

    A file that is there is believed only after it was hashed. Raises `StepFailed` naming the first that could not be
    had; what is complete stays, and the next call goes on from there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    counter = _Counter(tell)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        work = [
            pool.submit(_one, source, folder, _Way(certificates, (logins or {}).get(origin(source.url))), counter)
            for source in sources
        ]
        try:
            fresh = [each.result() for each in work]
        except BaseException:
            counter.over.set()
            for each in work:
                each.cancel()
            raise
    return Fetched(files=sum(fresh), bytes=counter.bytes, kept=len(fresh) - sum(fresh))


@dataclass(frozen=True)
class _Way:
    certificates: str | None
    login: Login | None = field(repr=False)


class _Counter:
    def __init__(self, tell: Callable[[int], None]) -> None:
        self.bytes = 0
        self.over = threading.Event()
        self._tell = tell
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self.bytes += count
            self._tell(self.bytes)
        if self.over.is_set():
            raise StepFailed("stopped, because another file could not be had")


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _one(source: Source, folder: Path, way: _Way, counter: _Counter) -> bool:
    """Have one file; whether it had to be fetched."""
    place = folder / source.name
    if place.is_file():
        if sha256_of(place) == source.sha256:
            return False
        place.unlink()
    partial = place.with_name(place.name + _PARTIAL)
    if urlsplit(source.url).scheme in {"http", "https"}:
        _download(source, partial, way, counter)
    else:
        _copy(source, partial, counter)
    if (found := sha256_of(partial)) != source.sha256:
        partial.unlink()
        raise StepFailed(
            f"`{source.name}` is not what was locked: its sha256 is {found}, not {source.sha256}",
            hint="the index or mirror serves another file under this name; use one that serves the original",
        )
    partial.replace(place)
    return True


def _copy(source: Source, partial: Path, counter: _Counter) -> None:
    try:
        shutil.copyfile(source.url, partial)
    except OSError as error:
        raise StepFailed(f"`{source.url}` cannot be read: {error.strerror}") from error
    counter.add(partial.stat().st_size)


def _download(source: Source, partial: Path, way: _Way, counter: _Counter) -> None:
    # As with uv, a login for an index may be in ~/.netrc: for this host, and for none that a redirect leads to.
    login = way.login or netrc_login(source.url)
    for attempt in range(_ATTEMPTS):
        try:
            _attempt(source, partial, replace(way, login=login), counter)
        except NoAnswer as error:
            if attempt == _ATTEMPTS - 1:
                raise StepFailed(
                    f"the download of `{source.name}` broke off: `{origin(source.url)}` {error.reason}",
                    hint="run the same command again: what has arrived is kept",
                ) from error
            time.sleep(2**attempt)
        except OSError as error:
            raise StepFailed(f"`{partial}` cannot be written: {error.strerror}") from error
        else:
            return


def _attempt(source: Source, partial: Path, way: _Way, counter: _Counter) -> None:
    there = partial.stat().st_size if partial.exists() else 0
    with asking(
        "GET",
        source.url,
        limits=_LIMITS,
        authorization=Authorization.basic(*way.login) if way.login else None,
        headers={"Range": f"bytes={there}-"} if there else {},
        certificates=way.certificates,
        redirects=_REDIRECTS,
        insecure=True,  # an index without encryption is the user's own choice, as it is for uv
    ) as reply:
        if reply.status == _NO_SUCH_RANGE:
            # All of it had arrived; whether it is right, its hash says.
            return
        _check(reply, source)
        with partial.open("ab" if reply.status == _PARTIAL_CONTENT else "wb") as stream:
            # As it is, even where it calls itself compressed: the hash is of the file, and a range counts its bytes.
            for block in reply.blocks(_PIECE_BYTES, packed=True):
                stream.write(block)
                counter.add(len(block))


def _check(reply: Reply, source: Source) -> None:
    if reply.status == _NOT_FOUND:
        raise StepFailed(f"`{source.name}` is no longer where the index says it is")
    if reply.status in _NOT_LET_IN:
        raise StepFailed(
            f"the index at `{origin(source.url)}` does not hand out `{source.name}` without the right login",
            hint="give it in `UV_INDEX_NAME_USERNAME` and `_PASSWORD`, in the index's address, or in ~/.netrc",
        )
    if reply.status not in {_OK, _PARTIAL_CONTENT}:
        raise NoAnswer.of(source.url, f"says {reply.status}")
