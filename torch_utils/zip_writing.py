"""Zips that we write: whole or absent, members stored as they are, equal contents equal bytes."""

import contextlib
import os
import zipfile
from collections.abc import Iterator

from torch_utils.files import replacing


@contextlib.contextmanager
def new_zip(path: str | os.PathLike[str]) -> Iterator[zipfile.ZipFile]:
    """A zip that gets its name when the block ends without an error; `member` names its parts.

    Args:
        path: the file to write, as for `torch_utils.files.replacing`.
    """
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        yield archive


def member(name: str) -> zipfile.ZipInfo:
    """A stored member, the same on every system and at every time."""
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    info.create_system = 3  # or the bytes would depend on the system that wrote them
    info.external_attr = 0o644 << 16
    info.compress_type = zipfile.ZIP_STORED
    return info
