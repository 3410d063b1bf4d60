"""Ending a process, even if its process group has threads of its own."""

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

# Set by a process that has joined a group. Gloo's threads outlive the group, and one that frees
# a tensor while the interpreter shuts down aborts the process: "terminate called without an
# active exception", after everything was done and written.
has_joined_group = False


def exit_process(code: int) -> NoReturn:
    """End the process with an exit code.

    After a process group, exit handlers still run and output is flushed, but the interpreter is
    not torn down.
    """
    if has_joined_group:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, so that nothing half written stays behind."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread receives signals
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
