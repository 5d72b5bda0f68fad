"""Run by each interpreter of a host: says what it is in one line. Any Python since 3.8 must be able to read this.

It needs nothing that a bare interpreter (`-I -S`) has not loaded already, so it answers in 10 ms.
"""

import os
import sys

_LIBRARY = os.path.dirname(os.__file__)  # noqa: PTH120  # pathlib is 15 ms


def _here(*parts: str) -> str:
    return str(int(os.path.exists(os.path.join(*parts))))  # noqa: PTH110, PTH118


# Debian splits off what makes environments (python3-venv has `ensurepip`) and the headers (python3-dev).
_VERSION = "python%d.%d" % sys.version_info[:2]  # noqa: UP031
sys.stdout.write(
    "\t".join(
        (
            sys.implementation.name,
            sys.version.split()[0],
            os.path.realpath(sys.executable),
            _here(_LIBRARY, "ensurepip", "__init__.py"),
            _here(sys.base_prefix, "include", _VERSION, "Python.h"),
        )
    )
    + "\n"
)
