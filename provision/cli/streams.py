"""Standard streams that never raise: whoever reads may go away, and the disk behind them may be full.

What a command is at is more than what it says: a server that is being started is not given up because `head` has read
enough. Imports nothing that takes time: `sgprov --version` needs it, too.
"""

from __future__ import annotations

import errno
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import Any, TextIO, cast

# Whoever read it has gone, or it was closed from the beginning: nobody wants to hear of that.
_GONE = {errno.EPIPE, errno.EBADF, errno.ESHUTDOWN, errno.ECONNRESET}


class Stream:
    """A stream to write to, as far as that goes; `problem` says why the rest was lost, if somebody wanted it."""

    def __init__(self, stream: TextIO) -> None:
        self.problem: str | None = None
        self._lost = False
        self._stream = stream
        if isinstance(stream, TextIOWrapper):
            # What an encoding has no sign for is no reason to stop either.
            stream.reconfigure(errors="replace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def heard(self) -> bool:
        """Whether anybody may still read it; asked of the pipe itself, to which nothing need have been written."""
        poll = select.poll()
        with suppress(OSError, ValueError):
            poll.register(self._stream.fileno(), 0)
        return not self._lost and not any(event & select.POLLERR for _, event in poll.poll(0))

    def write(self, text: str) -> int:
        if not self._lost:
            try:
                return self._stream.write(text)
            except (OSError, ValueError) as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        if not self._lost:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._lose(error)

    def _lose(self, error: OSError | ValueError) -> None:
        self._lost = True
        if isinstance(error, OSError) and error.errno not in _GONE:
            self.problem = error.strerror or str(error)
        # What waits in the buffers goes nowhere, or Python would complain of it at the end.
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextmanager
def standard_streams() -> Iterator[tuple[Stream, Stream]]:
    """stdout and stderr as `Stream`s while the block runs; those that were closed, and stdin, lead to nowhere.

    Else the next file that is opened would have their place, and get what is said, by a child for instance.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    before = sys.stdin, sys.stdout, sys.stderr
    # Python itself has None for a stream that was closed when it started.
    with open(os.devnull, "r+", encoding="utf-8") as nowhere:  # noqa: PTH123  # no path of ours
        out, err = Stream(before[1] or nowhere), Stream(before[2] or nowhere)
        sys.stdin, sys.stdout, sys.stderr = before[0] or nowhere, cast("TextIO", out), cast("TextIO", err)
        try:
            yield out, err
        finally:
            out.flush()
            err.flush()
            sys.stdin, sys.stdout, sys.stderr = before
