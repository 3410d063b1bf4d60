"""Files that are either whole or absent: temporary name, fsync, rename, fsync of the folder."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from torch_utils.errors import UserError

_UMASK = os.umask(0)
os.umask(_UMASK)


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Say in one line what keeps a path from being written.

    Raises:
        UserError: the system refused something within the block.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write {os.fspath(path)}: {reason}") from error


def prepare_folder(folder: str | os.PathLike[str]) -> None:
    """Make a folder and find out, before the work, whether files can be written there.

    Raises:
        UserError: they cannot.
    """
    with writing(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        probe = Path(folder) / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink(missing_ok=True)  # processes of other machines may have the same number


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Flush a folder's entries to disk, so that a rename in it survives a power cut."""
    if os.name != "posix":
        return  # Windows cannot open a folder for fsync
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_UMASK)  # some libraries make files that only we may read
        os.replace(temporary, target)
        sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)
