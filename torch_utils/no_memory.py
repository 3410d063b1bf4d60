"""Errors that mean out of memory, whoever raises them, and one line for them. No torch here."""

import errno
import re

# CUDA's allocator and runtime, its libraries, the CPU's allocator, the system
_WORDS = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|not enough memory|ALLOC_FAILED",
    re.IGNORECASE,
)
_AMOUNT = re.compile(r"tried to allocate ([\d.]+) ?(bytes|[KMGT]iB)", re.IGNORECASE)
_UNITS = {"bytes": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # PyTorch has a class for its own allocator on GPUs; all other say it in words
    is_in_words = isinstance(error, RuntimeError) and _WORDS.search(str(error)) is not None
    return isinstance(error, MemoryError) or is_in_words


def shortage(error: BaseException) -> str:
    """The line for an error for which `is_out_of_memory` holds, without advice."""
    text = str(error)
    place = " on the GPU" if "CUDA" in text or "CUBLAS" in text or "CUDNN" in text else ""
    found = _AMOUNT.search(text)
    if found is None:
        return f"out of memory{place}"
    amount = float(found[1]) * _UNITS[found[2].lower()]
    unit = "GiB" if amount >= 2**30 else "MiB"
    return f"out of memory{place}: {amount / _UNITS[unit.lower()]:.1f} {unit} more did not fit"
