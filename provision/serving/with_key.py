"""Starts an engine's module with an API key that is in no argument list and not in its log.

Copied beside the server's record and run by the engine's own Python, so it imports nothing of ours. Arguments: the
file with the key (`-`, in any directory, for none), `-m`, the module, and the module's own arguments.
"""

from __future__ import annotations

import logging
import os
import runpy
import sys
from pathlib import Path
from typing import Any


def keep_out_of_logs(key: str) -> None:
    """Engines write all their settings into their logs."""
    ordinary = logging.getLogRecordFactory()

    def without_key(*arguments: Any, **named: Any) -> logging.LogRecord:
        record = ordinary(*arguments, **named)
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001  # a message that does not fit its arguments is told where it is written
            return record
        if key in message:
            record.msg, record.args = message.replace(key, "***"), None
        return record

    logging.setLogRecordFactory(without_key)


def main(file: str, _: str, module: str, *arguments: str) -> None:
    # For a container, whose engine has no setting for it; elsewhere it is so already.
    os.umask(0o077)
    # The interpreter put this script's directory first, where `-m` has nothing of ours.
    sys.path.pop(0)
    sys.argv = [module, *arguments]
    if Path(file).name != "-":
        key = Path(file).read_text(encoding="utf-8").strip()
        keep_out_of_logs(key)
        # What the system shows of a process is what it was started with, not this.
        sys.argv.insert(1, f"--api-key={key}")
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
