"""Files that are either whole or absent: temporary name, fsync, rename, fsync of the folder.

Network and user-space file systems lack some of these calls. A call that they lack is left out; a
call that fails is an error.
"""

import contextlib
import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from torch_utils.errors import UserError

_UMASK = os.umask(0)
os.umask(_UMASK)

# errors of file systems that do not have a call
UNSUPPORTED = frozenset(
    (errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, errno.ENOLCK, errno.ENOTTY)
)
# errors when there is no room, on the disk, in a quota or below a limit
DISK_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_PROBE_BYTES = 4096  # a full disk takes empty files


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn the system's refusal to write a path into one line.

    Raises:
        UserError: the system refused something within the block.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write {os.fspath(path)}: {reason}") from error


def prepare_folder(folder: str | os.PathLike[str]) -> None:
    """Make a folder, and check before the work that files can be written there.

    Raises:
        UserError: they cannot.
    """
    with writing(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        probe = Path(folder) / f".writable-{os.getpid()}"
        try:
            probe.write_bytes(bytes(_PROBE_BYTES))
        finally:
            probe.unlink(missing_ok=True)  # processes of other machines may have the same number


def sync(descriptor: int) -> None:
    """Flush an open file to disk, if the file system can.

    Raises:
        OSError: the content could not be written.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Flush a folder's entries to disk, so that a rename in it survives a power cut."""
    if os.name != "posix":
        return  # Windows cannot open a folder for fsync
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        if error.errno in UNSUPPORTED | {errno.EACCES}:
            return  # a folder may be open to writing and closed to reading
        raise
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def drop_temporaries(
    folder: str | os.PathLike[str], stem: str = "*", *, older_than: float = 0.0
) -> None:
    """Delete the temporary files that processes left when they were killed within `replacing`.

    Args:
        folder: the folder.
        stem: of the file that they were writing, without suffix; all by default.
        older_than: seconds since the last write; above 0 if other processes may still write them.
    """
    for path in Path(folder).glob(f".{stem}.tmp-*"):
        with contextlib.suppress(OSError):  # gone meanwhile, or another user's
            if path.is_file() and time.time() - path.stat().st_mtime >= older_than:
                path.unlink()


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`; move it there when the block ends without an error.

    The content is flushed to disk before the rename, and the folder after it. If the block
    raises, the temporary file is removed and whatever `path` held before stays as it was.

    Args:
        path: the file to write; its parent folders are made.

    Yields:
        The temporary path, in the same folder and with the same suffix.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(
        f".{target.stem}.tmp-{os.getpid()}-{threading.get_ident()}{target.suffix}"
    )
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            sync(file.fileno())
        with contextlib.suppress(OSError):  # some file systems have no permissions
            os.chmod(temporary, 0o666 & ~_UMASK)  # some libraries make files that only we may read
        os.replace(temporary, target)
        sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)
