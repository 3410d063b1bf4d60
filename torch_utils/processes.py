"""Processes that end with the one that started them, however it ends."""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux's prctl
_LOOKS_EVERY = 1.0  # seconds between looks at the parent, where the system does not tell


def die_with(parent: int) -> None:
    """Let this process be killed when its parent ends, even by SIGKILL.

    Linux does it by itself; elsewhere a thread looks at who the parent is.

    Args:
        parent: its process id, asked for before this process was started.
    """
    if not _ask_system():
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    elif os.getppid() != parent:  # it had ended before the system was asked
        os._exit(1)


def _ask_system() -> bool:
    """Whether the system promises to kill this process when its parent ends."""
    if sys.platform != "linux":
        return False
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        return bool(libc.prctl(_SET_PARENT_DEATH_SIGNAL, int(signal.SIGKILL), 0, 0, 0) == 0)
    return False


def _watch(parent: int) -> None:
    """End when another process has become the parent; on Windows, none ever does."""
    while os.getppid() == parent:
        time.sleep(_LOOKS_EVERY)
    os._exit(1)
