"""One file of the cache: decoded images that are mapped into memory, and checksums of them.

    header    that of an .npy, which other programs can read
    body      uint8 [N, C, H, W]
    trailer   key of the images (32 bytes), CRC-32 of each 16 MiB of header and body, CRC-32 of
              the trailer so far

The header must equal, byte for byte, the one of the images that are asked for, so nothing is
parsed. The space is reserved before anything is mapped: writing to a map on a full disk raises no
error, but kills the program (SIGBUS).
"""

import math
import os
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from data.parallel import ordered_map
from torch_utils.files import UNSUPPORTED

Shape = tuple[int, int, int, int]

KEY_BYTES = 32
_HEADER_BYTES = 128
_CHUNK = 2**24  # bytes that one thread checks at a time
_ZEROS = bytes(2**20)


def size_of(shape: Shape) -> int:
    """Bytes that an entry takes on disk."""
    return _content_size(shape) + _trailer_size(shape)


def allocate(path: Path, shape: Shape) -> None:
    """Make an entry without images: its header, and the space for the rest.

    Raises:
        OSError: there is no room, or the file cannot be written.
    """
    with open(path, "wb") as file:
        file.write(_header(shape))
        file.flush()
        _reserve(file, size_of(shape))


def mapped(path: Path, shape: Shape, *, writable: bool = False) -> np.memmap:
    """The images of an entry, unchecked: uint8 [N, C, H, W].

    Args:
        path: the entry.
        shape: of the images.
        writable: whether writing to the array changes the file.

    Raises:
        OSError: it cannot be mapped.
    """
    if writable:
        return np.memmap(path, np.uint8, "r+", _HEADER_BYTES, shape)
    return np.memmap(path, np.uint8, "c", _HEADER_BYTES, shape)


def seal(path: Path, shape: Shape, key: str) -> None:
    """Finish an entry whose images are written.

    Args:
        path: the entry.
        shape: of the images.
        key: of the images, 32 characters.

    Raises:
        OSError: it cannot be read or written.
    """
    trailer = key.encode("ascii") + _checksums(path, shape)
    with open(path, "rb+") as file:
        file.seek(_content_size(shape))
        file.write(trailer + _crc(trailer))


def load(path: Path, shape: Shape) -> tuple[np.ndarray, str] | None:
    """The images of an entry and their key, if all checksums are right.

    All of it is read once, by several threads, which takes about as long as reading it from disk.

    Returns:
        (uint8 [N, C, H, W], key); None if the entry is damaged or of another data set.

    Raises:
        OSError: it does not exist, or cannot be read or mapped.
    """
    if path.stat().st_size != size_of(shape):
        return None
    trailer = _read(path, _content_size(shape), _trailer_size(shape))
    told, crc = trailer[:-4], trailer[-4:]
    if _read(path, 0, _HEADER_BYTES) != _header(shape) or _crc(told) != crc:
        return None
    if told[KEY_BYTES:] != _checksums(path, shape):
        return None
    return mapped(path, shape), told[:KEY_BYTES].decode("ascii", "replace")


def _header(shape: Shape) -> bytes:
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {tuple(map(int, shape))}, }}"
    length = _HEADER_BYTES - 10  # of what follows magic, version and itself
    header = b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + text.ljust(length - 1).encode()
    return header + b"\n"


def _content_size(shape: Shape) -> int:
    return _HEADER_BYTES + math.prod(shape)


def _trailer_size(shape: Shape) -> int:
    return KEY_BYTES + 4 * (len(_chunks(shape)) + 1)


def _chunks(shape: Shape) -> range:
    """Where the chunks of header and body begin."""
    return range(0, _content_size(shape), _CHUNK)


def _checksums(path: Path, shape: Shape) -> bytes:
    stop = _content_size(shape)

    def checksum(first: int) -> bytes:
        return _crc(_read(path, first, min(_CHUNK, stop - first)))

    return b"".join(ordered_map(checksum, _chunks(shape)))


def _crc(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(4, "little")


def _read(path: Path, first: int, size: int) -> bytes:
    """Bytes of a file. They are read, not mapped, so that a bad disk is an error."""
    with open(path, "rb") as file:
        file.seek(first)
        return file.read(size)


def _reserve(file: BinaryIO, size: int) -> None:
    """Extend a file that is open for writing, at its end, to so many bytes, on disk, not sparse.

    Raises:
        OSError: there is no room.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
            return
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
    while file.tell() < size:
        file.write(_ZEROS[: size - file.tell()])
