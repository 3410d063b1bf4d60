"""The C library keeps memory that was freed, for what is allocated next.

A step of training frees and allocates hundreds of megabytes of features on a CPU. GNU's malloc
gives free memory above 64 MiB back to the system, which fills every page with zeros when it is
wanted again; on two cores that took 3 percent of a step.
"""

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_LARGEST = 32 * 2**20  # bytes; larger blocks are mapped on their own, as malloc does by itself
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Ask the C library for it, unless the environment has settings of malloc; whether it will."""
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # not Linux, or another C library
        return False
    # either one alone would end malloc's own choice of the other
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST) and mallopt(_TRIM_THRESHOLD, _NEVER))
