"""Members of zips that others made, unpacked within bounds and checked by their checksums.

zipfile itself unpacks a bz2 or lzma member in one piece, however much memory that takes.
"""

import bz2
import contextlib
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import IO, Any

from torch_utils.bounded import open_regular
from torch_utils.errors import UserError

MAX_MEMBERS = 2**22
_LOCAL_HEADER = 30  # bytes before a member's name
_ENCRYPTED = 1
_LZMA_HEADER = 9  # version, length of the properties, properties

# What a damaged or unusual zip raises, e.g. RuntimeError for an encrypted member.
BAD_ZIP = (
    *(OSError, EOFError, ValueError, RuntimeError, OverflowError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
)


def open_zip(path: str | os.PathLike[str]) -> zipfile.ZipFile:
    """Open a zip; the caller closes it.

    Raises:
        UserError: it is not a regular file, or has too many members, or they overlap.
        others: those of `BAD_ZIP`, it is damaged.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
    archive = zipfile.ZipFile(path)
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        archive.close()
        raise UserError(f"{os.fspath(path)} has more than {MAX_MEMBERS} members")
    if sum(member.compress_size for member in members) > size:
        archive.close()
        raise zipfile.BadZipFile("its members overlap")
    return archive


def read_member(
    archive: zipfile.ZipFile,
    member: zipfile.ZipInfo,
    limit: int,
    what: str,
    lock: contextlib.AbstractContextManager[Any] | None = None,
) -> bytes:
    """The content of a member.

    Args:
        archive: from `open_zip`.
        member: of it.
        limit: bytes that it may have.
        what: its name for messages.
        lock: held while the file is read, so that threads can share it.

    Raises:
        UserError: it has more bytes than the limit.
        others: those of `BAD_ZIP`, it is damaged, encrypted or packed in an unknown way.
    """
    size = max(member.file_size, member.compress_size)
    if size > limit:
        raise UserError(f"{what} has {size} bytes, more than {limit}: make it smaller")
    with lock or contextlib.nullcontext():
        file = seek_member(archive, member)
        packed = file.read(member.compress_size)
    if len(packed) < member.compress_size:
        raise EOFError("it ends too early")
    content = packed
    if member.compress_type != zipfile.ZIP_STORED:
        content = _unpack(packed, member)
    if len(content) != member.file_size or zlib.crc32(content) != member.CRC:
        raise zipfile.BadZipFile("its checksum is wrong")
    return content


def seek_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> IO[bytes]:
    """The file of a zip, where the packed bytes of a member begin.

    Raises:
        BadZipFile: the member's header is damaged, or it is encrypted.
    """
    if member.flag_bits & _ENCRYPTED:
        raise zipfile.BadZipFile("it is encrypted")
    file = archive.fp
    assert file is not None, "the zip was closed"
    file.seek(member.header_offset)
    header = file.read(_LOCAL_HEADER)
    if len(header) < _LOCAL_HEADER or header[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile("its header is damaged")
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    file.seek(name_length + extra_length, os.SEEK_CUR)
    return file


def _inflate(packed: bytes, limit: int) -> bytes:
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, limit)


def _unbzip2(packed: bytes, limit: int) -> bytes:
    return bz2.BZ2Decompressor().decompress(packed, limit)


def _unlzma(packed: bytes, limit: int) -> bytes:
    """lzma as in a zip: a short header of its own, then the raw stream (APPNOTE 5.8)."""
    length, code, history = struct.unpack("<2xHBI", packed[:_LZMA_HEADER])
    if length != 5:
        raise lzma.LZMAError("its header is damaged")
    chain = {
        "id": lzma.FILTER_LZMA1,
        # nothing lies further back than the content is long
        "dict_size": min(history, max(limit, 4096)),
        **{"lc": code % 9, "lp": code // 9 % 5, "pb": code // 45},
    }
    stream = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[chain])
    return stream.decompress(packed[_LZMA_HEADER:], limit)


_UNPACKERS: Mapping[int, Callable[[bytes, int], bytes]] = {
    zipfile.ZIP_DEFLATED: _inflate,
    zipfile.ZIP_BZIP2: _unbzip2,
    zipfile.ZIP_LZMA: _unlzma,
}


def _unpack(packed: bytes, member: zipfile.ZipInfo) -> bytes:
    """Unpack at most one byte more than a member says it has."""
    if member.compress_type not in _UNPACKERS:
        raise zipfile.BadZipFile(f"it is packed by the method {member.compress_type}")
    return _UNPACKERS[member.compress_type](packed, member.file_size + 1)
