"""The C library keeps memory that was freed, for what is allocated next.

A step of training frees and allocates hundreds of megabytes of features on a CPU. GNU's malloc
gives free memory above 64 MiB back to the system, which fills every page with zeros when it is
wanted again; on two cores that took 3 percent of a step. Threads would have memory of their own, of
which it gives back all that is free.
"""

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of mallopt(3)
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
    # either threshold alone would end malloc's own choice of the other
    wanted = (_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, _NEVER), (_ARENA_MAX, 1)
    return all(mallopt(name, value) for name, value in wanted)
