"""Reading files that others made: regular ones only, and never more than a bound.

A bound counts the bytes that really come, not what a header says of them.
"""

import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from typing import IO

from torch_utils.errors import UserError

CHUNK = 2**20
GROWTH = 64  # compressed data may grow to so many times its bytes on disk,
FREE_GROWTH = 2**28  # or to this, however small the file is: sound files of zeros shrink a lot
_MAX_STREAMS = 1024  # gzip files may be several, one behind the other
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_GZIP = 31  # zlib's code for 32 KiB of history in a gzip header


def open_regular(path: str | os.PathLike[str], what: str | None = None) -> IO[bytes]:
    """Open a file to read its bytes; a pipe or device, which could go on for ever, is refused.

    Args:
        path: the file.
        what: its name for messages; None for the path.

    Raises:
        UserError: it is not a regular file.
        OSError: it does not exist or cannot be opened.
    """
    # without O_NONBLOCK, opening a pipe waits until somebody writes into it
    descriptor = os.open(path, _FLAGS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(f"{what or os.fspath(path)} is a pipe, device or folder: give a file")
    return open(descriptor, "rb")


def read_file(path: str | os.PathLike[str], limit: int, what: str | None = None) -> bytes:
    """The content of a regular file.

    Args:
        path: the file.
        limit: bytes that it may have.
        what: its name for messages; None for the path.

    Raises:
        UserError: it is not a regular file, or has more than `limit` bytes.
        OSError: it cannot be read.
    """
    with open_regular(path, what) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(size + 1) if size <= limit else b""  # memory for all is taken at once
        if len(content) > size:  # it grows, or the system does not tell sizes
            content += file.read(limit + 1 - len(content))
    if max(size, len(content)) > limit:
        raise UserError(
            f"{what or os.fspath(path)} has {size} bytes, more than {limit}: make it smaller"
        )
    return content


def read_text(path: str | os.PathLike[str], limit: int) -> str:
    """The content of a regular file of UTF-8.

    Raises:
        UserError: as `read_file`.
        OSError, UnicodeDecodeError: it cannot be read.
    """
    return read_file(path, limit).decode("utf-8")


def chunks(file: IO[bytes], size: int | None = None) -> Iterator[bytes]:
    """The rest of a file, or its next `size` bytes, part by part."""
    left = size
    while left is None or left > 0:
        chunk = file.read(CHUNK if left is None else min(CHUNK, left))
        if not chunk:
            return
        left = None if left is None else left - len(chunk)
        yield chunk


def collected(parts: Iterable[bytes], limit: int, what: str) -> bytearray:
    """Join parts into one content.

    Raises:
        UserError: they have more bytes than the limit.
    """
    content = bytearray()
    for part in parts:
        if len(content) + len(part) > limit:
            raise UserError(
                f"{what} unpacks to more than {limit} bytes: if it is sound, save it uncompressed"
            )
        content += part
    return content


def growth_limit(size: int) -> int:
    """How many bytes compressed data of this size may unpack to."""
    return max(FREE_GROWTH, GROWTH * size)


def gunzipped(file: IO[bytes]) -> Iterator[bytes]:
    """Unpack gzip data part by part; their checksums are verified.

    Raises:
        zlib.error, EOFError: they are damaged.
    """
    rest = file.read(CHUNK)
    for _ in range(_MAX_STREAMS):
        stream = zlib.decompressobj(_GZIP)
        while not stream.eof:
            rest = rest or file.read(CHUNK)
            if not rest:
                raise EOFError("it ends too early")
            if part := stream.decompress(rest, CHUNK):
                yield part
            rest = stream.unconsumed_tail
        rest = stream.unused_data.lstrip(b"\0")  # zeros fill up tapes
        while not rest:
            rest = file.read(CHUNK)
            if not rest:
                return
            rest = rest.lstrip(b"\0")
    raise zlib.error(f"it has more than {_MAX_STREAMS} streams")
