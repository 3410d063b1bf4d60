"""Ending a process, also one whose process group has threads of its own."""

import atexit
import os
import sys
from typing import NoReturn

# Set by a process that has joined a group. Gloo's threads outlive the group, and one that frees
# a tensor while the interpreter shuts down aborts the process: "terminate called without an
# active exception", after everything was done and written.
needs_short_way = False


def leave(code: int) -> NoReturn:
    """End the process with an exit code.

    After a process group, exit handlers still run and output is flushed, but the interpreter is
    not torn down.
    """
    if needs_short_way:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
