"""Ctrl-C, and its relatives SIGTERM and SIGHUP: one way to stop, and no traceback whenever it comes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from provision import errors

TEXT = "interrupted; run the same command again to go on"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def leave_at_once(arguments: Sequence[str]) -> None:
    """From now on a signal ends this process as an interrupted command ends: while it is imported, nothing is changed.

    An exception would end up in whatever is being imported, which may catch it, or take it for its own failure.
    """
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    command = next((word for word in own if word.isascii() and word.isalpha()), "sgprov")
    told = (
        f'{{"schema": "sgprov.{command}/1", "ok": false, "changed": false, "error": '
        f'{{"code": "interrupted", "exit_status": {errors.INTERRUPTED}, "text": "{TEXT}", "hint": null}}}}\n'
    )

    def leave(_: int, __: FrameType | None) -> None:
        with suppress(OSError):
            if "--json" in own:
                os.write(1, told.encode())
            else:
                os.write(2, f"{TEXT}\n".encode())
        os._exit(errors.INTERRUPTED)

    _handle(leave)


def raise_from_now_on() -> None:
    """From now on a signal is a `KeyboardInterrupt`, so that what was begun is ended or undone."""
    _handle(_raise)


def look_away() -> None:
    """From now on a signal changes nothing: what is left to do is to say how it ended."""
    _handle(lambda _, __: None)


def ignore_to_the_end() -> None:
    """From now on a signal is ignored, also while Python itself ends, which gives up handlers of its own before."""
    _handle(signal.SIG_IGN)
    # Where a `KeyboardInterrupt` came out of an `exec` of text (as in making a dataclass), Python ends as if nobody had
    # caught it, by SIGINT; another `exec` makes it forget that.
    exec("")  # noqa: S102


@contextmanager
def handled() -> Iterator[None]:
    """Has the handlers of before back when the block is over: it may be one of several commands of a process."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def _handle(handler: object) -> None:
    for number in _SIGNALS:
        # `nohup` has it ignored, and a shell for what it runs in the background: that is to stay.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)  # type: ignore[arg-type]
