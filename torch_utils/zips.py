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
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

from torch_utils.bounded import CHUNK, open_regular
from torch_utils.errors import UserError

MAX_MEMBERS = 2**22
_LOCAL_HEADER = 30  # bytes before a member's name
_ENCRYPTED = 1
_PACKED_CHUNK = 2**16  # packed bytes that are read at once: what is left of them is copied
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


class MemberStream:
    """The content of a member from front to back, part by part, however large it is.

    Only stored and deflated members: the other methods unpack in large pieces. The checksum is
    verified at the end, unless a part of a stored member was skipped.

    Args:
        archive: from `open_zip`; its file is this stream's until the end.
        member: of it.

    Attributes:
        position: bytes of the content that lie behind.

    Raises:
        BadZipFile: the member's header is damaged, or it is encrypted or packed in another way.
    """

    def __init__(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
        is_stored = member.compress_type == zipfile.ZIP_STORED
        if not is_stored and member.compress_type != zipfile.ZIP_DEFLATED:
            raise zipfile.BadZipFile(f"it is packed by the method {member.compress_type}")
        if is_stored and member.compress_size != member.file_size:
            raise zipfile.BadZipFile("it has two sizes")
        self._file = seek_member(archive, member)
        self._member = member
        self._inflater = None if is_stored else zlib.decompressobj(-zlib.MAX_WBITS)
        self._left = member.compress_size  # packed bytes in the file
        self._rest = b""  # packed bytes that were read already
        self._checksum: int | None = 0
        self.position = 0

    def parts(self, num: int) -> Iterator[bytes]:
        """The next `num` bytes, in parts.

        Raises:
            those of `BAD_ZIP`: there are fewer, or they are damaged.
        """
        stop = self.position + num
        while self.position < stop:
            part = self._next(min(stop - self.position, CHUNK))
            if not part:
                raise EOFError("it ends too early")
            self.position += len(part)
            if self._checksum is not None:
                self._checksum = zlib.crc32(part, self._checksum)
            if self.position == self._member.file_size:
                self._verify()
            yield part

    def skip(self, num: int) -> None:
        """Pass over the next `num` bytes.

        Raises:
            those of `BAD_ZIP`, as `parts`.
        """
        if self._inflater is not None or not num:
            for _ in self.parts(num):
                pass
            return
        self._checksum = None
        self._file.seek(num, os.SEEK_CUR)
        self._left -= num
        self.position += num

    def _next(self, limit: int) -> bytes:
        """Some bytes of the content; none at its end."""
        if self._inflater is None:
            part = self._file.read(min(limit, max(self._left, 0)))
            self._left -= len(part)
            return part
        while True:
            if not self._rest:
                self._rest = self._file.read(min(_PACKED_CHUNK, self._left))
                self._left -= len(self._rest)
            is_last = not self._rest
            part = self._inflater.decompress(self._rest, limit)
            self._rest = self._inflater.unconsumed_tail
            if part or is_last:
                return part

    def _verify(self) -> None:
        if self._checksum is not None and self._checksum != self._member.CRC:
            raise zipfile.BadZipFile("its checksum is wrong")
