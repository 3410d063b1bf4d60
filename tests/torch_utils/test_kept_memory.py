"""Memory that was freed: it is not given back to the system, unless the user chose otherwise."""

import os
import platform
import subprocess
import sys

import pytest

from torch_utils.kept_memory import keep_freed_memory

# frees 128 MiB in blocks that malloc does not map on their own, and allocates them again
PROGRAM = """
import ctypes, resource, sys
from torch_utils.kept_memory import keep_freed_memory
kept = keep_freed_memory()
libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
size = 2**20
def turn():
    blocks = [libc.malloc(size) for _ in range(128)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    for block in blocks:
        libc.free(block)
turn()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
turn()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of malloc but those of a test."""
    for name in [*os.environ]:
        if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES":
            monkeypatch.delenv(name)


def faults(**environment: str) -> tuple[str, int]:
    """Whether memory is kept, and how often the second turn is given pages anew."""
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    kept, number = done.stdout.split()
    return kept, int(number)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_used_again_without_the_system() -> None:
    kept, num = faults()
    released, others = faults(MALLOC_TRIM_THRESHOLD_="131072", MALLOC_MMAP_THRESHOLD_="33554432")
    assert (kept, released) == ("True", "False")
    assert num < others / 10


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_settings_of_the_user_stay(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    assert not keep_freed_memory()


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", missing)
    assert not keep_freed_memory()
