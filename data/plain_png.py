"""Small plain PNGs, of which most data sets consist, without Pillow's reader.

The reader takes most of the time of a small image. Here, the parts of the file are walked through
at once, and the pixels come from the same decoder of Pillow's. Whatever is not exactly as expected
is left to `data.decoding`, which also has the words for what is wrong with a file.
"""

import struct
import zlib

import numpy as np
import PIL.Image

MAX_PIXELS = 2**16  # above that, the reader's time is nothing; below, no budget counts them
_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"
_HEADER = struct.Struct(">2I5B")  # width, height, bits, colours, and three numbers that are 0
_PART = 12  # bytes of a part beside its content: length, name, checksum
_MAX_BYTES = 2**19  # of the file; a plain one of so many pixels has less


def decode_plain(content: bytes) -> np.ndarray | None:
    """As `plain_png`, but uint8 [H, W] or [H, W, 3], not to be written to."""
    picture = plain_png(content)
    if picture is None:
        return None
    shape = (picture.height, picture.width, 3)
    pixels = np.frombuffer(picture.tobytes(), np.uint8)  # np.asarray takes a little longer
    return pixels.reshape(shape if picture.mode == "RGB" else shape[:2])


def plain_png(content: bytes) -> PIL.Image.Image | None:
    """Decode a PNG that has a header, pixels and an end, and nothing else.

    All checksums are verified, also those that Pillow does not look at.

    Args:
        content: of the file.

    Returns:
        A picture in mode L or RGB; None if the file is anything else, damaged or not.
    """
    if content[: len(_START)] != _START or not 57 <= len(content) <= _MAX_BYTES:
        return None
    width, height, bits, colours, *rest = _HEADER.unpack_from(content, len(_START))
    if not 0 < width * height <= MAX_PIXELS or bits != 8 or colours not in (0, 2) or any(rest):
        return None
    packed = _packed(content)
    if packed is None:
        return None
    mode = "RGB" if colours else "L"
    try:
        return PIL.Image.frombytes(mode, (width, height), packed, "zip", mode)
    except (ValueError, OSError):
        return None


def _packed(content: bytes) -> bytes | None:
    """The compressed pixels, which may be in several parts; None if there are other parts."""
    found: list[bytes] = []
    start = 8  # behind the signature
    while start + _PART <= len(content):
        stop = start + _PART + int.from_bytes(content[start : start + 4], "big")
        part = content[start + 4 : stop - 4]
        if zlib.crc32(part) != int.from_bytes(content[stop - 4 : stop], "big"):
            return None
        if part == b"IEND":
            return b"".join(found) if stop == len(content) else None
        if part[:4] == b"IDAT":
            found.append(part[4:])
        elif start > 8:
            return None
        start = stop
    return None
