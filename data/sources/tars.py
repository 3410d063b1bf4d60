"""Regular files in a tar, read by name from a stream, within a bound of bytes.

tarfile itself allocates any size that a header of long names or attributes states.
"""

import os
from collections.abc import Collection, Iterable, Iterator

_BLOCK = 512
_REGULAR = b"0\0"
_SUM = slice(148, 156)


class _Stream:
    """Bytes that come in parts, and are handed out in any size."""

    def __init__(self, parts: Iterable[bytes], limit: int) -> None:
        self._parts = iter(parts)
        self._rest = bytearray()
        self._left = limit

    def read(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end.

        Raises:
            ValueError: the stream has more bytes than its limit.
        """
        while len(self._rest) < size:
            part = next(self._parts, None)
            if part is None:
                break
            self._left -= len(part)
            if self._left < 0:
                raise ValueError("it is larger than it can be")
            self._rest += part
        found = bytes(self._rest[:size])
        del self._rest[:size]
        return found


def tar_members(
    parts: Iterable[bytes], wanted: Collection[str], limit: int
) -> Iterator[tuple[str, bytes]]:
    """The files of some names in a tar, wherever in its folders they lie.

    Args:
        parts: the tar's bytes, in parts of any size.
        wanted: names without folders.
        limit: bytes of the whole tar.

    Yields:
        Name and content.

    Raises:
        ValueError: it is damaged, or larger than the limit.
        EOFError: it ends too early.
    """
    stream = _Stream(parts, limit)
    while True:
        header = stream.read(_BLOCK)
        if not header.strip(b"\0"):
            return  # two blocks of zeros end a tar
        size = _size(header)
        name = os.path.basename(header[:100].partition(b"\0")[0].decode("latin-1"))
        content = stream.read(size)
        if len(content) < size:
            raise EOFError("it ends too early")
        stream.read(-size % _BLOCK)
        if name in wanted and header[156] in _REGULAR:
            yield name, content


def _size(header: bytes) -> int:
    """The size in a header whose own sum must be right."""
    if len(header) < _BLOCK:
        raise EOFError("it ends too early")
    blank = header[: _SUM.start] + b" " * 8 + header[_SUM.stop :]
    if _octal(header[_SUM]) != sum(blank):
        raise ValueError("a header in it is damaged")
    return _octal(header[124:136])


def _octal(field: bytes) -> int:
    text = field.strip(b" \0")
    if not text.isdigit():
        raise ValueError("a header in it is damaged")
    return int(text, 8)
