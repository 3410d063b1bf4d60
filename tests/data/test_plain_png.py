"""Plain PNGs against Pillow, which reads and writes them in its own way."""

import io
import struct
import zlib

import numpy as np
import PIL.Image
import pytest

from data.dataset import decode_bytes
from data.decoding import open_picture
from data.plain_png import decode_plain
from torch_utils.errors import UserError
from torch_utils.images import png_bytes

RANDOM = np.random.default_rng(0)


def pillows(image: np.ndarray, **options: object) -> bytes:
    """A PNG as Pillow saves it."""
    content = io.BytesIO()
    picture = PIL.Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
    picture.save(content, format="png", **options)
    return content.getvalue()


def part(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content).to_bytes(4, "big")
    return len(content).to_bytes(4, "big") + name + content + checksum


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (3, 32, 32), (1, 7, 300), (3, 200, 300), (3, 2, 20000)]
)
@pytest.mark.parametrize("level", [0, 6])
def test_bytes_are_those_that_pillow_saves_and_pixels_those_that_it_reads(
    shape: tuple[int, int, int], level: int
) -> None:
    for image in (RANDOM.integers(0, 256, shape, np.uint8), np.full(shape, 7, np.uint8)):
        content = png_bytes(image, level)
        assert content == pillows(image, compress_level=level)
        plain = decode_plain(content)
        assert plain is not None
        np.testing.assert_array_equal(
            plain, image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        )
        np.testing.assert_array_equal(decode_bytes(content, "it"), image)


def test_what_is_not_plain_is_left_to_pillow() -> None:
    image = RANDOM.integers(0, 256, (3, 8, 8), np.uint8)
    content = png_bytes(image, 0)
    head, rest = content[:33], content[33:]
    fields = head[16:29]
    interlaced = head[:8] + part(b"IHDR", fields[:12] + b"\x01") + rest
    deep = head[:8] + part(b"IHDR", fields[:8] + b"\x10" + fields[9:]) + rest
    others = [
        head + part(b"tEXt", b"Author\0someone") + rest,
        head + part(b"tRNS", bytes(6)) + rest,
        content + b"more",
        interlaced,
        deep,
        head[:8] + part(b"IHDR", struct.pack(">2I", 2**31, 2**31) + fields[8:]) + rest,
        pillows(np.zeros((1, 300, 300), np.uint8)),
        b"",
        b"GIF89a" + bytes(100),
    ]
    for other in others:
        assert decode_plain(other) is None


@pytest.mark.parametrize("cut", [20, 34, 60, -13, -1])
def test_a_cut_png_is_left_to_pillow(cut: int) -> None:
    assert decode_plain(png_bytes(RANDOM.integers(0, 256, (3, 8, 8), np.uint8), 0)[:cut]) is None


def test_no_changed_byte_of_a_plain_png_goes_unnoticed() -> None:
    content = png_bytes(RANDOM.integers(0, 256, (3, 8, 8), np.uint8), 0)
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 255
        assert decode_plain(bytes(damaged)) is None


def test_streams_of_another_length_give_what_pillow_reads() -> None:
    head = png_bytes(np.zeros((3, 8, 8), np.uint8), 0)[:33]
    row = bytes([0] + [9] * 24)
    for rows in (2, 20):
        content = head + part(b"IDAT", zlib.compress(row * rows)) + part(b"IEND", b"")
        plain = decode_plain(content)
        assert plain is not None
        np.testing.assert_array_equal(plain, np.asarray(open_picture(content, "it.png")))


def test_a_stream_that_ends_too_early_is_damage_in_one_line() -> None:
    content = png_bytes(RANDOM.integers(0, 256, (3, 8, 8), np.uint8), 0)
    short = content[:33] + part(b"IDAT", content[41:-22]) + part(b"IEND", b"")
    assert decode_plain(short) is None
    with pytest.raises(UserError, match=r"it\.png is damaged"):
        decode_bytes(short, "it.png")
