"""Run by an environment's Python (`-I -S`): which `.pyc` files are what it would compile their sources to.

Reads lines of "pyc TAB source" from the file that is named, and prints the numbers of those that are. In a process of
its own: bytecode that was made up can end it, and then none of what follows is genuine. Python 3.10 must read this.
"""

import importlib.util
import marshal
import sys

_HEADER_BYTES = 16


def _is_genuine(pyc: str, source: str) -> bool:
    # What its header says of when it was made is no proof, its code is.
    with open(pyc, "rb") as stream:  # noqa: PTH123  # pathlib is 15 ms
        content = stream.read()
    if content[:4] != importlib.util.MAGIC_NUMBER:
        return False
    with open(source, "rb") as stream:  # noqa: PTH123
        text = stream.read()
    level = pyc.rpartition(".opt-")[2].partition(".")[0] if ".opt-" in pyc else "0"
    wanted = compile(text, source, "exec", dont_inherit=True, optimize=int(level))
    return bool(marshal.loads(content[_HEADER_BYTES:]) == wanted)  # noqa: S302  # the reason for this process


def _main() -> None:
    with open(sys.argv[1], encoding="utf-8", errors="surrogateescape") as stream:  # noqa: PTH123
        lines = stream.read().splitlines()
    for number, line in enumerate(lines):
        pyc, _, source = line.partition("\t")
        try:
            if _is_genuine(pyc, source):
                sys.stdout.write(f"{number}\n")
                sys.stdout.flush()
        except Exception:  # noqa: BLE001, S112  # whatever is wrong with it, it is not genuine
            continue


_main()
