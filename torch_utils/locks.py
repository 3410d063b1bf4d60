"""Locks between processes, on files: held by one process, freed by the system when it ends.

The file names the holder, for the messages of those who wait; its content decides nothing. If the
file system has no locks, work goes on without them.
"""

import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from torch_utils.files import UNSUPPORTED
from torch_utils.notes import say, warn

FIRST_NOTICE = 1.0  # seconds of waiting before a line says for whom
NEXT_NOTICES = 30.0  # seconds between the lines after that
_POLL = 0.1  # seconds between attempts
_MAX_TEXT = 4096  # bytes of a lock file that are looked at

# network file systems give an exclusive lock only on a file that is open for writing
_NO_LOCKS = UNSUPPORTED | {errno.EBADF}

_descriptors: set[int] = set()  # of the locks that this process holds


class Busy(Exception):
    """A lock is held; the text tells by whom, e.g. "process 1234 on gpu7"."""


@contextlib.contextmanager
def holding(path: Path, doing: str, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock while the block runs. Processes that are forked meanwhile do not hold it.

    Args:
        path: the lock file, which stays; its folder must exist.
        doing: what the holder does, for those who wait: "waiting for process 1234, which ...".
        wait: wait for as long as it takes, and say for whom; otherwise raise `Busy`.

    Yields:
        Whether the lock is held; False if the system or the file system has no locks.

    Raises:
        Busy: another process holds it, and `wait` is not set.
        OSError: the file can neither be made nor read.
    """
    descriptor = _open(path)
    _descriptors.add(descriptor)
    is_held = False
    try:
        is_held = _acquire(descriptor, path, wait)
        if is_held:
            _write(descriptor, {"pid": os.getpid(), "host": socket.gethostname(), "doing": doing})
        yield is_held
    finally:
        if descriptor in _descriptors:  # else this is a fork, which has closed it
            if is_held:
                _write(descriptor, None)
            _descriptors.remove(descriptor)
            os.close(descriptor)


def _close_in_fork() -> None:
    """A lock belongs to the open file, which a fork shares: it would outlive its holder."""
    while _descriptors:
        os.close(_descriptors.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_fork)


def _open(path: Path) -> int:
    """Open a lock file; one of another user is opened for reading, and can be locked, too."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        with contextlib.suppress(OSError):
            return os.open(path, os.O_RDONLY)
        raise


def _acquire(descriptor: int, path: Path, wait: bool) -> bool:
    """Lock an open file; False if there are no locks here."""
    try:
        import fcntl
    except ImportError:  # no such locks outside POSIX
        return False
    start, next_notice = time.monotonic(), FIRST_NOTICE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            warn(f"the file system of {path.parent} has no locks ({error.strerror}): nothing keeps "
                 "two processes from writing the same file there")  # fmt: skip
            return False
        holder, doing = _read(descriptor, path)
        if not wait:
            raise Busy(holder)
        waited = time.monotonic() - start
        if waited >= next_notice:
            say(f"waiting for {holder}, which {doing} ({waited:.0f} s)")
            next_notice = waited + NEXT_NOTICES
        time.sleep(_POLL)


def _write(descriptor: int, content: dict[str, object] | None) -> None:
    """Note who holds a lock, or that nobody does; failing to do so is harmless."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        if content is not None:
            os.pwrite(descriptor, json.dumps(content).encode(), 0)


def _read(descriptor: int, path: Path) -> tuple[str, str]:
    """Who holds a lock and what that process does, as far as the file tells."""
    unknown = f"holds {path}"
    try:
        content = json.loads(os.pread(descriptor, _MAX_TEXT, 0))
        pid, host, doing = int(content["pid"]), str(content["host"]), str(content["doing"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return "another process", unknown
    if not (host + doing).isprintable():  # it is shown on a terminal
        return f"process {pid}", unknown
    return f"process {pid} on {host}", doing
