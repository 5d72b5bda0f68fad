"""Asks libcuda itself whether CUDA starts; run as a child, because a wedged driver hangs inside the library.

It imports nothing of this package and no torch: the answer takes as long as the driver does. Prints, e.g., `0 13000 2`:
the code of cuInit, the CUDA version the driver supports, the number of GPUs. `-` alone: there is no libcuda.
"""

from __future__ import annotations

import ctypes
import sys


def main() -> int:
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        sys.stdout.write("-\n")
        return 0
    code = cuda.cuInit(0)
    version, count = ctypes.c_int(0), ctypes.c_int(0)
    cuda.cuDriverGetVersion(ctypes.byref(version))
    if code == 0:
        cuda.cuDeviceGetCount(ctypes.byref(count))
    sys.stdout.write(f"{code} {version.value} {count.value}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
